"""Functional and out-of-distribution suites: ``--suite NAME --path FILE``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from runs.config import StrictModel
from runs.errors import unknown_name
from safety_classifier.calibration import Floats
from safety_classifier.evaluation import formats
from safety_classifier.evaluation.formats import Combine, Reader, SuiteData, Task
from safety_classifier.evaluation.intervals import Bootstrap, Estimate, mean_estimate
from safety_classifier.evaluation.metrics import Flags, PairAccuracy, Ranked, pair_wins
from safety_classifier.evaluation.scorer import Scorer, Scores, checked
from safety_classifier.labels import Labels
from safety_classifier.thresholds import OperatingPoints

SUITES: dict[str, Reader] = {
    "hatecheck": formats.hatecheck,
    "openai-moderation": formats.openai_moderation,
    "toxicchat": formats.toxicchat,
    "beavertails": formats.beavertails,
    "xstest": formats.xstest,
    "simplesafetytests": formats.simplesafetytests,
    "preference": formats.preference("harmlessness"),
    "preference-helpful": formats.preference("helpfulness"),
    "csv": formats.labelled_csv,
}
"""Suite to its reader. A new format is one function and one line here."""

METRICS = ("auroc", "auprc", "f1", "accuracy", "precision", "recall", "fpr")


class TaskResult(StrictModel):
    """One question of a suite."""

    heads: tuple[str, ...]
    combine: Combine
    """How the score comes from the heads. A row is flagged if any head reaches its own frozen threshold."""
    labelled: int
    positives: int
    metrics: dict[str, Estimate]
    best_f1: float | None
    """The highest F1 of any threshold, chosen on the suite's own labels: a ceiling, as other guards report it."""


class Slice(StrictModel):
    """The rows that share a value of a column."""

    value: str
    rows: int
    positives: int
    accuracy: Estimate
    mean_score: float


class SuiteResult(StrictModel):
    """One scorer on one suite."""

    suite: str
    rows: int
    tasks: dict[str, TaskResult]
    breakdown: dict[str, tuple[Slice, ...]]
    """Column to the slices of the first task."""
    pairs: dict[str, PairAccuracy]
    note: str


def read_suite(name: str, path: Path, labels: Labels) -> SuiteData:
    """Read a suite's file.

    Raises:
        UsageError: there is no suite of that name.
        UserError: a fault of the file, with its row and column.
    """
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    return SUITES[name](path, labels)


def combined(scores: Scores, columns: list[int], combine: Combine) -> Floats:
    """One score a row from probabilities (n, heads): the head's, the largest, or the noisy or 1 - Π(1 - p)."""
    p = np.asarray(scores[:, columns], np.float64)
    if combine == "noisy_or":
        return np.asarray(-np.expm1(np.log1p(-np.minimum(p, 1 - 1e-12)).sum(axis=1)))
    return np.asarray(p.max(axis=1))


def flagged_by_any(scores: Scores, labels: Labels, heads: tuple[str, ...], thresholds: Mapping[str, float]) -> Flags:
    """(n,) rows in which any of the heads reaches its own threshold."""
    cuts = np.array([thresholds[head] for head in heads], np.float32)
    return np.asarray((scores[:, labels.columns(heads)] >= cuts).any(axis=1))


def evaluate_suite(scorer: Scorer, name: str, data: SuiteData, *, resamples: int, seed: int) -> SuiteResult:
    """Score a suite's rows and answer its tasks.

    Args:
        scorer: the thing under evaluation, at its frozen thresholds.
        name: for the record.
        data: of `read_suite`.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    scores = checked(scorer, data.texts, data.contexts)
    rows = len(data.texts)
    clusters = data.clusters if data.clusters is not None else np.arange(rows)
    bootstrap = Bootstrap(clusters, np.zeros(rows, np.int64), resamples, seed)
    pairs = {}
    if data.pairs is not None:
        head, index = data.pairs
        wins = pair_wins(scores, index, scorer.labels.column(head))
        accuracy = mean_estimate(wins, clusters[index[:, 0]], resamples=resamples, seed=seed)
        pairs[head] = PairAccuracy(pairs=len(index), accuracy=accuracy)
    tasks = {task.name: _task(scorer, task, scores, bootstrap) for task in data.tasks}
    breakdown = {
        column: _slices(scorer, data.tasks[0], scores, values, bootstrap) for column, values in data.breakdown.items()
    }
    return SuiteResult(suite=name, rows=rows, tasks=tasks, breakdown=breakdown, pairs=pairs, note=data.note)


def _task(scorer: Scorer, task: Task, scores: Scores, bootstrap: Bootstrap) -> TaskResult:
    score = combined(scores, scorer.labels.columns(task.heads), task.combine)
    flags = flagged_by_any(scores, scorer.labels, task.heads, scorer.thresholds)
    ranked = Ranked(score, task.targets, flagged=flags)
    found = bootstrap.estimates(ranked)
    known = ~np.isnan(task.targets)
    y = task.targets[known]
    best = float(OperatingPoints.of(y, score[known]).f1.max()) if y.sum() else None
    return TaskResult(
        heads=task.heads,
        combine=task.combine,
        labelled=ranked.labelled,
        positives=ranked.positives,
        metrics={name: found[name] for name in METRICS},
        best_f1=best,
    )


def _slices(scorer: Scorer, task: Task, scores: Scores, values: list[str], bootstrap: Bootstrap) -> tuple[Slice, ...]:
    score = combined(scores, scorer.labels.columns(task.heads), task.combine)
    right = flagged_by_any(scores, scorer.labels, task.heads, scorer.thresholds) == (task.targets == 1)
    known, named = ~np.isnan(task.targets), np.array(values)
    members = {str(value): known & (named == value) for value in np.unique(named) if value}
    members = {value: member for value, member in members.items() if member.any()}

    def accuracies(weights: Floats) -> dict[str, Floats]:
        with np.errstate(invalid="ignore"):
            return {
                value: weights[:, member] @ right[member] / weights[:, member].sum(axis=1)
                for value, member in members.items()
            }

    found = bootstrap.estimates(accuracies)
    return tuple(
        Slice(
            value=value,
            rows=int(member.sum()),
            positives=int(task.targets[member].sum()),
            accuracy=found[value],
            mean_score=float(score[member].mean()),
        )
        for value, member in members.items()
    )
