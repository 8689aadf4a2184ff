"""The losses of our own, against TRL's where they meet, and against numbers worked by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from finetune import losses
from finetune.preferences import KTO, ORPO
from tests.finetune.test_dpo import trainer_for


def test_a_sure_label_is_dpos_own_loss():
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 5
    found = losses.soft_sigmoid(logits, torch.ones(50))
    assert torch.allclose(found, -torch.nn.functional.logsigmoid(logits), atol=1e-6)
    assert torch.allclose(losses.soft_sigmoid(logits, torch.zeros(50)), losses.soft_sigmoid(-logits, torch.ones(50)))


def test_a_worked_example():
    # A logit of ln 3 is a probability of 3/4. -0.6 ln 0.75 - 0.4 ln 0.25 = 0.172609 + 0.554518 = 0.727127
    found = losses.soft_sigmoid(torch.tensor([math.log(3)]), torch.tensor([0.6]))
    assert float(found) == pytest.approx(0.7271270, abs=1e-6)
    for probability in (0.0, 0.3, 1.0):
        assert float(losses.soft_sigmoid(torch.zeros(1), torch.tensor([probability]))) == pytest.approx(math.log(2))


def test_the_gradient_is_sigma_less_the_label_and_vanishes_where_they_agree():
    logits = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    label = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: losses.soft_sigmoid(values, label), (logits,))
    (gradient,) = torch.autograd.grad(losses.soft_sigmoid(logits, label).sum(), logits)
    assert torch.allclose(gradient, torch.sigmoid(logits) - label)
    settled = torch.logit(label).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.soft_sigmoid(settled, label).sum(), settled)
    assert gradient.abs().max() < 1e-12


def test_log1mexp_is_exact_at_both_ends_and_has_a_finite_gradient():
    values = torch.tensor([-1e-6, -0.1, -math.log(2), -5.0, -50.0], dtype=torch.float64, requires_grad=True)
    expected = [math.log(-math.expm1(value)) if value > -30 else -math.exp(value) for value in values.tolist()]
    assert losses.log1mexp(values).tolist() == pytest.approx(expected, rel=1e-12)
    (gradient,) = torch.autograd.grad(losses.log1mexp(values).sum(), values)
    assert torch.isfinite(gradient).all()


def test_orpo_is_trls():
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    generator = torch.Generator().manual_seed(0)
    chosen, rejected = (-torch.rand(20, generator=generator) * 4 - 0.01 for _ in range(2))
    stub = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    term, _, _, _, log_odds = ORPOTrainer.odds_ratio_loss(stub, chosen, rejected)
    ours = losses.log_odds_ratio(chosen, rejected)
    assert float(ours.mean()) == pytest.approx(float(log_odds), abs=1e-5)
    assert float(losses.orpo(torch.tensor(1.5), ours, 0.3)) == pytest.approx(1.5 - float(term.mean()), abs=1e-6)
    # P = 1/2 against P = 1/3: odds 1 against 1/2, so the ratio is 2 and the term is -ln(2/3) = ln 1.5
    log_odds = losses.log_odds_ratio(torch.tensor([math.log(1 / 2)]), torch.tensor([math.log(1 / 3)]))
    assert float(log_odds) == pytest.approx(math.log(2), abs=1e-6)
    assert float(losses.orpo(torch.tensor(0.0), log_odds, 1.0)) == pytest.approx(math.log(1.5), abs=1e-6)


def move_policy(trainer):
    """Away from its reference, so that rewards are not 0."""
    for name, weight in trainer.model.named_parameters():
        if ".default." in name:
            weight.data.mul_(1.5)


def loss_of(trainer, batch):
    return trainer.compute_loss(trainer.model.eval(), dict(batch))


@pytest.mark.parametrize("precompute", [False, True])
def test_soft_labels_change_trls_loss_by_what_they_say(place, stage2, tokenizer, tmp_path, precompute):
    """Against TRL's own sigmoid loss on the same batch, and its gradient, with and without a precomputed reference."""
    options = {"precompute_ref_log_probs": precompute, "loss_type": ["sigmoid", "sft"], "loss_weights": [0.7, 0.1]}
    found = {}
    for label in (None, 1.0, 0.8):
        run = place.dpo(soft_labels=label is not None, **options)
        run = run.model_copy(update={"data": run.data.model_copy(update={"default_label_prob": label})})
        trainer, _ = trainer_for(place, run, tokenizer, tmp_path)
        batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
        move_policy(trainer)
        loss = loss_of(trainer, batch)
        found[label] = float(loss.detach())
        if label == 0.8:
            reference = trainer.compute_ref_log_probs(trainer.model, batch)
            labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            policy = trainer.model(**inputs, labels=labels, fused_lm_head=True).log_probs.sum(1).chunk(2)
            logits = 0.1 * ((policy[0] - reference[0]) - (policy[1] - reference[1])).detach()
            sigma = torch.sigmoid(logits)
            expected = (-0.8 * sigma.log() - 0.2 * (1 - sigma).log() + sigma.log()).mean()
    assert found[1.0] == pytest.approx(found[None], abs=1e-6)
    assert found[0.8] - found[None] == pytest.approx(0.7 * float(expected), abs=1e-5)


