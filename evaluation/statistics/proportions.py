"""The difference of two rates on the same prompts."""

from __future__ import annotations

import math

import scipy

from evaluation.statistics.records import Interval


def tango_statistic(b: int, c: int, n: int, delta: float) -> float:
    """Tango's score statistic for a true difference of ``delta`` (Tango 1998, equations 24-26).

    (b - c - n delta) / sqrt(n (2 q + delta (1 - delta))), where q is the likeliest probability of the c cell under
    that difference; at delta = 0 it is McNemar's (b - c) / sqrt(b + c).

    Args:
        b: prompts where only the treatment has 1.
        c: prompts where only the control has 1.
        n: all prompts.
        delta: in (-1, 1).
    """
    return (b - c - n * delta) / math.sqrt(_variance(b, c, n, delta))


def tango(b: int, c: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Tango's score interval for (b - c) / n: the differences that the score test does not reject.

    It stays within [-1, 1], has a width where b = c = 0, and keeps its coverage with few discordant pairs (Newcombe
    1998; Fagerland, Lydersen and Laake 2014). Arguments as for `tango_statistic`.

    Raises:
        ValueError: the counts are negative or exceed ``n``.
    """
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"b = {b} and c = {c} are no discordant counts of {n} pairs")
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    return -_upper(c, b, n, z), _upper(b, c, n, z)


def _upper(b: int, c: int, n: int, z: float) -> float:
    # At these corners the variance vanishes at the estimate and the equation has a closed solution.
    if b == n:
        return 1.0
    if c == n:
        return (z * z - n) / (z * z + n)
    if b + c == 0:
        return z * z / (z * z + n)
    # The root of the statistic + z, multiplied out so that nothing is divided by a variance of 0.
    return float(
        scipy.optimize.brentq(
            lambda d: b - c - n * d + z * math.sqrt(_variance(b, c, n, d)), (b - c) / n, 1.0, xtol=1e-14, rtol=1e-14
        )
    )


def _variance(b: int, c: int, n: int, delta: float) -> float:
    linear = -(b + c) + (2 * n - b + c) * delta
    product = -c * delta * (1 - delta)
    q = (math.sqrt(max(0.0, linear * linear - 8 * n * product)) - linear) / (4 * n)
    return max(0.0, n * (2 * q + delta * (1 - delta)))
