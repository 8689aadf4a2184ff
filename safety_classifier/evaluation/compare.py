"""Two scorers on the same rows: is one better, or were the rows kind to it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runs.config import StrictModel
from runs.errors import UsageError
from safety_classifier.calibration import Floats
from safety_classifier.evaluation.frame import TEST, Rows, rows_of
from safety_classifier.evaluation.intervals import Bootstrap, Estimate, mean_estimate
from safety_classifier.evaluation.metrics import flat_statistics, macro_heads, pair_wins, ranked_heads
from safety_classifier.evaluation.scorer import Scorer, Scores, checked

if TYPE_CHECKING:
    import pandas as pd


class Discordance(StrictModel):
    """Labelled rows that exactly one of the two decides rightly (McNemar 1947, exact)."""

    only_first: int
    only_second: int
    p_value: float


class Comparison(StrictModel):
    """The differences first minus second."""

    rows: int
    differences: dict[str, Estimate]
    """``head/metric``, ``macro/metric`` and ``head/pair_accuracy``; an interval without 0 is a difference at 5 %, one
    by one."""
    decisions: dict[str, Discordance]


def paired_compare(
    a: Scorer, b: Scorer, frame: pd.DataFrame, *, split: str = TEST, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Paired bootstrap: both scorers are measured on every resample, so that the luck of the rows cancels.

    Args:
        a: the first scorer.
        b: the second, with the same schema.
        frame: the prepared table.
        split: the rows to compare on.
        resamples: bootstrap resamples (B).
        seed: of the bootstrap.

    Raises:
        UsageError: the schemas differ.
        UserError: the table is not as it should be.
    """
    if a.labels.names != b.labels.names:
        raise UsageError("The two scorers have different heads.", why=f"{a.labels.names} against {b.labels.names}.")
    rows = rows_of(frame, a.labels, split)
    scores = [checked(one, rows.texts, rows.contexts) for one in (a, b)]
    return Comparison(
        rows=len(rows),
        differences=_differences(a, b, rows, scores[0], scores[1], resamples, seed),
        decisions=_decisions(a, b, rows, scores[0], scores[1]),
    )


def _differences(
    a: Scorer, b: Scorer, rows: Rows, first: Scores, second: Scores, resamples: int, seed: int
) -> dict[str, Estimate]:
    labels = a.labels
    both = [ranked_heads(labels, rows, scores, one.thresholds) for one, scores in ((a, first), (b, second))]
    over = macro_heads(labels, both[0])

    def statistic(weights: Floats) -> dict[str, Floats]:
        left, right = (flat_statistics(ranked, over, weights) for ranked in both)
        return {name: left[name] - right[name] for name in left if name in right}

    found = Bootstrap(rows.clusters, rows.strata, resamples, seed).estimates(statistic)
    for name, pairs in rows.pairs.items():
        column = labels.column(name)
        gain = pair_wins(first, pairs, column) - pair_wins(second, pairs, column)
        clusters = rows.clusters[pairs[:, 0]]
        found[f"{name}/pair_accuracy"] = mean_estimate(gain, clusters, resamples=resamples, seed=seed)
    return found


def _decisions(a: Scorer, b: Scorer, rows: Rows, first: Scores, second: Scores) -> dict[str, Discordance]:
    from scipy.stats import binomtest

    found = {}
    for name in a.labels.of("category", "response"):
        if name not in a.thresholds or name not in b.thresholds:
            continue
        column = a.labels.column(name)
        y = rows.targets[:, column]
        known = ~np.isnan(y)
        right = [
            (scores[known, column] >= one.thresholds[name]) == (y[known] == 1)
            for one, scores in ((a, first), (b, second))
        ]
        gains, losses = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        p_value = float(binomtest(gains, gains + losses).pvalue) if gains + losses else 1.0
        found[name] = Discordance(only_first=gains, only_second=losses, p_value=p_value)
    return found
