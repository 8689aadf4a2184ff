import json
import math

import pytest

from finetune import data, fit, lora
from finetune.cluster import Cluster
from finetune.dpo import build_trainer, check_start, load_policy, precomputes, read_pairs, run_dpo
from inference.families import load_family
from inference.loading import base_identity
from runs.errors import IntegrityError, UsageError, UserError
from tests.finetune.conftest import OPTIONS, QUIET, interrupted_at


def trainer_for(place, run, tokenizer, work):
    family = load_family(place.family)
    start = lora.resolve_adapter(run.init_adapter, family) if run.init_adapter else None
    model = load_policy(run, family, start, base=base_identity(family))
    examples = read_pairs(run, tokenizer)
    return build_trainer(run, model, tokenizer, examples, work, public_id="test/base"), examples


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("precompute", [False, True])
def test_before_the_first_step_the_loss_is_ln_2_and_every_reward_is_0(
    place, stage2, tokenizer, tmp_path, precompute, bf16
):
    run = place.dpo(precompute_ref_log_probs=precompute, bf16=bf16)
    trainer, _ = trainer_for(place, run, tokenizer, tmp_path)
    found = check_start(trainer, run)
    assert found["loss_at_start"] == pytest.approx(math.log(2), abs=1e-6)
    assert [found[f"{name}_at_start"] for name in ("chosen", "rejected", "margins")] == pytest.approx(
        [0, 0, 0], abs=1e-6
    )


