"""A share with its denominator and its interval, as the statistics write it."""

from __future__ import annotations

from typing import Any


def share(count: int, n: int) -> dict[str, Any]:
    """``count`` of ``n`` with Wilson's 95 % score interval (Wilson 1927); without rows there is no share.

    Raises:
        ValueError: unless 0 <= count <= n.
    """
    from scipy.stats import binomtest

    if n == 0 and count == 0:
        return {"count": 0, "n": 0, "share": None, "interval": None}
    found = binomtest(count, n).proportion_ci(0.95, method="wilson")
    interval = [round(float(found.low), 4), round(float(found.high), 4)]
    return {"count": count, "n": n, "share": round(count / n, 4), "interval": interval}
