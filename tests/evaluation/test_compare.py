"""Verdicts from samples: contrasts of the lineage, denominators, sentences."""

from __future__ import annotations

import csv
import io
import time

import numpy as np
import pytest

from evaluation.compare import compare, contrasts, drill_down, flat, foresee, plane, primary, principles
from evaluation.config import EvaluationRun
from evaluation.evaluators import registry
from evaluation.metrics import FULL_REFUSALS, RATES, metrics_for
from evaluation.outputs import COLUMNS, comparison_csv, score_table
from evaluation.records import Sample
from evaluation.scores import scored, unscored
from evaluation.statistics.contrast import Question, contrast
from evaluation.statistics.power import detectable_d
from inference.records import Message, Prompt
from runs.errors import UserError

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


def pairs(model: str, value: float, numbers: range, **options: object) -> list[Sample]:
    """A harmful prompt and its benign twin for each number."""
    found = []
    for number in numbers:
        for expected, tags, mode in (
            ("refuse", ("harmful",), options.get("unsafe", "complied")),
            ("answer", ("benign_twin",), options.get("benign", "complied")),
        ):
            prompt = Prompt(
                messages=(Message(role="user", content=f"{expected} {number}"),), expected=expected, tags=tags,
                pair=f"pair-{number}", category="violence", principle_ids=("harm-01", "rare-01")[: 1 + (number < 3)],
            )  # fmt: skip
            found.append(
                Sample(
                    prompt_id=prompt.id, model=model, sample=0, prompt=prompt, response="text", finish_reason="stop",
                    prompt_tokens=1, completion_tokens=1, seed=0, mode=str(mode),
                    scores={"helpfulness": scored(min(1.0, value + 0.01 * (number % 7)), "x", "y")},
                )
            )  # fmt: skip
    return found


def test_a_prompt_and_its_twin_are_one_unit():
    samples = [*pairs("a", 0.5, range(20)), *pairs("b", 0.5, range(20))]
    verdict = primary(samples, ("a", "b"), metrics_for(["helpfulness"]))[0]
    assert (verdict.contrast.n_pairs, verdict.contrast.n_clusters) == (40, 20)
    assert "40 prompts in 20 groups" in verdict.sentence
    (summary, *_) = results(samples, "a", "b").summaries
    alone = results([s for s in samples if s.prompt.expected == "refuse"], "a", "b").summaries[0]
    # Twins that score alike say no more together than one of them.
    assert (summary.low, summary.high) == pytest.approx((alone.low, alone.high))
    assert (summary.scored, alone.scored) == (40, 20)


def test_the_family_is_every_contrast_on_every_metric_that_applies():
    samples = [s for model in ("base", "stage2", "stage3") for s in pairs(model, 0.5, range(12))]
    verdicts = primary(samples, ("base", "stage2", "stage3"), metrics_for(["helpfulness", "fairness"]))
    assert {v.contrast.metric for v in verdicts} == {"helpfulness", "refusal_on_harmful", "answer_on_benign"}
    assert {(v.contrast.family, v.contrast.family_size) for v in verdicts} == {("primary", 9)}
    assert [v.contrast.p_method for v in verdicts[:3]] == ["sign_flip_exact", "mcnemar_exact", "mcnemar_exact"]


def test_an_answer_that_one_model_lacks_is_missing_and_not_a_mismatch():
    complete, partly = pairs("a", 0.2, range(12)), pairs("b", 0.9, range(12))
    verdict = primary([*complete, *reversed(partly[:-4])], ("a", "b"), metrics_for(["helpfulness"]))[0]
    assert (verdict.contrast.n_pairs, verdict.contrast.n_missing) == (20, 4)
    assert verdict.contrast.estimate == pytest.approx(0.7, abs=0.01)
    assert verdict.outcome == "better"
    assert verdict.contrast.identified


def test_nothing_scored_is_not_measured_and_leaves_no_row():
    samples = [sample(model, number, None) for number in range(5) for model in ("a", "b")]
    (verdict,) = primary(samples, ("a", "b"), {"helpfulness": metrics_for(["helpfulness"])["helpfulness"]})
    assert verdict.outcome == "not_measured"
    assert flat(verdict) is None


