"""What numbers must be before a statistic is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runs.errors import UserError


def finite(values: Sequence[float], name: str = "values", rows: Sequence[object] | None = None) -> np.ndarray:
    """``values`` as a one-dimensional float array.

    Args:
        values: the numbers.
        name: what they are, for the error.
        rows: what each one belongs to (a prompt id), for the error; its position by default.

    Raises:
        ValueError: the values are not a flat list, or ``rows`` has another length.
        UserError: a value is NaN or infinite; the first such row is named.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or (rows is not None and len(rows) != len(array)):
        raise ValueError(f"{name} must be a flat list of numbers, with as many row labels")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise UserError(
            f"{name}: the value of row {bad[0] if rows is None else rows[bad[0]]} is {array[bad[0]]}, not a number.",
            why=f"{len(bad)} of {len(array)} values are not finite.",
            mend="An answer that cannot be scored must be Unscored with a reason: it is then counted, not averaged.",
        )
    return array


def unit_scores(values: Sequence[float], name: str, rows: Sequence[object] | None = None) -> np.ndarray:
    """`finite` values that lie in [0, 1]. Raises `UserError` with the first row that does not."""
    array = finite(values, name, rows)
    bad = np.flatnonzero((array < 0) | (array > 1))
    if len(bad):
        row = bad[0] if rows is None else rows[bad[0]]
        raise UserError(
            f"{name}: the value of row {row} is {array[bad[0]]:g}, outside of 0 to 1.",
            mend="Scores are numbers from 0 to 1.",
        )
    return array


def is_binary(values: np.ndarray) -> bool:
    """Whether every value is 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())
