"""Two models on the same prompts: reference values, symmetry, missing scores."""

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import ttost_paired

from evaluation.statistics.contrast import Question, adjust, contrast
from evaluation.statistics.missing import worst_case_bounds
from evaluation.statistics.power import detectable_d
from runs.errors import UserError

RNG = np.random.default_rng(7)
A = RNG.uniform(size=40)
B = np.clip(A + RNG.normal(-0.05, 0.2, size=40), 0, 1)
MEAN = Question("stage3", "stage2", "harm_prevention")
RATE = MEAN._replace(kind="rate")
WON = [1.0] * 12 + [0.0] * 3 + [1.0] * 20 + [0.0] * 5
LOST = [0.0] * 12 + [1.0] * 3 + [1.0] * 20 + [0.0] * 5


def made(a=A, b=B, question=MEAN, **options):
    return contrast(question, list(a), list(b), **options)


def sizes(one):
    return {effect.name: effect.value for effect in (one.effect_size, *one.other_effect_sizes)}


def test_interval_and_effect_size_are_scipys():
    one, test = made(), stats.ttest_rel(A, B)
    reference = test.confidence_interval(0.95)
    assert one.estimate == pytest.approx((A - B).mean(), abs=1e-12)
    assert one.interval == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert one.half_width == pytest.approx((reference.high - reference.low) / 2, abs=1e-9)
    assert one.standard_error == pytest.approx(stats.sem(A - B), abs=1e-9)
    assert (one.effect_size.name, one.effect_size.value) == (
        "cohen_d_z",
        pytest.approx(test.statistic / np.sqrt(40), abs=1e-9),
    )
    assert sizes(one)["cliff_delta"] == pytest.approx(np.sign(A - B).mean(), abs=1e-12)


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.08, 0.12, 0.2])
def test_the_equivalence_interval_decides_as_statsmodels_tost(margin):
    one = made()
    inside = -margin < one.equivalence_interval[0] and one.equivalence_interval[1] < margin
    assert inside == (ttost_paired(A, B, -margin, margin)[0] < 0.05)


def test_equivalence_interval_is_scipys_at_ninety_percent():
    reference = stats.ttest_rel(A, B).confidence_interval(0.90)
    assert made().equivalence_interval == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_sign_flips_match_full_enumeration_and_scipy():
    a, b = [0.9, 0.4, 0.7, 0.2, 0.8, 0.55], [0.5, 0.5, 0.1, 0.1, 0.6, 0.5]
    d = np.subtract(a, b)
    sums = [np.dot(signs, d) for signs in itertools.product((1, -1), repeat=6)]
    one = made(a, b)
    assert one.p_method == "sign_flip_exact"
    assert one.p_value == pytest.approx(np.mean(np.abs(sums) >= abs(d.sum()) - 1e-12), abs=1e-9)
    reference = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", vectorized=False
    )
    assert one.p_value == pytest.approx(reference.pvalue, abs=1e-9)


def test_sampled_flips_agree_with_the_t_test():
    one = made(resamples=20_000)
    assert one.p_method == "sign_flip_sampled"
    assert one.p_value == pytest.approx(stats.ttest_rel(A, B).pvalue, abs=0.01)


def test_rates_use_mcnemars_exact_test_and_tangos_interval():
    one = made(WON, LOST, RATE)
    assert (one.p_method, one.interval_method, one.discordant) == ("mcnemar_exact", "tango", (12, 3))
    assert one.p_value == pytest.approx(mcnemar([[20, 12], [3, 5]], exact=True).pvalue, abs=1e-9)
    assert one.effect_size.name == "risk_difference"
    assert sizes(one) == pytest.approx(
        {
            "risk_difference": 9 / 40,
            "cliff_delta": 9 / 40,
            "odds_ratio": 12.5 / 3.5,
            "cohen_d_z": stats.ttest_rel(WON, LOST).statistic / np.sqrt(40),
        },
        abs=1e-9,
    )


