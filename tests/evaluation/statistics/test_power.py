"""What a number of prompts can show, against statsmodels and a published table."""

import pytest
from statsmodels.stats.power import TTestPower

from evaluation.statistics.power import detectable_d, minimum_detectable_effect, prompts_needed, t_test_power


@pytest.mark.parametrize("n", [5, 10, 30, 200, 10_000])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 18])
def test_the_detectable_difference_has_eighty_percent_power_by_statsmodels(n, alpha):
    assert TTestPower().power(detectable_d(n, alpha=alpha), n, alpha) == pytest.approx(0.80, abs=1e-9)


def test_power_is_statsmodels():
    for d in (0.0, 0.2, 0.8):
        assert t_test_power(d, 34, alpha=0.01) == pytest.approx(TTestPower().power(d, 34, 0.01), abs=1e-9)


def test_cohens_textbook_numbers():
    """34 pairs for d = 0.5 and 199 for d = 0.2, at 5 % and 80 %: the numbers that power tables print."""
    assert prompts_needed(0.5, 1.0) == 34
    assert prompts_needed(0.2, 1.0) == 199


def test_needed_and_detectable_are_each_others_inverse():
    needed = prompts_needed(0.12, 0.4)
    assert minimum_detectable_effect(needed, 0.4) <= 0.12 < minimum_detectable_effect(needed - 1, 0.4)


def test_more_tests_need_more_prompts():
    assert detectable_d(50, alpha=0.05 / 18) > detectable_d(50)


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.05), (10, 0.0), (10, 0.9)])
def test_impossible_designs_are_refused(n, alpha):
    with pytest.raises(ValueError, match="power needs"):
        detectable_d(n, alpha=alpha)
    with pytest.raises(ValueError, match="above 0"):
        prompts_needed(0.0, 1.0)
