"""Tango's interval, against his own example and others' numbers."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from evaluation.statistics.proportions import tango, tango_statistic


def test_tangos_contact_lenses():
    """Tango (1998), section 6.1: 44 lenses, one effective by the standard only; margin 0.1."""
    assert tango_statistic(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)
    assert stats.norm.sf(tango_statistic(0, 1, 44, -0.1)) == pytest.approx(0.044, abs=5e-4)
    assert tango(0, 1, 44, confidence=0.90)[0] == pytest.approx(-0.096, abs=5e-4)


@pytest.mark.parametrize(
    ("b", "c", "n", "confidence", "expected"),
    [
        # Airway hyper-responsiveness (Bentur 2009), in Fagerland, Lydersen and Laake (2014)
        (1, 7, 21, 0.95, (-0.517, -0.026)),
        # R, PropCIs::scoreci.mp, as others have pinned it
        (28, 25, 618, 0.90, (-0.0148, 0.0247)),
        (60, 20, 1000, 0.95, (0.0231, 0.0584)),
    ],
)
def test_published_intervals(b, c, n, confidence, expected):
    assert tango(b, c, n, confidence=confidence) == pytest.approx(expected, abs=6e-4 if n == 21 else 6e-5)


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 10), (10, 0, 10), (3, 0, 10), (9, 1, 10), (5, 5, 30), (12, 2, 50)])
def test_bounds_solve_the_score_equation_and_mirror(b, c, n):
    low, high = tango(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert tango(c, b, n) == pytest.approx((-high, -low), abs=1e-12)
    for bound, z in ((low, 1.959963984540054), (high, -1.959963984540054)):
        if abs(bound) < 1:
            assert tango_statistic(b, c, n, bound) == pytest.approx(z, abs=1e-9)


def test_the_null_statistic_is_mcnemars():
    assert tango_statistic(12, 2, 50, 0.0) == pytest.approx((12 - 2) / math.sqrt(14), abs=1e-12)


def test_the_restricted_estimate_maximises_the_likelihood():
    """The statistic's variance rests on the likeliest q with p_b = q + delta; found here by brute force."""
    b, c, n, delta = 9, 4, 40, 0.05
    found = minimize_scalar(
        lambda q: -(b * np.log(q + delta) + c * np.log(q) + (n - b - c) * np.log(1 - 2 * q - delta)),
        bounds=(1e-9, (1 - delta) / 2 - 1e-9),
        options={"xatol": 1e-12},
    )
    expected = (b - c - n * delta) / math.sqrt(n * (2 * found.x + delta * (1 - delta)))
    assert tango_statistic(b, c, n, delta) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 3), (2, 2, 3), (0, 0, 0)])
def test_impossible_counts_are_refused(b, c, n):
    with pytest.raises(ValueError):
        tango(b, c, n)
