"""Verdicts from samples: contrasts of the lineage, denominators, sentences."""

from __future__ import annotations

import csv
import io

import pytest

from evaluation.compare import compare, contrasts
from evaluation.config import EvaluationRun
from evaluation.evaluators import registry
from evaluation.metrics import FULL_REFUSALS, RATES
from evaluation.outputs import COLUMNS, comparison_csv, score_table
from evaluation.records import Sample
from evaluation.scores import scored, unscored
from inference.records import Message, Prompt

(EVALUATOR,) = registry.get(["helpfulness"])


def sample(model: str, number: int, value: float | None, *, expected: str = "answer", mode: str = "complied") -> Sample:
    prompt = Prompt(messages=(Message(role="user", content=f"Question {number}"),), expected=expected)
    judgement = unscored("truncated") if value is None else scored(value, "x", "y")
    return Sample(
        prompt_id=prompt.id, model=model, sample=0, prompt=prompt, response="text", finish_reason="stop",
        prompt_tokens=1, completion_tokens=1, seed=0, mode=mode, scores={"helpfulness": judgement},
    )  # fmt: skip


def results(samples: list[Sample], *models: str):
    run = EvaluationRun(models=models)
    return compare(samples, run, run_id="r", identity={}, evaluators=[EVALUATOR])


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["base"], []),
        (["stage2", "stage3"], [("stage3", "stage2")]),
        (["base", "stage2", "stage3"], [("stage2", "base"), ("stage3", "stage2"), ("stage3", "base")]),
    ],
)
def test_contrasts_follow_the_lineage(models, expected):
    assert contrasts(models) == expected


def test_a_clear_gain_is_better_and_its_mirror_worse():
    samples = []
    for number in range(30):
        samples += [sample("a", number, 0.2 + 0.01 * (number % 3)), sample("b", number, 0.8 - 0.01 * (number % 2))]
    (verdict,) = results(samples, "a", "b").verdicts
    (mirror,) = results(samples, "b", "a").verdicts
    assert (verdict.outcome, mirror.outcome) == ("better", "worse")
    assert verdict.estimate == pytest.approx(-mirror.estimate)
    assert verdict.low < verdict.estimate < verdict.high
    assert verdict.sentence.startswith("b is better than a in helpfulness: +58")


def test_identical_answers_are_undecided_with_p_1_and_no_effect():
    samples = [sample(model, number, number / 20) for number in range(20) for model in ("a", "b")]
    (verdict,) = results(samples, "a", "b").verdicts
    assert (verdict.outcome, verdict.p, verdict.p_adjusted, verdict.estimate) == ("undecided", 1.0, 1.0, 0.0)
    assert verdict.sentence.startswith("Cannot tell whether b differs from a")


def test_what_could_not_be_scored_leaves_the_denominator_and_is_counted():
    samples = []
    for number in range(10):
        samples += [sample("a", number, 0.5), sample("b", number, None if number < 3 else 0.5)]
    outcome = results(samples, "a", "b")
    (verdict,) = outcome.verdicts
    assert (verdict.n, verdict.dropped) == (7, 3)
    summary = next(s for s in outcome.summaries if s.model == "b" and s.metric == "helpfulness")
    assert (summary.scored, summary.unscored) == (7, {"truncated": 3})
    assert [row[0 if i == 0 else -1] for i, row in enumerate([score_table(outcome).rows[0]] * 2)] == [
        "helpfulness",
        "10/7",
    ]


def test_a_pseudo_refusal_is_no_refusal():
    refused = RATES["refusal_on_harmful"]
    assert "pseudo_refusal" not in FULL_REFUSALS
    assert refused(sample("a", 1, 0.5, expected="refuse", mode="pseudo_refusal")) == 0.0
    assert refused(sample("a", 1, 0.5, expected="refuse", mode="engaged_refusal")) == 1.0
    assert refused(sample("a", 1, 0.5)) is None


def test_comparison_csv_has_a_line_a_verdict():
    samples = [sample(model, number, number / 20) for number in range(20) for model in ("a", "b")]
    rows = list(csv.DictReader(io.StringIO(comparison_csv(results(samples, "a", "b")))))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["contrast"] == "b - a"
