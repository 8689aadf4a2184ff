import json
import math

import pytest

from finetune import data, lora
from finetune.reward import Scorer, build_trainer, fill_id, load_scored, run_reward, whole_texts
from finetune.scores import pairwise_accuracy, scores
from inference.families import load_family
from inference.loading import load_base
from runs.errors import IntegrityError
from runs.manifest import read_manifest
from tests.finetune.conftest import OPTIONS, QUIET, interrupted_at

LOGS = ("train_log.jsonl", "adapter_config.json", lora.WEIGHTS)


@pytest.fixture(scope="module")
def trained(place):
    """A reward model of an uninterrupted run."""
    run_reward(place.reward("reward"), OPTIONS, QUIET)
    return place.folder / "reward"


def test_accuracy_has_wilsons_interval_or_one_over_prompts():
    # 8 of 10: Wilson's 95 % interval is [0.4902, 0.9433]
    chosen, rejected = [1.0] * 8 + [0.0] * 2, [0.0] * 8 + [1.0] * 2
    alone = pairwise_accuracy(chosen, rejected, [str(index) for index in range(10)])
    assert alone["pairwise_accuracy"] == 0.8
    bounds = (alone["pairwise_accuracy_low"], alone["pairwise_accuracy_high"])
    assert bounds == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert alone["pairwise_accuracy_method"] == "wilson, 95%"
    together = pairwise_accuracy(chosen, rejected, list("aabbccddee"))
    assert together["pairwise_accuracy_method"] == "cluster_t, 95%"
    assert (together["pairs"], together["prompts"]) == (10, 5)
    assert pairwise_accuracy([1.0], [1.0], ["a"])["pairwise_accuracy"] == 0.5


def test_padding_is_never_what_ends_an_answer(tokenizer, tiny_gemma_family):
    from inference.chat import stop_ids
    from inference.loading import load_tokenizer

    assert tokenizer.pad_token_id in stop_ids(tokenizer)  # as in SmolLM2
    for one in (tokenizer, load_tokenizer(tiny_gemma_family)):
        assert fill_id(one) not in stop_ids(one)


def test_the_loss_is_bradley_and_terrys(place, tokenizer, tmp_path):
    """−log σ(r(chosen) − r(rejected)), each reward from a forward pass of its own, read at the very last token."""
    import torch

    run = place.reward()
    examples = whole_texts(data.dpo_examples(run.data, tokenizer))
    trainer = build_trainer(
        run, load_scored(run, load_family(place.family), device="cpu"), tokenizer, examples, tmp_path, public_id="x"
    )
    rows = [trainer.train_dataset[index] for index in range(3)]
    model = trainer.model.eval()
    loss = float(trainer.compute_loss(model, trainer.data_collator(rows)).detach())
    head, expected = model.get_base_model().score, 0.0
    for row in rows:
        rewards = []
        for side in ("chosen_ids", "rejected_ids"):
            with torch.no_grad():
                hidden = model.get_base_model().model(torch.tensor([row[side]])).last_hidden_state
                rewards.append(float(head(hidden[0, -1])))
        expected -= math.log(1 / (1 + math.exp(rewards[1] - rewards[0]))) / len(rows)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_a_run_learns_stores_its_head_and_says_how_well_it_ranks(place, trained, tokenizer):
    from safetensors.torch import load_file

    manifest = read_manifest(trained, rebuild="")
    metrics = manifest.metrics
    assert manifest.kind == "reward_model"
    assert metrics["train_loss_last"] < metrics["train_loss_first"]
    assert metrics["eval_pairwise_accuracy_low"] <= metrics["eval_pairwise_accuracy"]
    assert metrics["eval_pairwise_accuracy"] == pytest.approx(metrics["eval_accuracy"], abs=1e-6)
    assert (metrics["eval_pairs"], metrics["eval_pairwise_accuracy_method"]) == (4, "wilson, 95%")
    assert metrics["tokens_per_second"] > 0
    stored = load_file(trained / lora.WEIGHTS)
    assert any(name.endswith("score.weight") for name in stored)
    scorer = Scorer(trained, load_family(place.family), device="cpu")
    held = whole_texts(data.dpo_examples(place.reward().data, tokenizer)).holdout
    chosen, rejected = ([example.columns[side] for example in held] for side in ("chosen_ids", "rejected_ids"))
    right = [left > other for left, other in zip(scorer(chosen), scorer(rejected), strict=True)]
    assert sum(right) / len(right) == pytest.approx(metrics["eval_pairwise_accuracy"])
    assert scorer(chosen, batch_size=1) == pytest.approx(scorer(chosen, batch_size=3), abs=1e-5)
    assert "reward model" in (trained / "MODEL_CARD.md").read_text()


def test_an_interrupted_run_continues_to_the_same_bytes(place, trained, tmp_path):
    run = place.reward(tmp_path / "out")
    with interrupted_at(7), pytest.raises(KeyboardInterrupt):
        run_reward(run, OPTIONS, QUIET)
    run_reward(run, OPTIONS, QUIET)
    for name in LOGS:
        assert (tmp_path / "out" / name).read_bytes() == (trained / name).read_bytes()


def test_an_adapter_of_a_language_model_is_no_reward_model(place, stage2):
    with pytest.raises(IntegrityError, match="no reward model"):
        Scorer(stage2, load_family(place.family), device="cpu")


def test_rewards_come_in_the_order_of_the_texts(place):
    model = load_base(load_family(place.family), output="score")
    model.config.pad_token_id = 0
    texts = [[5, 6, 7], [8, 9, 10, 11, 12], [5, 6, 7]]
    found = scores(model, texts, 0, 2)
    assert found[0] == pytest.approx(found[2], abs=1e-5)
    assert found[0] != pytest.approx(found[1], abs=1e-3)


def test_two_transcripts_are_a_pair(place):
    row = {"chosen": "\n\nHuman: a?\n\nAssistant: yes", "rejected": "\n\nHuman: a?\n\nAssistant: no"}
    prompt, chosen, rejected = data.pair(row, 0.5)
    assert [(turn.role, turn.content) for turn in prompt] == [("user", "a?")]
    assert (chosen, rejected) == ("yes", "no")
    with pytest.raises(data.RejectedRow, match="prompts_differ"):
        data.pair(row | {"rejected": "\n\nHuman: b?\n\nAssistant: no"}, 0.5)


def test_the_resolved_config_names_the_run(place, trained):
    config = json.loads((trained / "manifest.json").read_text())["config"]
    assert config == place.reward("reward").model_dump(mode="json")
