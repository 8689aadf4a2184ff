"""Adjusted p-values, by hand and against statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from evaluation.statistics.multiplicity import benjamini_hochberg, holm
from runs.errors import UserError


def test_holm_worked_by_hand():
    """0.01 x 4, then max(0.04, 0.03 x 2), 0.02 x 3 = 0.06 before it, and 0.5 x 1."""
    assert holm([0.01, 0.5, 0.03, 0.02]) == pytest.approx((0.04, 0.5, 0.06, 0.06), abs=1e-12)
    assert holm([0.9, 0.8]) == (1.0, 1.0)


@pytest.mark.parametrize(("adjust", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_both_are_statsmodels(adjust, method):
    p_values = np.random.default_rng(5).uniform(size=30) ** 3
    assert adjust(p_values) == pytest.approx(multipletests(p_values, method=method)[1], abs=1e-9)
    assert adjust([]) == ()
    with pytest.raises(UserError, match="outside of 0 to 1"):
        adjust([1.2])
    with pytest.raises(UserError, match="nan"):
        adjust([float("nan")])
