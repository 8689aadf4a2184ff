"""Corrected rates against hand-worked cases and simulation: coverage, and what labels buy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics.labelled import corrected_rate, rogan_gladen
from runs.errors import UserError


def simulated(generator, *, rate, sensitivity, specificity, n, labelled):
    truth = generator.random(n) < rate
    verdicts = np.where(truth, generator.random(n) < sensitivity, generator.random(n) >= specificity).astype(float)
    labels: list[float | None] = [None] * n
    for index in generator.choice(n, labelled, replace=False):
        labels[index] = float(truth[index])
    return truth, verdicts, labels


def test_a_case_worked_by_hand():
    """100 answers, 40 detected; 10 labels: 4 true positives, 1 missed, 1 false alarm, 4 true negatives."""
    verdicts = [1.0] * 40 + [0.0] * 60
    labels: list[float | None] = [None] * 100
    labels[:5] = [1.0, 1.0, 1.0, 1.0, 0.0]
    labels[40:45] = [1.0, 0.0, 0.0, 0.0, 0.0]
    found = corrected_rate(verdicts, labels, least=10)
    # cov(y, f) = 0.4 - 0.5 * 0.5 = 0.15; var(f) = 0.25; trust 0.6; 0.5 + 0.6 (0.4 - 0.5) = 0.44
    assert found.trust == pytest.approx(0.6)
    assert found.estimate == pytest.approx(0.44)
    assert (found.raw, found.labels_only) == (0.4, 0.5)
    assert (found.sensitivity, found.specificity) == (0.8, 0.8)
    # the table with half a case more: m = 12, cov = 4.5/12 - 0.25 = 0.125, trust 0.5, share 41/102
    variance = (0.25 - 0.125 + 0.0625) / 11 + (0.125 - 0.0625) / 100
    centre = 0.5 + 0.5 * (41 / 102 - 0.5)
    half = stats.t.ppf(0.975, 9) * math.sqrt(variance)
    assert found.interval == pytest.approx((centre - half, centre + half))


def test_all_labelled_is_the_labels_rate_and_a_useless_detector_is_left_out():
    generator = np.random.default_rng(3)
    truth, verdicts, labels = simulated(generator, rate=0.3, sensitivity=0.9, specificity=0.9, n=80, labelled=80)
    assert corrected_rate(verdicts, labels).estimate == pytest.approx(truth.mean())
    half: list[float | None] = [1.0, 0.0] * 30 + [None] * 40
    assert corrected_rate([1.0, 1.0, 0.0, 0.0] * 25, half).trust == 0.0
    assert corrected_rate([1.0] * 100, half).trust == 0.0


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.6])
@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.95, 0.97), (0.8, 0.95), (0.2, 0.99), (0.6, 0.6)])
def test_intervals_cover_the_truth_with_fifty_labels(rate, sensitivity, specificity):
    generator = np.random.default_rng(int(1000 * rate + 10 * sensitivity))
    draws = 600
    covered, error, error_of_labels = 0, 0.0, 0.0
    for _ in range(draws):
        _, verdicts, labels = simulated(
            generator, rate=rate, sensitivity=sensitivity, specificity=specificity, n=250, labelled=50
        )
        found = corrected_rate(verdicts, labels)
        covered += found.interval[0] <= rate <= found.interval[1]
        error += (found.estimate - rate) ** 2
        error_of_labels += (found.labels_only - rate) ** 2
    assert covered / draws >= 0.93
    if sensitivity >= 0.8 and rate >= 0.3:  # a good detector makes fifty labels worth more
        assert math.sqrt(error / error_of_labels) < 0.85
    assert math.sqrt(error / error_of_labels) < 1.05  # a bad one costs next to nothing


def test_answers_that_share_prompts_widen_the_interval_and_coverage_holds():
    generator = np.random.default_rng(5)
    covered, draws = 0, 400
    for _ in range(draws):
        truth = np.repeat(generator.random(100) < 0.4, 3)  # three alike answers a prompt
        verdicts = np.where(truth, generator.random(300) < 0.9, generator.random(300) < 0.1).astype(float)
        chosen = generator.choice(100, 20, replace=False)
        labels = [float(truth[index]) if index // 3 in chosen else None for index in range(300)]
        found = corrected_rate(verdicts, labels, clusters=[index // 3 for index in range(300)])
        assert found.design_effect >= 1
        covered += found.interval[0] <= 0.4 <= found.interval[1]
    assert covered / draws >= 0.91


def test_how_many_labels_a_width_takes():
    generator = np.random.default_rng(1)
    _, verdicts, labels = simulated(generator, rate=0.3, sensitivity=0.9, specificity=0.9, n=2000, labelled=60)
    found = corrected_rate(verdicts, labels)
    needed = found.labels_for(0.05)
    assert 60 < needed < 400
    assert found.labels_for(0.0001) == 2000


def test_fewer_than_fifty_labels_give_no_rate():
    with pytest.raises(UserError, match="12 of 50 labels"):
        corrected_rate([1.0] * 100, [1.0] * 12 + [None] * 88)
    with pytest.raises(UserError, match="outside of 0 to 1"):
        corrected_rate([2.0] * 100, [1.0] * 60 + [None] * 40)


def test_rogan_gladen_by_hand_and_at_a_perfect_detector():
    # 0.3 detected, se 0.8, sp 0.9: (0.3 + 0.9 - 1) / 0.7
    estimate, (low, high) = rogan_gladen((30, 100), (40, 50), (45, 50))
    assert estimate == pytest.approx(0.2 / 0.7)
    assert low < estimate < high
    estimate, (low, high) = rogan_gladen((300, 1000), (10**6, 10**6), (10**6, 10**6))
    assert estimate == pytest.approx(0.3)
    assert (low, high) == pytest.approx((0.2724, 0.3291), abs=2e-3)  # the plain interval of 300 of 1000
    with pytest.raises(UserError, match="no more among the positives"):
        rogan_gladen((30, 100), (10, 50), (40, 50))


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.8])
def test_rogan_gladens_interval_covers_with_error_rates_of_its_own(rate):
    generator = np.random.default_rng(7)
    draws, covered = 2000, 0
    for _ in range(draws):
        found = generator.binomial(300, rate * 0.85 + (1 - rate) * 0.1)
        counts = generator.binomial(60, 0.85), generator.binomial(60, 0.9)
        _, (low, high) = rogan_gladen((found, 300), (counts[0], 60), (counts[1], 60))
        covered += low <= rate <= high
    assert 0.93 <= covered / draws <= 0.985
