"""Several tests in one family: what stays when each had its chance to err."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.statistics.mean import finite


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given (Holm 1979).

    Sorted ascending, p(i) is multiplied by m - i + 1 (i from 1), then made non-decreasing and cut at 1. Rejecting
    where the result is <= alpha keeps the chance of any false rejection in the family at most alpha, whatever
    the dependence between the tests.

    Raises:
        ValueError: a p-value is outside [0, 1] or not finite.
    """
    array = finite(p_values, "p-values")
    if ((array < 0) | (array > 1)).any():
        raise ValueError("p-values must lie in [0, 1]")
    order = np.argsort(array, kind="stable")
    stepped = array[order] * np.arange(len(array), 0, -1)
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return tuple(float(value) for value in adjusted)
