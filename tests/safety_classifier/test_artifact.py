"""The artifact: whole or refused, and an old one outlives a failed save."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from runs.errors import IntegrityError, UsageError, UserError
from runs.identity import file_digest
from safety_classifier.artifact import NORMALISER, Provenance, add_evaluation, load_artifact, save_artifact
from safety_classifier.labels import LABELS, Labels
from safety_classifier.model import ModelConfig, WideAndDeep, build, named_arrays
from safety_classifier.quantisation import quantise_model
from tests.safety_classifier.conftest import Parts


@pytest.fixture
def copy(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact, tmp_path / "copy"))


def sign_again(folder: Path) -> None:
    """Make the manifest agree with the files, as somebody who knows the format would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        manifest["files"][name] = {"sha256": file_digest(folder / name), "size": (folder / name).stat().st_size}
    path.write_text(json.dumps(manifest))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_what_is_read_is_what_was_saved(tiny_artifact: Path, tiny_model: WideAndDeep, tiny_parts: Parts) -> None:
    artifact = load_artifact(tiny_artifact)
    assert artifact.labels == LABELS
    assert artifact.config.model == tiny_parts["config"]
    assert artifact.calibration == tiny_parts["calibration"]
    assert artifact.thresholds == tiny_parts["thresholds"]
    stored, saved = named_arrays(artifact.model()), named_arrays(quantise_model(tiny_model))
    assert stored.keys() == saved.keys()
    assert all(np.array_equal(stored[name], saved[name]) for name in stored)


def test_all_files_are_listed(tiny_artifact: Path) -> None:
    manifest = load_artifact(tiny_artifact).manifest
    assert manifest.kind == "classifier"
    assert set(manifest.files) == {path.name for path in tiny_artifact.iterdir()} - {"manifest.json"}
    assert {"MODEL_CARD.md", "model.stablehlo", "model.json", "weights.safetensors"} <= set(manifest.files)


def test_float32_storage(tmp_path: Path, tiny_model: WideAndDeep, tiny_parts: Parts) -> None:
    save_artifact(tmp_path / "a", tiny_model, **tiny_parts, storage="float32")
    stored = named_arrays(load_artifact(tmp_path / "a").model())
    assert all(np.array_equal(stored[name], array) for name, array in named_arrays(tiny_model).items())


def test_saving_twice_gives_the_same_identity_and_weights(
    tmp_path: Path, tiny_artifact: Path, tiny_model: WideAndDeep, tiny_parts: Parts
) -> None:
    save_artifact(tmp_path / "a", tiny_model, **tiny_parts)
    again, first = load_artifact(tmp_path / "a"), load_artifact(tiny_artifact)
    assert again.identity == first.identity


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "tokenizer.json", "thresholds.json"])
def test_a_changed_byte_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=re.escape(name)) as caught:
        load_artifact(copy)
    assert "safety-classifier train" in str(caught.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "calibration.json", "model.stablehlo"])
