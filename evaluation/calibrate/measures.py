"""Agreement with people's labels, each number with a cluster-bootstrap interval.

Clusters (dialogues, contexts, prompt families) are drawn with replacement, whole; every measure is computed anew from
the drawn rows' weights. Arrays are numpy's; it is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from runs.config import StrictModel

FloatArray = Any
"""A numpy array of floats."""
DRAWS = 1000
_BLOCK = 100
"""Draws held in memory at once."""
BINS = 10
"""Bins of equal width of the expected calibration error."""


class Measure(StrictModel):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


Statistic = Callable[[FloatArray], FloatArray]
"""(draws, n) weights → (draws,) values."""


def bootstrap(statistic: Statistic, clusters: Sequence[str], *, seed: int = 0, draws: int = DRAWS) -> Measure:
    """The statistic on all rows, with the percentile interval over draws of clusters.

    Args:
        statistic: from row weights to values; draws on which it is NaN (one class only) are left out.
        clusters: the cluster of each row.
        seed: of the draws.
        draws: how many.
    """
    import numpy as np

    codes = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)[1]
    count = int(codes.max()) + 1
    generator = np.random.default_rng(seed)
    found = []
    for start in range(0, draws, _BLOCK):
        size = min(_BLOCK, draws - start)
        drawn = generator.multinomial(count, np.full(count, 1.0 / count), size=size)
        found.append(statistic(drawn[:, codes].astype(float)))
    values = np.concatenate(found)
    values = values[np.isfinite(values)]
    centre = float(statistic(np.ones((1, len(codes))))[0])
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (centre, centre)
    return Measure(value=centre, low=float(low), high=float(high))


def mean_of(values: FloatArray) -> Statistic:
    """Weighted mean of ``values`` (n,)."""

    def statistic(weights: FloatArray) -> FloatArray:
        return weights @ values / weights.sum(axis=1)

    return statistic


def wins(first: FloatArray, second: FloatArray) -> FloatArray:
    """(n,) 1 where the first is greater, 0.5 for a tie, 0 where it is less."""
    return (first > second) + 0.5 * (first == second)


def auc_of(scores: FloatArray, labels: FloatArray) -> Statistic:
    """Area under the ROC curve, ties as a half: P(a positive scores above a negative)."""
    import numpy as np

    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    positive = labels[order].astype(float)

    def statistic(weights: FloatArray) -> FloatArray:
        drawn = weights[:, order]
        positives = np.add.reduceat(drawn * positive, starts, axis=1)
        negatives = np.add.reduceat(drawn * (1 - positive), starts, axis=1)
        above = positives.sum(axis=1, keepdims=True) - np.cumsum(positives, axis=1)
        area = (negatives * (above + 0.5 * positives)).sum(axis=1)
        total = positives.sum(axis=1) * negatives.sum(axis=1)
        return np.divide(area, total, out=np.full(len(weights), np.nan), where=total > 0)

    return statistic


def ratio_of(above: FloatArray, below: FloatArray) -> Statistic:
    """Weighted sum of ``above`` over weighted sum of ``below``: precision, recall and F1 are such ratios."""
    import numpy as np

    def statistic(weights: FloatArray) -> FloatArray:
        total = weights @ below
        return np.divide(weights @ above, total, out=np.full(len(weights), np.nan), where=total > 0)

    return statistic


def minus(first: Statistic, second: Statistic) -> Statistic:
    """The difference of two statistics on the same draws."""

    def statistic(weights: FloatArray) -> FloatArray:
        return first(weights) - second(weights)

    return statistic


def calibration(probabilities: FloatArray, labels: FloatArray) -> tuple[float, float]:
    """Expected calibration error over `BINS` bins of equal width, and the Brier score."""
    import numpy as np

    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    error = 0.0
    for index in range(BINS):
        inside = bins == index
        if inside.any():
            error += inside.mean() * abs(probabilities[inside].mean() - labels[inside].mean())
    return float(error), float(np.mean((probabilities - labels) ** 2))


def rank_correlation(scores: FloatArray, lengths: FloatArray) -> float | None:
    """Spearman's correlation; None where one of the two is constant."""
    import numpy as np
    from scipy.stats import spearmanr

    if np.ptp(scores) == 0 or np.ptp(lengths) == 0:
        return None
    return float(spearmanr(scores, lengths).statistic)
