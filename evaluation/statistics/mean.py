"""One model's mean on a metric, with an interval."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from evaluation.statistics.checks import finite, is_binary
from evaluation.statistics.clusters import clustered


@dataclass(frozen=True)
class Mean:
    """A mean and its confidence interval."""

    mean: float
    low: float | None
    """Lower bound; None for a single graded value, which has no interval."""
    high: float | None
    n: int
    """Prompts behind the mean: the denominator."""
    method: str
    """``t``, ``cluster_t`` or ``wilson``."""
    confidence: float


def mean_interval(
    values: Sequence[float], *, confidence: float = 0.95, clusters: Sequence[Hashable] | None = None
) -> Mean:
    """Mean over prompts: Wilson's interval for 0/1 values, else Student's t over independent units.

    t: m ± t(n-1, 1-a/2) s / sqrt(n). Wilson (1927): (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), which
    keeps its coverage near 0 and 1, where the t interval collapses to a point. Where prompts share a cluster both
    give way to the cluster-robust t interval (`Clustered.standard_error`).

    Args:
        values: one for each prompt, finite.
        confidence: of the interval.
        clusters: one label a prompt; None where all are independent.

    Raises:
        ValueError: no value, or labels of another number.
        UserError: a value is not finite.
    """
    array = finite(values)
    n = len(array)
    if n == 0:
        raise ValueError("a mean needs at least one value")
    units = clustered(array, clusters)
    if units.singletons and is_binary(array):
        return wilson(int(array.sum()), n, confidence=confidence)
    if units.count == 1:
        return Mean(units.mean, None, None, n, "t", confidence)
    low, high = units.t_interval(confidence)
    return Mean(units.mean, low, high, n, "t" if units.singletons else "cluster_t", confidence)


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Mean:
    """Wilson's score interval for a share. Raises `ValueError` unless 0 <= successes <= n and n >= 1."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a share needs 0 <= successes <= n and n >= 1, not {successes} of {n}")
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    # At 0 and n the bound is exactly 0 or 1; rounding must not push it outside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Mean(share, low, high, n, "wilson", confidence)
