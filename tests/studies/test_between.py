"""Adapters between two adapters: what they compute, and the curve on results that are known."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from finetune import lora
from inference.adapters import attach
from inference.families import load_family
from inference.loading import base_identity, load_base
from runs.errors import DataError
from runs.manifest import write_manifest
from studies.between import curve, draw, make
from studies.measure import Outcome, row
from tests import tiny
from tests.studies.test_measure import answer, question


@pytest.fixture
def family(tiny_llama, tiny_llama_family, tmp_path):
    """The tiny Llama with two random adapters of different ranks."""
    folders = {name: tmp_path / name for name in ("stage2", "stage3")}
    for rank, folder in zip((4, 2), folders.values(), strict=True):
        torch.manual_seed(rank)
        config = LoraConfig(r=rank, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        lora.save(get_peft_model(load_base(tiny_llama_family), config), folder, public_id="test/tiny-llama")
        write_manifest(
            folder, kind="adapter", run_id=folder.name, command="finetune", config={},
            inputs={"base": base_identity(tiny_llama_family)}, seeds={}, counts={"rows_trained": rank}, metrics={},
            wall_seconds=0.0,
        )  # fmt: skip
    return load_family(str(tiny.write_family(tmp_path, "tiny-llama", tiny_llama, folders)))


def weights(family, folder):
    """The projections with the adapter in ``folder`` merged in."""
    model = attach(load_base(family), folder, lora.POLICY, base_identity=base_identity(family))
    return {name: value for name, value in model.merge_and_unload().state_dict().items() if "_proj" in name}


def test_the_weights_lie_on_the_line(family, tmp_path):
    start, end = (weights(family, family.adapter_folder(name)) for name in ("stage2", "stage3"))
    assert any(not torch.allclose(start[name], end[name], atol=1e-2) for name in start)
    made = make(family, ("stage2", "stage3"), [25, 60], tmp_path / "out", "between")
    for share, folder in zip((0.25, 0.6), made, strict=True):
        for name, value in weights(family, folder).items():
            assert torch.allclose(value, (1 - share) * start[name] + share * end[name], atol=5e-3)


def results():
    rows = [row(name, "", [[answer("a", "complied"), answer("b", "bare_refusal", expected="refuse")]], {}, None)
            for name in ("base", "at50")]  # fmt: skip
    return Outcome(title="", command="", prompts={"made": 2}, max_new_tokens=8, rows=rows)


def asked(names):
    return [question(name, number, number < right) for name, right in names.items() for number in range(40)]


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
    with pytest.raises(DataError, match="at50"):
        curve(results(), asked({"base": 30, "stage2": 20}))
