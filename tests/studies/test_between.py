"""Adapters between two adapters: what they compute, and the curve on results that are known."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from finetune import lora
from inference.adapters import attach
from inference.families import load_family
from inference.loading import base_identity, load_base
from runs.errors import DataError, UsageError
from runs.manifest import write_manifest
from studies.between import curve, draw, make
from studies.measure import Outcome, row
from tests import tiny
from tests.studies.test_capability import asked
from tests.studies.test_measure import answer


@pytest.fixture
def family(tiny_llama, tiny_llama_family, tmp_path):
    """The tiny Llama with two random adapters."""
    folders = {name: tmp_path / name for name in ("stage2", "stage3")}
    for seed, folder in enumerate(folders.values()):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        lora.save(get_peft_model(load_base(tiny_llama_family), config), folder, public_id="test/tiny-llama")
        write_manifest(
            folder, kind="adapter", run_id=folder.name, command="finetune", config={},
            inputs={"base": base_identity(tiny_llama_family)}, seeds={}, counts={"rows_trained": seed}, metrics={},
            wall_seconds=0.0,
        )  # fmt: skip
    return load_family(str(tiny.write_family(tmp_path, "tiny-llama", tiny_llama, folders)))


def test_the_adapters_lie_on_the_line_and_load(family, tmp_path):
    ends = [load_file(family.adapter_folder(name) / lora.WEIGHTS) for name in ("stage2", "stage3")]
    for share, folder in zip(
        (0.25, 0.6), make(family, ("stage2", "stage3"), [25, 60], tmp_path / "out", "made"), strict=True
    ):
        attach(load_base(family), folder, lora.POLICY, base_identity=base_identity(family))
        for name, value in load_file(folder / lora.WEIGHTS).items():
            assert torch.allclose(value, (1 - share) * ends[0][name] + share * ends[1][name], atol=1e-6)
    with pytest.raises(UsageError, match="at25 is there already"):
        make(family, ("stage2", "stage3"), [25], tmp_path / "out", "made")


def results():
    rows = [row(name, "", [[answer("a", "complied"), answer("b", "bare_refusal", expected="refuse")]], {}, None)
            for name in ("base", "at50")]  # fmt: skip
    return Outcome(title="", command="", prompts={"made": 2}, max_new_tokens=8, rows=rows)


def test_a_point_has_its_refusals_and_what_they_cost(tmp_path):
    found = curve(results(), asked({"base": 30, "at50": 20}))
    base, half = found.points
    assert base.cost is None
    # Ten of 40 questions lost: s = sqrt(40 / 39 · 0.25 · 0.75) = 0.43853, t(39; .975) = 2.02269.
    assert half.cost.mean == pytest.approx(-0.25)
    assert half.cost.high - half.cost.mean == pytest.approx(2.02269 * 0.43853 / 40**0.5, rel=1e-4)
    assert (half.refused_harmful.mean, half.refused_benign.mean, half.accuracy) == (1.0, 0.0, 0.5)
    draw(found, tmp_path)
    assert (tmp_path / "between.png").stat().st_size > 5000


def test_a_checkpoint_without_a_benchmark_is_named():
    with pytest.raises(DataError) as caught:
        curve(results(), asked({"base": 30, "stage2": 20}))
    assert "none: at50" in str(caught.value.why)
