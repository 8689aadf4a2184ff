"""Prompts that belong together: their mean with a cluster-robust error, and a bootstrap that draws them whole."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from evaluation.statistics.records import Interval

_CELLS = 2_000_000
"""Resampled numbers held in memory at once (16 MB)."""
_ROUNDING = 1e-12
"""Scores that differ by less are one number."""


@dataclass(frozen=True)
class Clustered:
    """Values summed by cluster, in an order that does not depend on the order of the rows."""

    sums: np.ndarray
    """Shape (clusters,)."""
    sizes: np.ndarray
    """Rows in each cluster; shape (clusters,)."""
    constant: bool
    """Whether all rows hold one number."""

    @property
    def count(self) -> int:
        """Clusters: the independent units."""
        return len(self.sums)

    @property
    def singletons(self) -> bool:
        """Whether every row is its own cluster."""
        return bool((self.sizes == 1).all())

    @property
    def mean(self) -> float:
        """Mean over rows: every prompt has the same weight, whatever the size of its cluster."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def standard_error(self) -> float:
        """Of `mean`, robust to any dependence within clusters; exactly 0 where all rows hold one number.

        sqrt(G / (G - 1) x sum over clusters (S_g - n_g m)²) / N: the ratio estimator's linearised variance
        (Cochran 1977, section 9A.5), with G clusters, N rows, sums S_g and sizes n_g. With clusters of one it is
        sd / sqrt(n).

        Raises:
            ValueError: there are fewer than two clusters.
        """
        if self.count < 2:
            raise ValueError(f"a standard error needs at least two independent units; there are {self.count}")
        if self.constant:
            return 0.0
        residuals = self.sums - self.sizes * self.mean
        return float(np.sqrt(self.count / (self.count - 1) * np.square(residuals).sum()) / self.sizes.sum())

    def t_interval(self, confidence: float) -> Interval:
        """`mean` ± t(G - 1) x `standard_error`."""
        half = float(scipy.stats.t.ppf((1 + confidence) / 2, self.count - 1)) * self.standard_error
        return self.mean - half, self.mean + half


def clustered(values: np.ndarray, labels: Sequence[Hashable] | None = None) -> Clustered:
    """Sum finite ``values`` (shape (rows,)) by label; without labels each row is its own cluster.

    Raises:
        ValueError: there are not as many labels as rows.
    """
    if labels is None:
        sums, sizes = values.copy(), np.ones(len(values), dtype=int)
    else:
        codes = _codes(labels, len(values))
        order = np.lexsort((values, codes))  # sums of sorted values do not depend on the order of the rows
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        sums = np.add.reduceat(values[order], starts) if len(values) else values.copy()
        sizes = np.diff(starts, append=len(values))
    order = np.lexsort((sums, np.abs(sums), sizes))
    return Clustered(sums[order], sizes[order], constant=constant(values))


def constant(values: np.ndarray) -> bool:
    """Whether all values are one number, but for rounding."""
    return len(values) > 0 and bool(np.ptp(values) <= _ROUNDING)


def _codes(labels: Sequence[Hashable], rows: int) -> np.ndarray:
    if len(labels) != rows:
        raise ValueError(f"there are {rows} rows and {len(labels)} cluster labels")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=int)


def bootstrap_interval(values: Clustered, *, confidence: float, resamples: int, seed: int) -> Interval:
    """Percentile interval of the mean under resampling of whole clusters (Davison and Hinkley 1997, section 3.8).

    The percentiles are those of Hesterberg (2015, "expanded percentile"): Phi(±t(G - 1) sqrt(G / (G - 1))), which
    make up for the bootstrap's variance being too small by (G - 1) / G and for normal in place of t quantiles.

    Raises:
        ValueError: fewer than two clusters, or no resamples.
    """
    if values.count < 2 or resamples < 1:
        raise ValueError("the bootstrap needs at least two clusters and one resample")
    means = _resampled_means(values, resamples, np.random.default_rng(seed))
    return percentile_interval(means, confidence=confidence, clusters=values.count)


def percentile_interval(draws: np.ndarray, *, confidence: float, clusters: int) -> Interval:
    """Hesterberg's expanded percentiles of bootstrap ``draws`` (shape (resamples,)) over so many clusters."""
    reach = float(scipy.stats.t.ppf((1 + confidence) / 2, clusters - 1)) * np.sqrt(clusters / (clusters - 1))
    tail = float(scipy.stats.norm.sf(reach))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def resampled_counts(clusters: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each cluster is drawn: shape (resamples, clusters), each row summing to ``clusters``."""
    drawn = generator.integers(0, clusters, size=(resamples, clusters)) + clusters * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * clusters).reshape(resamples, clusters)


def _resampled_means(values: Clustered, resamples: int, generator: np.random.Generator) -> np.ndarray:
    count, chunk = values.count, max(1, _CELLS // values.count)
    uniform = bool((values.sizes == values.sizes[0]).all())
    means = np.empty(resamples)
    for start in range(0, resamples, chunk):
        drawn = generator.integers(0, count, size=(min(chunk, resamples - start), count), dtype=np.int32)
        rows = count * values.sizes[0] if uniform else values.sizes[drawn].sum(axis=1)
        means[start : start + len(drawn)] = values.sums[drawn].sum(axis=1) / rows
    return means
