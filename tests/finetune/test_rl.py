import json

import pytest

from finetune import data, fit, lora, monitors, rewarding, rl
from finetune.config import HackingSection, RewardTerm, RLData
from finetune.dpo import load_policy
from finetune.reward import run_reward
from finetune.rl import run_rl
from inference.families import load_family
from inference.loading import base_identity
from inference.records import Message, Prompt
from runs.errors import UsageError, UserError
from tests.finetune.conftest import OPTIONS, QUIET, interrupted_at


class ShortWords:
    """Rewards answers without the letter e, which a policy can learn in a few steps."""

    name, version = "no_e", "1"

    def __call__(self, answers):
        return [1.0 - answer.text.count("e") / max(len(answer.text), 1) for answer in answers]


def trainer_for(place, run, tokenizer, work, scored, watched=()):
    family = load_family(place.family)
    start = lora.resolve_adapter(run.init_adapter, family) if run.init_adapter else None
    model = load_policy(run, family, start, base=base_identity(family))
    examples, prompts = data.rl_examples(run.data, tokenizer, run.train.max_completion_length)
    return rl.build_trainer(
        run, model, tokenizer, examples, prompts, scored, watched, work, public_id="test/base"
    ), examples


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_an_interrupted_run_continues_to_the_same_bytes(place, stage2, tmp_path, algorithm):
    """Answers are drawn at random while training, and the same ones again after an interruption."""
    run = {name: place.rl(tmp_path / name, algorithm=algorithm) for name in "ab"}
    run_rl(run["a"], OPTIONS, QUIET)
    with interrupted_at(5), pytest.raises(KeyboardInterrupt):
        run_rl(run["b"], OPTIONS, QUIET)
    value, _ = run_rl(run["b"], OPTIONS, QUIET)
    for name in (lora.WEIGHTS, "train_log.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    metrics = value["metrics"]
    assert metrics["kl_at_start"] == 0
    assert metrics["eval_kl"] > 0
    assert metrics["steps"] == 8
    assert metrics["tokens_per_second"] > 0
    assert {"reward_at_start", "eval_reward", "watched/refusal_at_start", "eval_repetition"} <= metrics.keys()
    lines = [json.loads(line) for line in (tmp_path / "a" / "train_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert {"kl", "reward", "completions/mean_length", "num_tokens", "eval_kl", "eval_reward"} <= lines[1].keys()
    assert "step_time" not in lines[0]
    assert {path.name for path in (tmp_path / "a").iterdir() if not path.name.startswith(".")} == {
        *fit.ARTIFACT,
        "manifest.json",
    }


@pytest.mark.slow
def test_the_policy_learns_what_is_rewarded(place, stage2, tokenizer, tmp_path):
    run = place.rl(tmp_path, num_train_epochs=8, learning_rate=2e-2, beta=0.001, eval_steps=50)
    trainer, examples = trainer_for(place, run, tokenizer, tmp_path, [ShortWords()])
    (tmp_path / "work").mkdir()
    before = trainer.answered()
    fit.train(trainer, run, examples, tmp_path / "work", QUIET, before=dict)
    trainer.model.eval()
    after = trainer.answered()
    assert after["reward"] > before["reward"] + 0.02
    assert after["kl"] > before["kl"] == 0


def test_a_reward_model_is_a_reward(place, stage2, tokenizer, tmp_path):
    run_reward(place.reward(tmp_path / "reward", max_steps=2), OPTIONS, QUIET)
    family = load_family(place.family)
    terms = [RewardTerm(model=str(tmp_path / "reward"), weight=2.0), RewardTerm(evaluator="helpfulness")]
    scored = rewarding.instruments(terms, family, device="cpu", batch_size=4)
    run = place.rl(tmp_path / "out")
    run = run.model_copy(update={"rewards": tuple(terms)})
    trainer, _ = trainer_for(place, run, tokenizer, tmp_path, scored)
    found = trainer.answered()
    assert trainer.answered() == found  # the same answers every time
    answers = trainer.answered.answers()
    assert all(answer.answer_ids for answer in answers)
    by_model = scored[0](answers)
    alone = [scored[0]([answer])[0] for answer in answers]
    assert by_model == pytest.approx(alone, abs=1e-5)
    expected = [rewarding.total(terms, pair) for pair in zip(by_model, scored[1](answers), strict=True)]
    assert found["reward"] == pytest.approx(sum(expected) / len(expected))


def test_rewards_read_the_answers_tokens_and_how_they_ended(place, tokenizer):
    from finetune.policy import reward_function

    seen = []

    class Spy(ShortWords):
        def __call__(self, answers):
            seen.extend(answers)
            return [None for _ in answers]

    prompts = [Prompt(messages=(Message(role="user", content=text),)) for text in ("why the cat", "what dog")]
    reward = reward_function(Spy(), prompts, tokenizer, "spy")
    assert reward.__name__ == "spy"
    stop = tokenizer.eos_token_id
    given = {"completions": [[{"content": "yes "}], [{"content": "no"}]], "completion_ids": [[7, stop], [8, 9]]}
    assert reward(prompts=[], row=[1, 0], trainer_state=None, **given) == [None, None]
    assert [(one.prompt, one.text, one.finish_reason) for one in seen] == [
        (prompts[1], "yes", "stop"),
        (prompts[0], "no", "length"),
    ]


def test_the_total_weighs_the_terms_that_have_a_value():
    terms = [RewardTerm(model="x", weight=2.0), RewardTerm(evaluator="helpfulness", weight=0.5)]
    assert rewarding.total(terms, [3.0, 1.0]) == 6.5
    assert rewarding.total(terms, [None, 1.0]) == 0.5
    assert rewarding.total(terms, [None, None]) is None


def test_hacking_is_a_reward_that_rises_while_something_else_falls():
    section = HackingSection(length_change=0.5, repetition_rise=0.1, kl=0.3, watched_fall=0.1)
    start = {"reward_at_start": 0.0, "answer_tokens_at_start": 20.0, "repetition_at_start": 0.0, "kl_at_start": 0.0}
    start["watched/helpfulness_at_start"] = 0.6
    fine = {"step": 2, "eval_reward": 0.5, "eval_answer_tokens": 29.0, "eval_repetition": 0.05, "eval_kl": 0.2}
    both_fall = {"step": 4, "eval_reward": -0.5, "eval_watched/helpfulness": 0.2}
    hacked = {
        "step": 6,
        "eval_reward": 1.0,
        "eval_watched/helpfulness": 0.45,
        "eval_answer_tokens": 31.0,
        "eval_kl": 0.4,
    }
    found = monitors.hacking(section, start, [fine, both_fall, hacked])
    assert [(alarm.step, alarm.name) for alarm in found] == [
        (6, "answer_tokens"),
        (6, "kl"),
        (6, "watched/helpfulness"),
    ]


def test_prompts_come_from_questions_messages_and_transcripts(place, tokenizer):
    assert [turn.content for turn in data.before_the_answer("hello?")] == ["hello?"]
    transcript = "\n\nHuman: a?\n\nAssistant: b\n\nHuman: c?\n\nAssistant: d"
    assert [turn.content for turn in data.before_the_answer(transcript)] == ["a?", "b", "c?"]
    section = RLData.model_validate({"sources": [{"path": str(place.conversations)}], "field": "chosen"})
    examples, prompts = data.rl_examples(section, tokenizer, 16)
    assert examples.train
    for example in examples.train:
        assert prompts[example.columns["row"]].messages == example.prompt
    row = {"expected": "refuse", "category": "violence"}
    prompt = data.prompt_of(row, prompts[0].messages, "answer")
    assert (prompt.expected, prompt.category) == ("refuse", "violence")


def test_too_few_prompts_and_unknown_evaluators_are_refused(place, stage2, tmp_path):
    run = place.rl(tmp_path / "out")
    few = run.model_copy(update={"data": run.data.model_copy(update={"max_rows": 1})})
    with pytest.raises(UsageError, match="One step takes 2 prompts"):
        run_rl(few, OPTIONS, QUIET)
    unknown = run.model_copy(update={"rewards": (RewardTerm(evaluator="helpfulnes"),)})
    with pytest.raises(UsageError, match="helpfulness"):
        run_rl(unknown, OPTIONS, QUIET)


def test_an_instrument_without_anything_to_say_is_refused(place, stage2, tmp_path):
    """`harm_prevention` applies to prompts that should be refused; there are none."""
    run = place.rl(tmp_path / "out").model_copy(update={"watched": ("harm_prevention",)})
    with pytest.raises(UserError, match="watched/harm_prevention: nothing to say"):
        run_rl(run, OPTIONS, QUIET)