def test_the_reference_is_stage_2_and_not_the_base(place, stage2, tokenizer, tmp_path):
    import torch

    trainer, _ = trainer_for(place, place.dpo(), tokenizer, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    reference = torch.cat(trainer.compute_ref_log_probs(trainer.model, batch))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        policy = trainer.model(**inputs, labels=labels, fused_lm_head=True).log_probs.sum(1)
        with trainer.model.disable_adapter():
            base = trainer.model(**inputs, labels=labels, fused_lm_head=True).log_probs.sum(1)
    assert torch.allclose(reference, policy, atol=1e-4)
    assert not torch.allclose(reference, base, atol=1e-2)
    trainable = {name.split(".")[-2] for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert trainable == {lora.POLICY}


def test_a_wrong_reference_is_refused(place, stage2, tokenizer, tmp_path):
    run = place.dpo()
    trainer, _ = trainer_for(place, run, tokenizer, tmp_path)
    for name, weight in trainer.model.named_parameters():
        if ".ref." in name:
            weight.data.zero_()  # as if the reference were the base
    with pytest.raises(UserError, match="reference is not the model"):
        check_start(trainer, run)


def test_a_run_stores_the_policy_alone_and_moves_it_from_the_reference(place, stage2, tmp_path):
    from safetensors.torch import load_file

    value, _ = run_dpo(place.dpo(tmp_path / "out", num_train_epochs=5, eval_steps=5), OPTIONS, QUIET)
    assert value["metrics"]["loss_at_start"] == pytest.approx(math.log(2), abs=1e-5)
    assert value["metrics"]["train_loss_last"] < math.log(2)
    assert 0 <= value["metrics"]["eval_rewards/accuracies"] <= 1
    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {*fit.ARTIFACT, "manifest.json"}
    stored, start = load_file(folder / lora.WEIGHTS), load_file(stage2 / lora.WEIGHTS)
    assert stored.keys() == start.keys()
    assert any(not tensor.equal(start[name]) for name, tensor in stored.items())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (
        manifest["inputs"]["init_adapter"]
        == json.loads((stage2 / "manifest.json").read_text())["files"][lora.WEIGHTS]["sha256"]
    )
    lines = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    assert {"rewards/margins", "rewards/accuracies", "logps/chosen", "num_tokens", "eval_kl"} <= lines[0].keys()
    assert value["metrics"]["eval_kl"] > 0


FAMILIES = [
    pytest.param(["sigmoid", "sft"], id="sigmoid-sft"),
    pytest.param(["kto"], id="kto"),
    pytest.param(["ipo"], id="ipo", marks=pytest.mark.slow),
    pytest.param(["orpo"], id="orpo", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("losses", FAMILIES)
def test_an_interrupted_run_continues_to_the_same_bytes(place, stage2, tmp_path, losses):
    """Every family of losses trains, resumes exactly, and moves the policy away from the reference."""
    run = {name: place.dpo(tmp_path / name, num_train_epochs=3, loss_type=losses) for name in "ab"}
    run_dpo(run["a"], OPTIONS, QUIET)
    with interrupted_at(7), pytest.raises(KeyboardInterrupt):
        run_dpo(run["b"], OPTIONS, QUIET)
    assert not list((tmp_path / "b").rglob("ref/*"))
    run_dpo(run["b"], OPTIONS, QUIET)
    for name in (lora.WEIGHTS, "train_log.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    metrics = json.loads((tmp_path / "a" / "manifest.json").read_text())["metrics"]
    assert metrics["eval_kl"] > 0
    assert metrics["train_loss_last"] != metrics["train_loss_first"]
    if losses != ["orpo"]:
        assert metrics["margins_at_start"] == 0
        assert metrics["eval_rewards/margins"] != 0


def test_an_interpolated_run_stores_the_weighted_mean_of_its_start_and_what_it_trained(place, stage2, tmp_path):
    """In float32, before rounding to what is stored; also where the run was interrupted."""
    import torch
    from safetensors.torch import load_file

    whole, part = (place.dpo(tmp_path / name, num_train_epochs=3) for name in ("whole", "part"))
    part = part.model_copy(update={"interpolation": 0.25})
    measured, _ = run_dpo(whole, OPTIONS, QUIET)
    with interrupted_at(7), pytest.raises(KeyboardInterrupt):
        run_dpo(part, OPTIONS, QUIET)
    partly, _ = run_dpo(part, OPTIONS, QUIET)
    start, end, stored = (load_file(folder / lora.WEIGHTS) for folder in (stage2, whole.output_dir, part.output_dir))
    for name, value in stored.items():
        expected = 0.75 * start[name].float() + 0.25 * end[name].float()
        assert torch.allclose(value.float(), expected, rtol=2**-7, atol=1e-5)
    assert any(not torch.equal(value, end[name]) for name, value in stored.items())
    assert 0 < partly["metrics"]["eval_kl"] < measured["metrics"]["eval_kl"]
    assert "stands at 25%" in (part.output_dir / "MODEL_CARD.md").read_text()


def test_adapters_of_other_shapes_have_no_way_between_them():
    import torch

    start, end = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 6.0], dtype=torch.bfloat16)}
    assert lora.interpolated(start, end, 0.25)["a"].tolist() == [1.5, 3.0]
    assert lora.interpolated(start, end, 1.0)["a"].equal(end["a"])
    for other in ({"b": end["a"]}, {"a": torch.ones(3)}):
        with pytest.raises(IntegrityError, match="no way between"):
            lora.interpolated(start, other, 0.25)


@pytest.mark.parametrize(
    ("losses", "epochs", "expected"),
    [(["sigmoid"], 1, False), (["sigmoid"], 3, True), (["kto"], 2, True), (["orpo"], 3, False)],
)
def test_the_reference_is_precomputed_where_that_saves_time(place, tokenizer, losses, epochs, expected):
    run = place.dpo(loss_type=losses, num_train_epochs=epochs)
    examples = read_pairs(run, tokenizer)
    assert precomputes(run, examples, Cluster(), fit.share(run, examples, Cluster())) is expected


def test_soft_labels_come_from_the_pairs_or_from_the_config(place, tokenizer):
    run = place.dpo(soft_labels=True)
    assert data.dpo_examples(run.data, tokenizer, soft=True).rejected["no_label_prob"] == 40
    chosen = run.data.model_copy(update={"default_label_prob": 0.9})
    found = data.dpo_examples(chosen, tokenizer, soft=True)
    assert {example.columns["label_prob"] for example in found.train} == {0.9}
    assert data.label({"label_prob": 0.7}, 0.9) == 0.7
    with pytest.raises(data.RejectedRow, match="no_probability"):
        data.label({"label_prob": 1.2}, None)


def test_held_out_numbers_count_pairs_not_batches(place, stage2, tokenizer, tmp_path):
    found = []
    for batch in (1, 3):  # 3 leaves a short last batch
        run = place.dpo(per_device_eval_batch_size=batch)
        trainer, examples = trainer_for(place, run, tokenizer, tmp_path / str(batch))
        assert len(examples.holdout) % 3
        for name, weight in trainer.model.named_parameters():
            if ".ref." in name:
                weight.data.zero_()
        found.append(fit.held_out(trainer))
    for key in ("eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"):
        assert found[0][key] == pytest.approx(found[1][key], abs=1e-5)


def test_without_an_init_adapter_the_reference_is_the_base(place, tokenizer, tmp_path):
    run = place.dpo().model_copy(update={"init_adapter": None})
    trainer, _ = trainer_for(place, run, tokenizer, tmp_path)
    assert check_start(trainer, run)["loss_at_start"] == pytest.approx(math.log(2), abs=1e-6)


def test_an_unknown_or_foreign_init_adapter_is_refused(place, stage2, tiny_gemma, tmp_path):
    from tests import tiny

    with pytest.raises(UsageError, match="Did you mean 'stage2'"):
        run_dpo(place.dpo(tmp_path / "out").model_copy(update={"init_adapter": "stage22"}), OPTIONS, QUIET)
    other = tiny.write_family(tmp_path, "other", tiny_gemma, {"stage2": stage2})
    with pytest.raises(IntegrityError, match="another base"):
        run_dpo(place.dpo(tmp_path / "out").model_copy(update={"family": str(other)}), OPTIONS, QUIET)


def test_kl_is_the_expected_log_ratio_and_0_for_equal_logits():
    import torch

    from finetune.divergence import token_kl

    # p = (0.5, 0.5), q = (0.8, 0.2): 0.5 ln(0.5/0.8) + 0.5 ln(0.5/0.2) = 0.223144 nats
    policy, reference = torch.log(torch.tensor([[0.5, 0.5]])), torch.log(torch.tensor([[0.8, 0.2]]))
    assert float(token_kl(policy, reference)) == pytest.approx(0.2231436, abs=1e-6)
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    other = logits + torch.randn(5, 11, generator=torch.Generator().manual_seed(1))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits), torch.distributions.Categorical(logits=other)
    )
    assert torch.allclose(token_kl(logits, other), expected, atol=1e-5)
    assert token_kl(logits, logits).abs().max() == 0


def test_the_distance_from_the_reference_is_0_before_training_and_known_after(place, stage2, tokenizer, tmp_path):
    import torch

    trainer, examples = trainer_for(place, place.dpo(), tokenizer, tmp_path)
    assert fit.held_out(trainer)["eval_kl"] == 0
    weights = dict(trainer.model.named_parameters())
    for name, weight in weights.items():
        if ".ref." in name:
            weight.data.zero_()  # now the reference is the base
    total, count = 0.0, 0
    for example in examples.holdout:
        prompt, answer = example.columns["prompt_ids"], example.columns["chosen_ids"]
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            policy = trainer.model(ids).logits[0, len(prompt) - 1 : -1]
            with trainer.model.disable_adapter():
                base = trainer.model(ids).logits[0, len(prompt) - 1 : -1]
        left, right = (torch.distributions.Categorical(logits=values) for values in (policy, base))
        total += float(torch.distributions.kl_divergence(left, right).sum())
        count += len(answer)
    found = fit.held_out(trainer)["eval_kl"]
    assert found == pytest.approx(total / count, abs=1e-5)
    assert found > 0.01
    assert fit.held_out(trainer)["eval_kl"] == found
