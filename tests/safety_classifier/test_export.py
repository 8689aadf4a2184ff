"""The exported graph gives the logits of the compiled model, for any shape, without model code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from runs.errors import IntegrityError, UsageError
from runs.paths import ARTIFACTS
from safety_classifier.artifact import load_artifact, save_artifact
from safety_classifier.export import PLATFORMS, load_exported
from safety_classifier.features import Featuriser
from safety_classifier.forward import Forward
from safety_classifier.labels import LABELS
from safety_classifier.model import WideAndDeep
from tests.safety_classifier.conftest import SENTENCES, Parts


@pytest.mark.parametrize("storage", ["int8", "float32"])
def test_the_graph_equals_the_compiled_model(
    tmp_path: Path, tiny_model: WideAndDeep, tiny_parts: Parts, tiny_featuriser: Featuriser, storage: str
) -> None:
    save_artifact(tmp_path / "a", tiny_model, **tiny_parts, storage=storage)
    exported, artifact = load_exported(tmp_path / "a"), load_artifact(tmp_path / "a")
    assert exported.signature.precision == storage
    encoded = tiny_featuriser.encode(SENTENCES, ["", "how do i", "", "tell me"])
    expected = Forward(artifact.model(), tiny_featuriser, exported.signature.precision)(encoded)
    for rows, bucket in (([0, 1, 2, 3], 32), ([2], 24)):
        batch = tiny_featuriser.pad(encoded, rows, bucket)
        if bucket >= max(encoded.length(row) for row in rows):
            np.testing.assert_allclose(exported(batch), expected[rows], atol=1e-5, rtol=0)


def test_the_graph_takes_any_shape_up_to_the_longest(tiny_artifact: Path, tiny_featuriser: Featuriser) -> None:
    exported = load_exported(tiny_artifact)
    encoded = tiny_featuriser.encode(["they walk"] * 3)
    for rows, tokens in ((1, 7), (3, 64)):
        assert exported(tiny_featuriser.pad(encoded, range(rows), tokens)).shape == (rows, len(LABELS.names))
    with pytest.raises(UsageError, match="65 tokens a row; the model reads 64"):
        exported(tiny_featuriser.pad(encoded, [0], 65))


def test_the_signature_says_how_to_call(tiny_artifact: Path) -> None:
    signature = json.loads((tiny_artifact / "model.json").read_text())
    assert signature["heads"] == list(LABELS.names)
    assert list(signature["inputs"]) == ["ids", "types", "length", "grams"]
    assert set(PLATFORMS) == {"cpu", "cuda", "tpu"}
    graph = jax.export.deserialize(bytearray((tiny_artifact / "model.stablehlo").read_bytes()))
    assert graph.platforms == PLATFORMS
    assert len(graph.in_avals) == len(signature["weights"]) + 4


def test_it_serves_without_model_code(tiny_artifact: Path) -> None:
    program = f"""
        import json, sys
        import jax, numpy as np
        from pathlib import Path
        from safetensors.numpy import load_file
        folder = Path({str(tiny_artifact)!r})
        names = json.loads((folder / "model.json").read_text())["weights"]
        arrays = load_file(folder / "weights.safetensors")
        graph = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
        ids = np.full((1, 8), 7, np.int32)
        batch = ids, np.zeros_like(ids), np.array([8], np.int32), np.full((1, 4), -1, np.int32)
        logits = graph.call(*(arrays[name] for name in names), *batch)
        assert logits.shape == (1, {len(LABELS.names)}) and np.isfinite(logits).all()
        assert not [name for name in sys.modules if name.split(".")[0] in ("safety_classifier", "flax", "runs")]
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_graph_of_another_artifact_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_artifact, tmp_path / "copy"))
    (copy / "model.stablehlo").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"model\.stablehlo"):
        load_exported(copy)
    (copy / "model.stablehlo").unlink()
    with pytest.raises(IntegrityError, match=r"has no model\.stablehlo"):
        load_exported(copy)


def test_the_graph_holds_no_path_of_the_machine_that_made_it(tiny_artifact):
    for folder in (tiny_artifact, ARTIFACTS / "safety_classifier"):
        graph = (folder / "model.stablehlo").read_bytes()
        assert b".py" not in graph
        assert b"site-packages" not in graph
