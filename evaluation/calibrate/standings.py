"""From the card's lines to a verdict on each evaluator: does it know more than an answer's length?"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.calibrate.card import CardRow, Standing
from evaluation.calibrate.measures import Measure
from evaluation.calibrate.tasks import PRIMARY
from evaluation.evaluators.linear import LinearModel, weights
from evaluation.evaluators.protocol import Evaluator

LEAST = 20
"""Rows below which a gold set decides nothing."""


def cross_validated(evaluators: Sequence[Evaluator]) -> list[CardRow]:
    """The lines that the fit itself measured, on rows that the fold's model had not seen."""
    models = weights().models
    return [
        _line(evaluator.name, models[evaluator.name])
        for evaluator in evaluators
        if evaluator.name in models and evaluator.name in PRIMARY
    ]


def _line(name: str, model: LinearModel) -> CardRow:
    found = model.cross_validated

    def measure(part: str) -> Measure:
        return Measure(value=found[part], low=found[f"{part}_low"], high=found[f"{part}_high"])

    headline = "accuracy" if model.kind == "pairwise" else "auc"
    return CardRow(
        evaluator=name,
        task=PRIMARY[name][0],
        dataset="development data",
        kind="cross-validated",
        n=int(found["rows"]),
        clusters=int(found["clusters"]),
        unscored={},
        length_correlation=found.get("rank_correlation_with_length"),
        length=measure("length"),
        above_length=measure("above_length"),
        **{headline: measure("own")},
    )


def standings(rows: Sequence[CardRow], evaluators: Sequence[Evaluator]) -> dict[str, Standing]:
    """Each evaluator's standing, by the largest gold set of its own task that its weights have not seen.

    An evaluator without such a set is left out: it is unvalidated.
    """
    found: dict[str, Standing] = {}
    for evaluator in evaluators:
        inner = getattr(evaluator, "evaluator", evaluator)
        tasks = PRIMARY.get(evaluator.name) or tuple(getattr(inner, "gold_tasks", ()))
        for task in tasks:
            lines = [
                row
                for row in rows
                if (row.evaluator, row.task) == (evaluator.name, task)
                and row.kind != "fitted on"
                and row.n >= LEAST
                and row.above_length is not None
            ]
            if lines:
                decides = max(lines, key=lambda row: row.clusters)
                found[evaluator.name] = "informative" if decides.clears_length else "uninformative"
                break
    return found