def test_clusters_of_one_size_are_the_t_test_of_their_means():
    labels = [index // 2 for index in range(40)]
    one = made(clusters=labels)
    reference = made(A.reshape(20, 2).mean(axis=1), B.reshape(20, 2).mean(axis=1))
    assert (one.n_pairs, one.n_clusters, one.interval_method) == (40, 20, "cluster_t")
    assert one.interval == pytest.approx(reference.interval, abs=1e-12)
    assert one.p_value == pytest.approx(reference.p_value, abs=1e-12)
    assert one.minimum_detectable_effect == pytest.approx(reference.minimum_detectable_effect, abs=1e-12)


def test_a_rate_with_twins_is_flipped_by_pair():
    one = made(WON, LOST, RATE, clusters=[index // 2 for index in range(40)])
    assert one.p_method.startswith("sign_flip")
    assert one.interval_method == "cluster_t"


@pytest.mark.parametrize("question", [MEAN, RATE])
def test_identical_models_give_p_1_and_no_effect(question):
    scores = np.round(A) if question is RATE else A
    one = made(scores, scores, question)
    assert (one.estimate, one.p_value, one.worst_case_bounds) == (0.0, 1.0, (0.0, 0.0))
    assert {value for value in sizes(one).values() if value != 1} == {0.0}
    low, high = one.interval
    assert low == pytest.approx(-high, abs=1e-12)
    # 40 prompts without a difference leave some open: the rule of three says about 3 / 40.
    assert 0.05 < high < 0.15
    assert one.minimum_detectable_effect is None


def test_no_spread_is_clopper_and_pearsons_bound():
    one = made([0.6] * 30, [0.5] * 30)
    share = stats.binomtest(0, 30).proportion_ci(0.95, method="exact").high
    value = 0.6 - 0.5
    assert one.interval_method == "no_spread"
    assert one.interval == pytest.approx((value - share * (1 + value), value + share * (1 - value)), abs=1e-9)
    assert one.effect_size.value is None


@pytest.mark.parametrize("size", [8, 40])
@pytest.mark.parametrize("clusters", [None, 3])
def test_swapping_the_models_mirrors_everything(size, clusters):
    labels = None if clusters is None else [index // clusters for index in range(size)]
    one, other = made(A[:size], B[:size], clusters=labels), made(B[:size], A[:size], clusters=labels)
    assert one.estimate == -other.estimate
    for name in ("interval", "bootstrap_interval", "equivalence_interval", "worst_case_bounds"):
        low, high = getattr(other, name)
        assert getattr(one, name) == (-high, -low), name
    assert one.p_value == other.p_value
    assert one.minimum_detectable_effect == other.minimum_detectable_effect


def test_ties_in_size_mirror_too():
    a, b = [0.5, 0.6, 0.2, 0.2, 0.9], [0.6, 0.5, 0.3, 0.2, 0.9]
    one, other = made(a, b), made(b, a)
    assert one.bootstrap_interval == tuple(-bound for bound in reversed(other.bootstrap_interval))


@pytest.mark.parametrize("question", [MEAN, RATE])
@pytest.mark.parametrize("clusters", [False, True])
def test_the_order_of_prompts_changes_nothing(question, clusters):
    a, b = (np.round(A), np.round(B)) if question is RATE else (A, B)
    labels = [index // 3 for index in range(40)] if clusters else None
    order = np.random.default_rng(1).permutation(40)
    shuffled = [labels[index] for index in order] if labels else None
    first = [None if index % 11 == 0 else value for index, value in enumerate(a)]
    one = contrast(question, first, list(b), clusters=labels)
    assert contrast(question, [first[index] for index in order], list(b[order]), clusters=shuffled) == one


def test_the_seed_decides_what_is_sampled():
    assert made(seed=3) == made(seed=3)
    assert made(seed=3).p_value != made(seed=4).p_value
    assert made(seed=3).bootstrap_interval != made(seed=4).bootstrap_interval
    assert made(bootstrap=False).bootstrap_interval is None


def test_the_bootstrap_interval_is_near_the_t_interval():
    one = made()
    assert one.bootstrap_interval == pytest.approx(one.interval, abs=0.01)


def test_what_is_missing_leaves_the_pairs_and_widens_the_bounds():
    a, b = [0.8, None, 0.6, 0.4], [0.5, 0.5, None, 0.4]
    one = contrast(MEAN, a, b)
    assert (one.n_pairs, one.n_missing) == (2, 2)
    assert one.estimate == pytest.approx(0.15)
    # Missing treatment at 0 and 1 against 0.5; missing control at 1 and 0 against 0.6.
    assert one.worst_case_bounds == pytest.approx(((0.3 - 0.5 - 0.4) / 4, (0.3 + 0.5 + 0.6) / 4))
    assert not one.identified
    assert worst_case_bounds([None], [None]) == (-1.0, 1.0)


def test_all_missing_is_not_measured():
    one = contrast(RATE, [None, 1.0], [1.0, None])
    assert (one.n_pairs, one.n_missing, one.estimate, one.interval, one.p_value) == (0, 2, None, None, None)
    assert one.worst_case_bounds == (-0.5, 0.5)
    nothing = contrast(MEAN, [], [])
    assert (nothing.n_pairs, nothing.worst_case_bounds, nothing.identified) == (0, None, False)


def test_one_pair_of_twins_has_an_estimate_and_no_interval():
    one = made([0.5, 0.7], [0.4, 0.4], clusters=["twins", "twins"])
    assert (one.n_pairs, one.n_clusters, one.interval) == (2, 1, None)
    assert one.estimate == pytest.approx(0.2)


def test_scores_that_are_no_numbers_are_refused_by_row_and_model():
    rows = ["prompt-a", "prompt-b", "prompt-c"]
    with pytest.raises(UserError, match="harm_prevention of stage2: the value of row prompt-b is nan"):
        contrast(MEAN, [0.5, 0.5, 0.5], [0.5, float("nan"), None], rows=rows)
    with pytest.raises(UserError, match=r"harm_prevention of stage3: the value of row prompt-c is 1\.5, outside"):
        contrast(MEAN, [None, 0.5, 1.5], [0.5, 0.5, None], rows=rows)
    with pytest.raises(UserError, match=r"row 1 is 0\.5, neither 0 nor 1"):
        contrast(RATE, [1.0, 0.5], [0.0, 0.0])


@pytest.mark.parametrize("options", [{"clusters": ["a"]}, {"rows": ["a"]}])
def test_lists_of_different_lengths_are_refused(options):
    with pytest.raises(ValueError, match="2 treatment scores and 1"):
        contrast(MEAN, [0.1, 0.2], [0.1, 0.3], **options)
    with pytest.raises(ValueError, match="1 control scores"):
        contrast(MEAN, [0.1, 0.2], [0.1])


def test_a_family_is_adjusted_and_its_detectable_effect_with_it():
    family = [made(), made(B, A), made(A, A), contrast(MEAN, [None], [0.5])]
    adjusted = adjust(family, "primary")
    assert {(one.family, one.family_size, one.adjustment) for one in adjusted} == {("primary", 4, "holm")}
    assert adjusted[0].p_adjusted == pytest.approx(min(1.0, 4 * family[0].p_value))
    assert adjusted[3].p_adjusted is None
    spread = family[0].standard_error * np.sqrt(40)
    assert adjusted[0].minimum_detectable_effect == pytest.approx(detectable_d(40, alpha=0.05 / 4) * spread, abs=1e-9)
    leads = adjust(family, "by category", method="benjamini_hochberg")
    assert leads[0].minimum_detectable_effect == family[0].minimum_detectable_effect
    with pytest.raises(ValueError, match="unknown adjustment"):
        adjust(family, "primary", method="bonferroni")


def test_a_declared_spread_makes_the_detectable_effect_before_the_run():
    assumed = made(question=MEAN._replace(assumed_sd=0.5))
    assert assumed.minimum_detectable_effect == pytest.approx(0.5 * detectable_d(40), abs=1e-12)
    identical = made(A, A, MEAN._replace(assumed_sd=0.5))
    assert identical.minimum_detectable_effect == assumed.minimum_detectable_effect
