import itertools

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics.mean import mean_interval, wilson
from evaluation.statistics.multiplicity import holm
from evaluation.statistics.paired import paired_contrast

RNG = np.random.default_rng(7)
A = RNG.uniform(size=40)
B = np.clip(A + RNG.normal(-0.05, 0.2, size=40), 0, 1)


def test_interval_and_effect_size_match_scipy():
    contrast = paired_contrast(A, B)
    reference = stats.ttest_rel(A, B).confidence_interval(0.95)
    assert contrast.estimate == pytest.approx((A - B).mean(), abs=1e-12)
    assert (contrast.low, contrast.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert contrast.effect_size == pytest.approx(stats.ttest_rel(A, B).statistic / np.sqrt(40), abs=1e-9)


def test_minimum_detectable_effect_has_eighty_percent_power():
    contrast = paired_contrast(A, B)
    error = (A - B).std(ddof=1) / np.sqrt(40)
    reach = stats.t.ppf(0.975, 39)
    power = stats.nct.sf(reach, 39, contrast.minimum_detectable_effect / error)
    assert power == pytest.approx(0.80, abs=0.01)


def test_sign_flips_match_full_enumeration_and_scipy():
    a, b = [0.9, 0.4, 0.7, 0.2, 0.8, 0.55], [0.5, 0.5, 0.1, 0.1, 0.6, 0.5]
    d = np.subtract(a, b)
    sums = [np.dot(signs, d) for signs in itertools.product((1, -1), repeat=6)]
    expected = np.mean(np.abs(sums) >= abs(d.sum()) - 1e-12)
    contrast = paired_contrast(a, b)
    assert contrast.test == "sign_flip_exact"
    assert contrast.p_value == pytest.approx(expected, abs=1e-9)
    reference = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", vectorized=False
    )
    assert contrast.p_value == pytest.approx(reference.pvalue, abs=1e-9)


def test_sampled_flips_agree_with_the_t_test():
    contrast = paired_contrast(A, B, resamples=20_000)
    assert contrast.test == "sign_flip_sampled"
    assert contrast.p_value == pytest.approx(stats.ttest_rel(A, B).pvalue, abs=0.01)


def test_binary_scores_use_mcnemars_exact_test():
    a = [1] * 12 + [0] * 3 + [1] * 20 + [0] * 5
    b = [0] * 12 + [1] * 3 + [1] * 20 + [0] * 5
    contrast = paired_contrast(a, b)
    assert contrast.test == "mcnemar_exact"
    assert contrast.p_value == pytest.approx(stats.binomtest(12, 15).pvalue, abs=1e-9)
    assert (contrast.wins, contrast.losses, contrast.ties) == (12, 3, 25)


@pytest.mark.parametrize("scores", [A, np.round(A), [0.5, 0.5]])
def test_identical_models_do_not_differ(scores):
    contrast = paired_contrast(scores, scores)
    assert (contrast.estimate, contrast.low, contrast.high, contrast.p_value) == (0, 0, 0, 1)
    assert (contrast.effect_size, contrast.minimum_detectable_effect) == (0, 0)


@pytest.mark.parametrize("size", [8, 40])
def test_swapping_the_models_mirrors_and_reordering_units_changes_nothing(size):
    a, b = A[:size], B[:size]
    one, other = paired_contrast(a, b), paired_contrast(b, a)
    assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low), abs=1e-15)
    assert one.p_value == other.p_value
    order = np.random.default_rng(1).permutation(size)
    assert paired_contrast(a[order], b[order]) == one


def test_seed_decides_the_sampled_patterns():
    assert paired_contrast(A, B, seed=3) == paired_contrast(A, B, seed=3)
    assert paired_contrast(A, B, seed=3).p_value != paired_contrast(A, B, seed=4).p_value


def test_clusters_are_averaged_first():
    labels = [index // 2 for index in range(40)]
    contrast = paired_contrast(A, B, clusters=labels)
    reference = paired_contrast(A.reshape(20, 2).mean(axis=1), B.reshape(20, 2).mean(axis=1))
    assert contrast.n == 20
    assert (contrast.low, contrast.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_a_constant_difference_has_no_effect_size():
    contrast = paired_contrast([0.6, 0.7, 0.8], [0.5, 0.6, 0.7])
    assert contrast.p_value == 0.25
    assert paired_contrast([1, 1, 1], [0, 0, 0]).effect_size is None


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "no units"),
        ([1.0], [0.0], "at least two units"),
        ([1.0, 0.5], [0.0], "one length"),
        ([1.0, float("nan")], [0.0, 1.0], "finite"),
    ],
)
def test_unusable_input_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        paired_contrast(a, b)


def test_intervals_cover_and_the_null_is_rejected_as_often_as_promised():
    """600 data sets of 30 correlated pairs with a known difference of 0.1, and 300 without one."""
    generator = np.random.default_rng(11)
    covered = rejected = 0
    for index in range(600):
        base = generator.beta(2, 2, size=30)
        b = base + generator.normal(0, 0.2, size=30)
        contrast = paired_contrast(base + 0.1 + generator.normal(0, 0.2, size=30), b, resamples=1)
        covered += contrast.low <= 0.1 <= contrast.high
        if index < 300:
            rejected += paired_contrast(base, b, resamples=499, seed=index).p_value <= 0.05
    assert 0.925 <= covered / 600 <= 0.975
    assert 0.02 <= rejected / 300 <= 0.085


def test_mean_interval_matches_scipy():
    interval = mean_interval(A)
    reference = stats.t.interval(0.95, 39, loc=A.mean(), scale=stats.sem(A))
    assert (interval.low, interval.high) == pytest.approx(reference, abs=1e-9)
    assert (interval.n, interval.method) == (40, "t")


@pytest.mark.parametrize(("successes", "n"), [(0, 30), (17, 20), (30, 30), (1, 1)])
def test_wilson_matches_scipy(successes, n):
    reference = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (wilson(successes, n).low, wilson(successes, n).high) == pytest.approx(tuple(reference), abs=1e-9)
    assert mean_interval([1.0] * successes + [0.0] * (n - successes)) == wilson(successes, n)


def test_a_single_graded_value_has_a_mean_and_no_interval():
    assert (mean_interval([0.4]).mean, mean_interval([0.4]).low) == (0.4, None)
    with pytest.raises(ValueError):
        mean_interval([])
    with pytest.raises(ValueError):
        mean_interval([0.2, float("nan")])


def test_holm_worked_by_hand():
    """0.01 x 4, then max(0.04, 0.03 x 2), 0.02 x 3 = 0.06 before it, and 0.5 x 1."""
    assert holm([0.01, 0.5, 0.03, 0.02]) == pytest.approx((0.04, 0.5, 0.06, 0.06), abs=1e-12)
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()
    with pytest.raises(ValueError):
        holm([1.2])
