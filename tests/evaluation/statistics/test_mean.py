"""Means with their intervals, against scipy and statsmodels."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.api import OLS
from statsmodels.stats.proportion import proportion_confint

from evaluation.statistics.clusters import clustered
from evaluation.statistics.mean import mean_interval, wilson
from runs.errors import UserError

VALUES = np.random.default_rng(7).uniform(size=40)


def test_t_interval_is_scipys():
    interval = mean_interval(VALUES)
    reference = stats.t.interval(0.95, 39, loc=VALUES.mean(), scale=stats.sem(VALUES))
    assert (interval.low, interval.high) == pytest.approx(reference, abs=1e-9)
    assert (interval.n, interval.method) == (40, "t")


@pytest.mark.parametrize(("successes", "n"), [(0, 30), (17, 20), (30, 30), (1, 1)])
def test_wilson_is_scipys_and_statsmodels(successes, n):
    made = wilson(successes, n)
    reference = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (made.low, made.high) == pytest.approx(tuple(reference), abs=1e-9)
    assert (made.low, made.high) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-9)
    assert mean_interval([1.0] * successes + [0.0] * (n - successes)) == made


def test_clustered_error_is_statsmodels_sandwich_and_keeps_every_prompts_weight():
    labels = np.random.default_rng(3).integers(0, 12, size=40)
    groups = len(set(labels))
    units = clustered(VALUES, labels.tolist())
    fitted = OLS(VALUES, np.ones(40)).fit(cov_type="cluster", cov_kwds={"groups": labels, "use_correction": False})
    expected = fitted.bse[0] * np.sqrt(groups / (groups - 1))
    assert units.mean == pytest.approx(VALUES.mean(), abs=1e-12)
    assert units.standard_error == pytest.approx(expected, abs=1e-9)
    interval = mean_interval(VALUES, clusters=labels.tolist())
    assert interval.method == "cluster_t"
    assert interval.high - interval.low == pytest.approx(2 * stats.t.ppf(0.975, groups - 1) * expected, abs=1e-9)


def test_pairs_are_no_wilson_interval():
    values = [1.0, 0.0] * 5
    assert mean_interval(values, clusters=[i // 2 for i in range(10)]).method == "cluster_t"
    assert mean_interval(values, clusters=list(range(10))) == mean_interval(values)


def test_a_single_value_has_a_mean_and_no_interval():
    assert (mean_interval([0.4]).mean, mean_interval([0.4]).low) == (0.4, None)
    assert mean_interval([0.4, 0.6], clusters=["one", "one"]).low is None
    with pytest.raises(ValueError):
        mean_interval([])


def test_what_is_no_number_is_refused_by_its_row():
    with pytest.raises(UserError, match="row 1 is nan"):
        mean_interval([0.2, float("nan")])