def test_a_truncated_file_is_found(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(IntegrityError, match=f"{re.escape(name)}(.|\n)*bytes"):
        load_artifact(copy)


@pytest.mark.parametrize("name", ["labels.json", "MODEL_CARD.md"])
def test_a_missing_file_is_found(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(IntegrityError, match=f"{re.escape(name)}(.|\n)*missing"):
        load_artifact(copy)


def test_no_artifact_is_an_error_and_never_random_weights(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no classifier") as caught:
        load_artifact(tmp_path / "nothing")
    assert "safety-classifier train --config" in caught.value.mend
    (tmp_path / "empty").mkdir()
    with pytest.raises(IntegrityError, match=r"no manifest\.json"):
        load_artifact(tmp_path / "empty")


def test_an_unfinished_save_is_refused(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(IntegrityError, match="unfinished"):
        load_artifact(copy)


def test_another_kind_of_artifact_is_refused(copy: Path) -> None:
    edit(copy / "manifest.json", lambda manifest: manifest["files"].pop("weights.safetensors"))
    with pytest.raises(IntegrityError, match=r"not a classifier(.|\n)*weights\.safetensors"):
        load_artifact(copy)


def test_weights_of_another_config_are_refused_even_when_signed(copy: Path) -> None:
    edit(copy / "config.json", lambda config: config["model"]["encoder"].update(intermediate_size=128))
    sign_again(copy)
    with pytest.raises(IntegrityError, match=r"another config(.|\n)*int8\[64, 32\](.|\n)*int8\[128, 32\]"):
        load_artifact(copy)


def test_weights_with_fewer_layers_are_refused(copy: Path) -> None:
    arrays = {name: array for name, array in load_file(copy / "weights.safetensors").items() if ".1.up" not in name}
    save_file(arrays, copy / "weights.safetensors")
    sign_again(copy)
    with pytest.raises(IntegrityError, match=r"lack 'encoder\.layers\.1\.up\.bias'"):
        load_artifact(copy)


def test_weights_that_are_not_safetensors_are_refused(copy: Path) -> None:
    (copy / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    sign_again(copy)
    with pytest.raises(IntegrityError, match="not a safetensors file"):
        load_artifact(copy)


def test_another_label_order_is_refused(copy: Path) -> None:
    edit(copy / "labels.json", lambda labels: labels["heads"].reverse())
    sign_again(copy)
    with pytest.raises(IntegrityError, match=r"labels\.json is not the schema"):
        load_artifact(copy)


def test_another_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + " ")
    sign_again(copy)
    with pytest.raises(IntegrityError, match=r"tokenizer\.json is not the tokenizer"):
        load_artifact(copy)


def test_another_normaliser_is_refused(copy: Path) -> None:
    edit(copy / "config.json", lambda config: config["normaliser"].update(version="0"))
    sign_again(copy)
    with pytest.raises(IntegrityError, match=f"another normaliser(.|\n)*{NORMALISER.digest}(.|\n)*make the tiny one"):
        load_artifact(copy)


def test_an_unknown_key_is_refused(copy: Path) -> None:
    edit(copy / "config.json", lambda config: config.update(colour="blue"))
    sign_again(copy)
    with pytest.raises(IntegrityError, match=r"config\.json cannot be read(.|\n)*colour"):
        load_artifact(copy)


def test_thresholds_of_another_schema_are_refused(copy: Path) -> None:
    edit(copy / "thresholds.json", lambda thresholds: thresholds["heads"].pop("toxicity"))
    sign_again(copy)
    with pytest.raises(IntegrityError, match="toxicity"):
        load_artifact(copy)


def test_parts_that_do_not_fit_are_not_saved(tmp_path: Path, tiny_model: WideAndDeep, tiny_parts: Parts) -> None:
    fewer = Labels(heads=LABELS.heads[:-1])
    with pytest.raises(UsageError, match="calibration"):
        save_artifact(tmp_path / "a", tiny_model, **{**tiny_parts, "labels": fewer})
    wider = tiny_parts["config"].model_copy(update={"gram_bits": 11})
    with pytest.raises(IntegrityError, match="another config"):
        save_artifact(tmp_path / "a", tiny_model, **{**tiny_parts, "config": wider})
    assert not (tmp_path / "a").exists()


def test_weights_that_diverged_are_not_saved(tmp_path: Path, tiny_config: ModelConfig, tiny_parts: Parts) -> None:
    model = build(tiny_config, len(LABELS.heads))
    model.queries = nnx.Param(model.queries[...].at[0, 0].set(jnp.nan))
    with pytest.raises(UsageError, match="'queries' are not finite"):
        save_artifact(tmp_path / "a", model, **tiny_parts)


def test_a_new_artifact_replaces_the_old(copy: Path, tiny_config: ModelConfig, tiny_parts: Parts) -> None:
    before = load_artifact(copy).identity
    save_artifact(copy, build(tiny_config, len(LABELS.heads), seed=5), **tiny_parts)
    assert load_artifact(copy).identity != before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, tiny_model: WideAndDeep, tiny_parts: Parts) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a classifier"):
        save_artifact(tmp_path / "a", tiny_model, **tiny_parts)
    assert (tmp_path / "a" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("after", [0, 3, 7])
def test_a_full_disk_leaves_the_old_artifact(
    copy: Path, tiny_config: ModelConfig, tiny_parts: Parts, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    before, calls, real = load_artifact(copy).identity, iter(range(100)), os.fsync

    def full(descriptor: int) -> None:
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="disk is full"):
            save_artifact(copy, build(tiny_config, len(LABELS.heads), seed=5), **tiny_parts)
    assert load_artifact(copy).identity == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_failed_exchange_puts_the_old_artifact_back(
    copy: Path, tiny_config: ModelConfig, tiny_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = load_artifact(copy).identity, os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(target) == copy and ".new." in Path(source).name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(UserError, match="disk is full"):
            save_artifact(copy, build(tiny_config, len(LABELS.heads), seed=5), **tiny_parts)
    assert load_artifact(copy).identity == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_file_size_limit_leaves_the_old_artifact(copy: Path, tiny_config: ModelConfig, tiny_parts: Parts) -> None:
    """Here the kernel itself refuses the write."""
    before, model = load_artifact(copy).identity, build(tiny_config, len(LABELS.heads), seed=5)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError, match="disk is full"):
            save_artifact(copy, model, **tiny_parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_artifact(copy).identity == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_an_evaluation_joins_the_card_and_changes_no_score(copy: Path) -> None:
    before = load_artifact(copy)
    add_evaluation(copy, "| head | F1 |\n|---|---|\n| toxicity | 0.9 |", {"macro_f1": 0.9})
    after = load_artifact(copy)
    assert after.identity == before.identity
    assert after.manifest.metrics["evaluation"] == {"macro_f1": 0.9}
    assert "| toxicity | 0.9 |" in (copy / "MODEL_CARD.md").read_text()
    assert after.manifest.command == "make the tiny one"


def test_the_card_is_made_of_what_is_known(tmp_path: Path, tiny_model: WideAndDeep, tiny_parts: Parts) -> None:
    entry = {
        "licence": "CC-BY-4.0",
        "ships": True,
        "splits": {"train": 900, "test": 100},
        "heads": {"toxicity": {"labelled": 1000, "positive": 123}},
    }
    bound = {**entry, "licence": "CC-BY-NC-4.0 | odd", "ships": False}
    provenance = Provenance(
        command="make | it",
        config={"model": {"pretrained": "all-MiniLM-L6-v2"}},
        data={"sources": {"civil": entry, "bound": bound}},
        metrics={
            "calibration": {
                "toxicity": {
                    "positives": 5,
                    "labelled": 50,
                    "ece_mass": [0.05, 0.004],
                    "brier": [0.1, 0.09],
                }
            },
            "quantisation": {"rows": 1000, "largest": {"toxicity": 0.04}, "mean": {}, "flips": {"toxicity": 0.001}},
        },
    )
    save_artifact(tmp_path / "a", tiny_model, **{**tiny_parts, "card": None}, provenance=provenance)
    card = (tmp_path / "a" / "MODEL_CARD.md").read_text()
    assert "| civil | CC-BY-4.0 | 900 | 100 | toxicity 123 / 1,000 |" in card
    assert "| **all** | | 1,800 | 200 | |" in card
    assert "Not for sharing" in card
    assert "license: other" in card
    assert "CC-BY-NC-4.0 \\| odd" in card
    assert "Apache-2.0" in card
    assert "| toxicity | 5 / 50 | 0.0500 | 0.0040 | 0.1000 | 0.0900 |" in card
    assert "at most 0.040 (toxicity)" in card
    assert "Not evaluated yet." in card
    for head in LABELS.heads:
        assert head.definition in card
