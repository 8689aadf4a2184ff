"""Several tests in one family: what stays when each had its chance to err."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from evaluation.statistics.checks import unit_scores


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given (Holm 1979).

    Sorted ascending, p(i) is multiplied by m - i + 1 (i from 1), then made non-decreasing and cut at 1. Rejecting
    where the result is <= alpha keeps the chance of any false rejection in the family at most alpha, whatever
    the dependence between the tests.

    Raises:
        UserError: a p-value is outside [0, 1] or not finite.
    """
    array = unit_scores(p_values, "p-values")
    order = np.argsort(array, kind="stable")
    stepped = array[order] * np.arange(len(array), 0, -1)
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return tuple(float(value) for value in adjusted)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Benjamini and Hochberg's adjusted p-values, in the order given (1995).

    Looking further where the result is <= q keeps the expected share of false leads among them at most q, for
    independent or positively dependent tests: the right care for a search, too little for a claim.

    Raises:
        UserError: a p-value is outside [0, 1] or not finite.
    """
    array = unit_scores(p_values, "p-values")
    return (
        tuple(float(value) for value in scipy.stats.false_discovery_control(array, method="bh")) if len(array) else ()
    )
