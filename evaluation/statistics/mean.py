"""One model's mean on a metric, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Mean:
    """A mean and its confidence interval."""

    mean: float
    low: float | None
    """Lower bound; None for a single graded value, which has no interval."""
    high: float | None
    n: int
    """Units (prompts) behind the mean: the denominator."""
    method: str
    """``t`` or ``wilson``."""
    confidence: float


def finite(values: Sequence[float], name: str = "values") -> np.ndarray:
    """``values`` as a one-dimensional float array.

    Raises:
        ValueError: a value is NaN or infinite: an unscored answer must be left out before, and be counted.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a flat list of finite numbers; leave unscored answers out and count them")
    return array


def is_binary(values: np.ndarray) -> bool:
    """Whether every value is 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Mean:
    """Mean over prompts: Wilson's interval for 0/1 values, else Student's t with n - 1 degrees of freedom.

    t: m ± t(n-1, 1-a/2) s / sqrt(n). Wilson (1927): (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), which
    keeps its coverage near 0 and 1, where the t interval collapses to a point.

    Raises:
        ValueError: no value, or a value that is not finite.
    """
    array = finite(values)
    n = len(array)
    if n == 0:
        raise ValueError("a mean needs at least one value")
    if is_binary(array):
        return wilson(int(array.sum()), n, confidence=confidence)
    estimate = float(array.mean())
    if n == 1:
        return Mean(estimate, None, None, n, "t", confidence)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * array.std(ddof=1) / np.sqrt(n))
    return Mean(estimate, estimate - half, estimate + half, n, "t", confidence)


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Mean:
    """Wilson's score interval for a share. Raises `ValueError` unless 0 <= successes <= n and n >= 1."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a share needs 0 <= successes <= n and n >= 1, not {successes} of {n}")
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    # At 0 and n the bound is exactly 0 or 1; rounding must not push it outside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Mean(share, low, high, n, "wilson", confidence)