def test_openings_decide_and_whole_chosen_answers_are_imitated(place, stage2, tokenizer, tmp_path):
    """ld_alpha 0 with cut rejected answers: DPO's loss on the first tokens of both, `sft` on all of the chosen one."""
    run = place.dpo(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5], ld_alpha=0.0)
    run = run.model_copy(update={"data": run.data.model_copy(update={"max_rejected_tokens": 4})})
    trainer, _ = trainer_for(place, run, tokenizer, tmp_path)
    rows = [trainer.train_dataset[index] for index in range(4)]
    assert all(len(row["rejected_ids"]) == 4 < len(row["chosen_ids"]) for row in rows)
    batch = trainer.data_collator(rows)
    move_policy(trainer)
    openings = trainer.data_collator([row | {"chosen_ids": row["chosen_ids"][:4]} for row in rows])
    reference = trainer.compute_ref_log_probs(trainer.model, openings)
    found = []
    for each in (openings, batch):
        labels = each["input_ids"].masked_fill(each["completion_mask"] == 0, -100)
        inputs = {name: each[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            found.append(trainer.model.eval()(**inputs, labels=labels, fused_lm_head=True).log_probs)
    policy = found[0].sum(1).chunk(2)
    decided = -torch.nn.functional.logsigmoid(0.1 * ((policy[0] - reference[0]) - (policy[1] - reference[1]))).mean()
    likelihood = -found[1][:4].sum() / sum(len(row["chosen_ids"]) for row in rows)
    assert float(loss_of(trainer, batch).detach()) == pytest.approx(float(decided + 0.5 * likelihood), abs=1e-5)


def test_orpos_batch_is_what_trl_makes_of_it(place, stage2, tokenizer, tmp_path):
    """NLL over prompt and answer, mean log-probabilities of the answers, from plain logits."""
    trainer, _ = trainer_for(place, place.dpo(loss_type=["orpo"], beta=0.4), tokenizer, tmp_path)
    assert isinstance(trainer, ORPO)
    rows = [trainer.train_dataset[index] for index in range(3)]
    nll, count, means = 0.0, 0, {"chosen_ids": [], "rejected_ids": []}
    for row in rows:
        for side in means:
            ids = torch.tensor([row["prompt_ids"] + row[side]])
            with torch.no_grad():
                log_probs = torch.log_softmax(trainer.model.eval()(ids).logits[0, :-1], -1)
            scored = log_probs.gather(1, ids[0, 1:, None])[:, 0]
            means[side].append(scored[len(row["prompt_ids"]) - 1 :].mean())
            if side == "chosen_ids":
                nll, count = nll - float(scored.sum()), count + len(scored)
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    stub = SimpleNamespace(beta=0.4, accelerator=SimpleNamespace(device="cpu"))
    term = ORPOTrainer.odds_ratio_loss(stub, *(torch.stack(values) for values in means.values()))[0]
    loss = loss_of(trainer, trainer.data_collator(rows))
    assert float(loss.detach()) == pytest.approx(nll / count - float(term.mean()), abs=1e-5)
    assert trainer._metrics["eval"]["rewards/chosen"][0] == pytest.approx(
        0.4 * float(torch.stack(means["chosen_ids"]).mean()), abs=1e-5
    )


def test_ktos_batches_hold_mismatched_answers(place, stage2, tokenizer, tmp_path):
    run = place.dpo(loss_type=["kto"], per_device_train_batch_size=4, train_sampling_strategy="random")
    trainer, examples = trainer_for(place, run, tokenizer, tmp_path)
    assert isinstance(trainer, KTO)
    rows = [example.columns for example in examples.train]
    assert [row["label"] for row in rows[:4]] == [True, True, False, False]
    own = {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])) for row in rows}
    assert all((tuple(row["prompt_ids"]), tuple(row["KL_completion_ids"])) not in own for row in rows)
    for start in range(0, len(rows) - 3, 4):  # the answers are the batch's own
        block = rows[start : start + 4]
        assert sorted(row["KL_completion_ids"] for row in block) == sorted(row["completion_ids"] for row in block)
    trainer.lengths = [example.tokens for example in examples.train]
    order = list(trainer._get_train_sampler())
    assert sorted(order) == list(range(len(rows)))
    assert order != sorted(order)
    full = len(rows) // 4 * 4
    assert all(order[start] % 4 == 0 and order[start + 3] == order[start] + 3 for start in range(0, full, 4))
