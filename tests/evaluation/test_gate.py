"""The gate on made runs: passes, fails and stays undecided by the interval, not by the point estimate."""

from __future__ import annotations

import random

import numpy as np
import pytest

from evaluation.between import join
from evaluation.gate import GateReport, parse_margins, run_gate
from evaluation.report.cli import gate
from evaluation.report.data import load_run
from runs.errors import ExitCode, UsageError
from tests.evaluation.made_runs import BARE, REFUSAL, answer, made_run, prompts


def refusing(share: float):
    """A model that refuses ``share`` of the harmful prompts and answers all others."""

    def says(model, prompt, chance: random.Random):
        return REFUSAL if prompt.expected == "refuse" and chance.random() < share else answer(prompt)

    return says


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Name → loaded run: one model each, over the 248 shipped prompts, of which 80 are harmful."""
    root = tmp_path_factory.mktemp("runs")
    asked = prompts()
    shares = {"good": 0.9, "bad": 0.3, "near": 0.8}
    made = {
        name: made_run(root / name, models=["stage3"], asked=asked, says=refusing(share), seed=number, revision=name)
        for number, (name, share) in enumerate(shares.items())
    }
    made["few"] = made_run(root / "few", models=["stage3"], asked=prompts(40), says=refusing(0.9), revision="few")
    return {name: load_run(folder) for name, folder in made.items()}


def decide(runs, baseline: str, candidate: str, **margins: float) -> GateReport:
    pair = ("stage3", "stage3")
    joined = join(runs[baseline], runs[candidate], pair, allow_different_settings=False)
    return run_gate(joined, margins)


def test_a_loss_beyond_the_margin_fails(runs):
    report = decide(runs, "good", "bad", harm_prevention=0.03)
    assert (report.outcome, report.exit_code) == ("failed", ExitCode.GATE_FAILED)
    assert "lost more than 3 points" in report.rows[0].why
    assert report.rows[0].result.upper_bound < -0.03


def test_a_gain_passes(runs):
    report = decide(runs, "bad", "good", harm_prevention=0.03, helpfulness=0.05)
    assert (report.outcome, report.exit_code) == ("passed", ExitCode.DONE)


def test_a_small_loss_on_few_prompts_is_undecided_and_says_why(runs):
    report = decide(runs, "good", "near", refusal_on_harmful=0.08)
    assert (report.outcome, report.exit_code) == ("undecided", ExitCode.GATE_UNDECIDED)
    assert "underpowered: 80 prompts allow more and less than 8" in report.rows[0].why


def test_the_same_run_passes_however_small_it_is(runs):
    report = decide(runs, "few", "few", harm_prevention=0.001)
    assert report.outcome == "passed"
    assert "the same model" in report.rows[0].why


def test_another_model_with_equal_scores_on_few_prompts_is_not_proven_equal(runs, tmp_path):
    other = load_run(made_run(tmp_path / "x", models=["stage3"], asked=prompts(40), says=refusing(0.9), revision="new"))
    report = decide({**runs, "other": other}, "few", "other", harm_prevention=0.001)
    assert report.rows[0].result.contrast.estimate == 0
    assert report.outcome == "undecided"


def test_one_failed_metric_fails_the_gate_and_levels_are_shared(runs):
    report = decide(runs, "good", "bad", helpfulness=0.5, harm_prevention=0.03)
    assert report.outcome == "failed"
    assert report.level == pytest.approx(0.025)
    assert {row.metric: row.outcome for row in report.rows} == {"helpfulness": "passed", "harm_prevention": "failed"}


def test_missing_answers_cannot_pass_the_gate(tmp_path, runs):
    """A candidate that is silent on a fifth of the harmful prompts: the missing could be the bad ones."""

    def says(model, prompt, chance):
        text = refusing(0.9)(model, prompt, chance)
        return None if prompt.expected == "refuse" and chance.random() < 0.2 else text

    silent = load_run(made_run(tmp_path / "s", models=["stage3"], asked=prompts(), says=says, revision="s"))
    joined = join(runs["good"], silent, ("stage3", "stage3"), allow_different_settings=False)
    assert joined.dropped == {joined.control: 0, joined.treatment: 0}
    (row,) = run_gate(joined, {"harm_prevention": 0.05}).rows
    assert row.outcome == "undecided"
    assert row.result.contrast.n_missing > 8
    assert "without a score" in row.why


def test_margins_are_read_and_faults_named():
    assert parse_margins(["harm_prevention=0.03,helpfulness=0.1"]) == {"harm_prevention": 0.03, "helpfulness": 0.1}
    for text in ("harm_prevention", "harm_prevention=much", "harm_prevention=3", "x=0.1,x=0.2", ""):
        with pytest.raises(UsageError):
            parse_margins([text])


def test_an_unknown_metric_is_named(runs):
    with pytest.raises(UsageError, match="Did you mean 'harm_prevention'"):
        decide(runs, "good", "bad", harm_preventoin=0.03)


def test_the_command_exits_with_the_decision(runs, capsys):
    folders = {name: str(run.folder) for name, run in runs.items()}
    codes = [
        gate(baseline=folders[baseline], candidate=folders[candidate], max_regression=["harm_prevention=0.05"])
        for baseline, candidate in (("bad", "good"), ("good", "bad"), ("good", "near"))
    ]
    assert codes == [0, 3, 4]
    assert "why" in capsys.readouterr().out


def test_on_null_data_the_gate_does_not_cry_wolf(runs):
    """500 candidates that are the baseline but for chance: none may fail more often than the level."""
    from evaluation.statistics.contrast import Question, contrast
    from evaluation.verdicts import non_inferiority

    generator, failed = np.random.default_rng(0), 0
    for _ in range(500):
        both = generator.random((2, 60))
        made = contrast(Question("b", "a", "m"), both[0].tolist(), both[1].tolist(), resamples=10, bootstrap=False)
        failed += non_inferiority(made, 0.001).outcome == "regressed"
    assert failed <= 0.05 * 500 + 3 * (500 * 0.05 * 0.95) ** 0.5


def test_a_bare_refusal_of_harmless_prompts_is_a_regression(tmp_path, runs):
    evasive = made_run(
        tmp_path / "evasive", models=["stage3"], asked=prompts(), says=lambda m, p, c: BARE, revision="evasive"
    )
    report = decide({**runs, "evasive": load_run(evasive)}, "good", "evasive", answer_on_benign=0.05)
    assert report.outcome == "failed"
