"""What the missing scores could do to a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.statistics.records import Interval


def worst_case_bounds(treatment: Sequence[float | None], control: Sequence[float | None]) -> Interval | None:
    """The mean differences that are possible when a missing score can be anything from 0 to 1 (Manski 1989).

    The lower bound takes 0 for each missing score of the treatment and 1 for each of the control; the upper the
    other way about. Nothing is assumed about why scores are missing.

    Args:
        treatment: scores in [0, 1], None where there is none.
        control: the same rows of the control.

    Returns:
        Bounds of the mean over all rows; None without any.
    """
    if not treatment:
        return None
    pairs = list(zip(treatment, control, strict=True))
    # fsum rounds once: the order of the rows does not matter.
    low = math.fsum((0.0 if a is None else a) - (1.0 if b is None else b) for a, b in pairs)
    high = math.fsum((1.0 if a is None else a) - (0.0 if b is None else b) for a, b in pairs)
    return low / len(pairs), high / len(pairs)
