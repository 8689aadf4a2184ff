"""Everything that was measured, as one record: report, plots and card are drawn from it alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from runs.config import StrictModel
from runs.errors import UserError
from safety_classifier.calibration import Calibration, HeadCalibration
from safety_classifier.evaluation.config import Settings
from safety_classifier.evaluation.fairness import Fairness
from safety_classifier.evaluation.latency import Latency
from safety_classifier.evaluation.metrics import Curve, MetricTable, PairAccuracy, SourceAuroc
from safety_classifier.evaluation.robustness import AttackLoss
from safety_classifier.evaluation.suites import SuiteResult
from safety_classifier.labels import Labels

CLASSIFIER = "classifier"
"""The name under which the thing under evaluation stands beside the baselines."""


class GoalResult(StrictModel):
    """A bar and what was measured; None: not measured."""

    figure: str
    goal: str
    value: float | None
    reached: bool | None


class Results(StrictModel):
    """One evaluation. Dictionaries of scorers hold `CLASSIFIER` first."""

    schema_version: int = 1
    created: str
    """UTC, ISO 8601."""
    seed: int
    settings: Settings
    labels: Labels
    counts: dict[str, dict[str, int]]
    """Split to rows, groups, and labelled and positive rows of each head."""
    tables: dict[str, MetricTable]
    within_source: dict[str, tuple[SourceAuroc, ...]]
    pairs: dict[str, dict[str, PairAccuracy]]
    curves: dict[str, dict[str, Curve]]
    """Head to scorer to its precision-recall curve."""
    calibration: Calibration | None
    reliability: dict[str, HeadCalibration]
    attacks: dict[str, tuple[AttackLoss, ...]]
    fairness: dict[str, Fairness]
    suites: dict[str, dict[str, SuiteResult]]
    """Suite to scorer to its result."""
    latency: tuple[Latency, ...]
    figures: dict[str, float]
    """The classifier's point values under flat names, for goals and comparisons."""
    goals: tuple[GoalResult, ...] = ()


def flat_figures(results: Results) -> dict[str, float]:
    """The classifier's point values by flat names, such as ``suite/hatecheck/hateful/accuracy``."""
    return dict(sorted((key, value) for key, value in _figures(results) if value is not None))


def _figures(results: Results) -> Iterator[tuple[str, float | None]]:
    table = results.tables[CLASSIFIER]
    for head, row in {"macro": table.macro, **table.heads}.items():
        for name, estimate in row.metrics.items():
            yield f"test/{head}/{name}", estimate.value
    for one in results.within_source[CLASSIFIER]:
        yield f"within_source/{one.head}/{one.source}/auroc", one.auroc.value
    for head, pair in results.pairs[CLASSIFIER].items():
        yield f"test/{head}/pair_accuracy", pair.accuracy.value
        for source, within in pair.sources.items():
            yield f"within_source/{head}/{source}/pair_accuracy", within.accuracy.value
    for head, one_head in results.reliability.items():
        yield f"calibration/{head}/ece_before", one_head.ece_mass[0]
        yield f"calibration/{head}/ece_after", one_head.ece_mass[1]
    for loss in results.attacks.get(CLASSIFIER, ()):
        yield f"attack/{loss.attack}/{loss.head}/loss", loss.loss.value
    if CLASSIFIER in results.fairness:
        yield from _fairness_figures(results.fairness[CLASSIFIER])
    for suite, scorers in results.suites.items():
        for task, answer in scorers[CLASSIFIER].tasks.items():
            for name, estimate in answer.metrics.items():
                yield f"suite/{suite}/{task}/{name}", estimate.value
        for head, pair in scorers[CLASSIFIER].pairs.items():
            yield f"suite/{suite}/{head}/pair_accuracy", pair.accuracy.value
    for speed in results.latency:
        yield f"latency/{speed.batch}/p50_ms", speed.p50_ms
        yield f"latency/{speed.batch}/texts_per_second", speed.texts_per_second


def _fairness_figures(fairness: Fairness) -> Iterator[tuple[str, float | None]]:
    for kind, biases in (("templates", fairness.templates), ("mentions", fairness.mentions)):
        for head, bias in biases.items():
            for name in ("overall", "final", "worst_bpsn", "odds_gap"):
                yield f"fairness/{kind}/{head}/{name}", getattr(bias, name).value
    for kind, shifts in (("templates", fairness.template_swaps), ("texts", fairness.text_swaps)):
        for head, shift in shifts.items():
            yield f"fairness/swaps/{kind}/{head}/mean", shift.mean.value
            yield f"fairness/swaps/{kind}/{head}/flips", shift.flips


def judge(results: Results) -> Results:
    """``results`` with its figures and the goals of its settings filled in."""
    figures = flat_figures(results)
    goals = []
    for goal in results.settings.goals:
        value = figures.get(goal.figure)
        low, high = goal.at_least, goal.at_most
        wanted = f"≥ {low:g}" if low is not None else f"≤ {high:g}"
        reached = None if value is None else value >= low if low is not None else value <= (high or 0.0)
        goals.append(GoalResult(figure=goal.figure, goal=wanted, value=value, reached=reached))
    return results.model_copy(update={"figures": figures, "goals": tuple(goals)})


def read_results(path: Path) -> Results:
    """Read results.json. Raises `UserError` if it is absent or not valid."""
    try:
        return Results.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"There are no results {path}.", mend="Run the evaluation first.") from error
    except ValidationError as error:
        raise UserError(f"{path} does not hold results.", why=str(error.errors()[0]["msg"])) from error