def test_drill_downs_are_leads_within_each_group():
    samples = [*pairs("a", 0.5, range(30)), *pairs("b", 0.8, range(30))]
    metrics = metrics_for(["helpfulness"])
    by_category = drill_down(samples, ("a", "b"), metrics, by="category")
    assert {v.contrast.subset for v in by_category} == {"category:violence"}
    assert {v.contrast.adjustment for v in by_category} == {"benjamini_hochberg"}
    by_principle = {
        v.contrast.subset: v
        for v in drill_down(samples, ("a", "b"), metrics, by="principle")
        if v.contrast.metric == "helpfulness"
    }
    assert by_principle["principle:harm-01"].outcome == "better"
    assert by_principle["principle:rare-01"].outcome == "not_measured"
    # One contrast, three metrics; the rare principle, with three pairs, is in no family.
    assert by_principle["principle:harm-01"].contrast.family_size == 3
    assert by_principle["principle:rare-01"].contrast.family is None


def test_what_a_run_can_show_is_known_before_it():
    prompts = [one.prompt for one in pairs("a", 0.5, range(20))]
    (help_, refusal, answer) = foresee(prompts, ("base", "stage2", "stage3"), [EVALUATOR])
    assert [one.metric for one in (help_, refusal, answer)] == ["helpfulness", "refusal_on_harmful", "answer_on_benign"]
    assert {(one.n_clusters, one.family_size) for one in (refusal, answer)} == {(20, 9)}
    assert refusal.minimum_detectable_effect == pytest.approx(0.4 * detectable_d(20, alpha=0.05 / 9))
    assert foresee(prompts, ("base",), [EVALUATOR])[0].minimum_detectable_effect is None


def test_the_principle_index_covers_the_constitution():
    samples = [*pairs("a", 0.5, range(12)), *pairs("b", 0.8, range(12))]
    index = principles(samples, ("a", "b"), metrics_for(["helpfulness"]), order=["harm-01", "help-01"])
    assert index.coverage == {"harm-01": 24, "help-01": 0}
    assert index.unknown == {"rare-01": 6}
    status = {(s.model, s.metric, s.principle): (s.status, s.why) for s in index.scores}
    assert status["b", "helpfulness", "harm-01"] == ("measured", "")
    assert status["b", "helpfulness", "help-01"] == ("not_measured", "no prompt exercises it")


def test_the_plane_reads_modes():
    samples = [
        *pairs("a", 0.5, range(10), unsafe="pseudo_refusal"),
        *pairs("a", 0.5, range(10, 20), unsafe="deflection", benign="incoherent"),
        *pairs("b", 0.5, range(20), unsafe="engaged_refusal", benign="bare_refusal"),
    ]
    made = plane(samples, ("a", "b"))
    a, b = made.points
    assert (a.harm, a.refusal, a.n_benign, a.n_missing) == (0.5, 0.0, 10, 10)
    assert (b.harm, b.refusal) == (0.0, 1.0)
    (step,) = made.steps
    assert (step.treatment, step.control, step.harm, step.refusal) == ("b", "a", -0.5, 1.0)
    assert step.moved


def test_a_margin_is_declared_by_metric():
    samples = [*pairs("a", 0.50, range(60)), *pairs("b", 0.53, range(60))]
    metrics = {"helpfulness": metrics_for(["helpfulness"])["helpfulness"]}
    samples = [
        s.model_copy(update={"scores": {"helpfulness": scored(0.5 + 0.003 * (k % 9), "x", "y")}})
        for k, s in enumerate(samples)
    ]
    wide, narrow = (
        primary(samples, ("a", "b"), metrics, margins={"helpfulness": margin})[0] for margin in (0.05, 0.0005)
    )
    assert (wide.outcome, wide.margin) == ("equivalent", 0.05)
    assert narrow.outcome != "equivalent"


def test_a_score_that_is_no_number_is_refused_with_its_prompt():
    samples = [sample(model, number, 0.5) for number in range(5) for model in ("a", "b")]

    def broken(one: Sample) -> float:
        return float("nan") if one.prompt.text == "Question 3" and one.model == "b" else 0.5

    with pytest.raises(UserError, match=r"broken of b: the value of row \w{12} \('Question 3'\) is nan"):
        primary(samples, ("a", "b"), {"broken": broken})


@pytest.mark.slow
def test_ten_thousand_prompts_take_seconds():
    generator = np.random.default_rng(0)
    scores = generator.uniform(size=(2, 10_000))
    started = time.monotonic()
    one = contrast(Question("b", "a", "m"), scores[0].tolist(), scores[1].tolist())
    assert one.n_pairs == 10_000
    assert time.monotonic() - started < 60
