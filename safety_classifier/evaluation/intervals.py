"""Bootstrap intervals: whole groups are resampled within their source; the statistics of a table share the resamples.

The percentile bootstrap (Efron and Tibshirani 1993) on weights: a resample is a count per row, so that a statistic is
computed for a block of resamples at once. Rows of one group stay together, because they are not independent; the
sources keep their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from runs.config import StrictModel
from safety_classifier.calibration import Floats, Ints

Statistic = Callable[[Floats], Mapping[str, Floats]]
"""From weights (b, n) to named values (b,); NaN where a resample leaves the statistic undefined."""

CELLS = 2_000_000
"""Weights held at once: bounds the memory of a block of resamples to some tens of megabytes."""


class Estimate(StrictModel):
    """A value with its 95 % interval; None where it is undefined (a class is absent)."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of n rows.

    Args:
        clusters: (n,) number of each row's group.
        strata: (n,) number of each row's stratum; a group lies in one stratum.
        resamples: how many (B); 0 gives values without intervals.
        seed: the same seed and rows give the same resamples.
    """

    clusters: Ints
    strata: Ints
    resamples: int
    seed: int

    @classmethod
    def of_rows(cls, rows: int, *, resamples: int, seed: int) -> Bootstrap:
        """Every row by itself, one stratum."""
        return cls(np.arange(rows), np.zeros(rows, np.int64), resamples, seed)

    def blocks(self) -> Iterator[Floats]:
        """Weights (b, n): how often each row is drawn."""
        rng = np.random.default_rng(self.seed)
        _, first, codes = np.unique(self.clusters, return_index=True, return_inverse=True)
        stratum = self.strata[first]
        members = [np.flatnonzero(stratum == value) for value in np.unique(stratum)]
        size = max(1, CELLS // max(1, len(self.clusters)))
        for start in range(0, self.resamples, size):
            count = min(size, self.resamples - start)
            drawn = np.empty((count, len(first)), np.float64)
            for clusters in members:
                even = np.full(len(clusters), 1 / len(clusters))
                drawn[:, clusters] = rng.multinomial(len(clusters), even, size=count)
            yield drawn[:, codes]

    def estimates(self, statistic: Statistic, *, level: float = 0.95) -> dict[str, Estimate]:
        """Value and percentile interval of everything that ``statistic`` names."""
        values = {name: value[0] for name, value in statistic(np.ones((1, len(self.clusters)))).items()}
        blocks = [statistic(block) for block in self.blocks()]
        drawn = {name: np.concatenate([block[name] for block in blocks]) for name in values} if blocks else {}
        return {name: _estimate(float(value), drawn.get(name), level) for name, value in values.items()}


def mean_estimate(values: Floats, clusters: Ints, *, resamples: int, seed: int) -> Estimate:
    """The mean of values (n,), whole clusters (n,) resampled."""
    bootstrap = Bootstrap(clusters, np.zeros(len(values), np.int64), resamples, seed)
    return bootstrap.estimates(lambda weights: {"mean": weights @ values / weights.sum(axis=1)})["mean"]


def _estimate(value: float, drawn: Floats | None, level: float) -> Estimate:
    if not np.isfinite(value):
        return Estimate(value=None)
    usable = drawn[np.isfinite(drawn)] if drawn is not None else np.array([])
    # Where most resamples lose a class, the rest would give an interval that looks better than it is.
    if drawn is None or len(usable) < 0.9 * len(drawn) or not len(usable):
        return Estimate(value=value)
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=value, low=float(low), high=float(high))
