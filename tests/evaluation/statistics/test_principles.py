"""Principles: measured, or not, and why."""

import pytest

from evaluation.statistics.mean import mean_interval
from evaluation.statistics.power import detectable_d
from evaluation.statistics.principles import LEAST_UNITS, principle_index, principle_scores

ORDER = ["harm-01", "harm-02", "help-01", "priv-01"]
PRINCIPLES = [("harm-01",)] * 12 + [("harm-02", "harm-01")] * 4 + [("priv-01",)]
SCORES = [0.1 * (k % 7) for k in range(16)] + [None]


def test_the_bound_is_one_standard_deviation_at_eighty_percent():
    assert detectable_d(LEAST_UNITS) <= 1 < detectable_d(LEAST_UNITS - 1)


def test_a_principle_is_measured_or_says_why_not():
    made = principle_scores("stage3", "harm_prevention", SCORES, PRINCIPLES, order=ORDER)
    assert [one.principle for one in made] == ORDER
    assert [one.status for one in made] == ["measured", "not_measured", "not_measured", "not_measured"]
    reference = mean_interval(SCORES[:16])
    assert (made[0].mean, made[0].interval) == (
        pytest.approx(reference.mean),
        pytest.approx((reference.low, reference.high)),
    )
    assert "4 independent prompts; 10 are the fewest" in made[1].why
    assert made[2].why == "no prompt exercises it"
    assert made[3].why == "none of its 1 prompts has a score"
    assert all(one.mean is None and one.interval is None for one in made[1:])


def test_twins_count_once():
    labels = [k // 2 for k in range(17)]
    made = principle_scores("stage3", "m", SCORES, PRINCIPLES, order=ORDER, clusters=labels)
    assert (made[0].n_scored, made[0].n_clusters, made[0].status) == (16, 8, "not_measured")


def test_coverage_names_every_principle_and_what_the_constitution_lacks():
    index = principle_index([], [*PRINCIPLES, ("old-09", "old-09")], order=ORDER)
    assert index.coverage == {"harm-01": 16, "harm-02": 4, "help-01": 0, "priv-01": 1}
    assert index.unknown == {"old-09": 1}
