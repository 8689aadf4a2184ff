import pytest

from finetune import merge
from inference.adapters import attach
from inference.families import load_family
from inference.loading import base_identity, load_base
from runs.errors import UserError
from runs.manifest import verify
from tests.finetune.conftest import QUIET


def run(place, output, **options):
    arguments = {"dtype": "float32", "command": "merge", "reporter": QUIET} | options
    return merge.run_merge(place.family, "stage2", output, **arguments)


def test_the_merged_model_computes_what_base_and_adapter_do(place, stage2, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    value, _ = run(place, tmp_path / "merged")
    metrics = verify(tmp_path / "merged", rebuild="").metrics
    assert value["largest_logit_difference"] <= metrics["tolerance"] < 0.01
    family = load_family(place.family)
    base = load_base(family)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        plain = base(ids).logits.clone()
        adapted = attach(base, stage2, "default", base_identity=base_identity(family)).eval()(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
    assert torch.allclose(merged, adapted, atol=1e-4)
    assert not torch.allclose(merged, plain, atol=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template


def test_a_merge_that_computes_something_else_is_not_written(place, stage2, tmp_path, monkeypatch):
    monkeypatch.setitem(merge.TOLERANCES, "bfloat16", 1e-9)
    with pytest.raises(UserError, match="differs from base"):
        run(place, tmp_path / "merged", dtype="bfloat16")
    assert not (tmp_path / "merged").exists()


def test_a_folder_with_something_in_it_is_left_alone(place, stage2, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        run(place, tmp_path)
