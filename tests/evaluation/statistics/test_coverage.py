"""Intervals hold what they promise: simulations with a known truth."""

import numpy as np
import pytest

from evaluation.statistics.clusters import bootstrap_interval, clustered
from evaluation.statistics.contrast import Question, contrast
from evaluation.statistics.mean import mean_interval
from evaluation.statistics.permutation import mcnemar_exact, sign_flip
from evaluation.statistics.plane import hotelling_ellipse, outside
from evaluation.statistics.proportions import tango

SEEDS = 2_000
BAND = (0.935, 0.965)


def covered(intervals, truth):
    array = np.array(intervals)
    return float(np.mean((array[:, 0] <= truth) & (truth <= array[:, 1])))


def graded(generator, n):
    """Differences of bounded, correlated scores: shape (SEEDS, n); their mean is 0.1 by construction."""
    shared = generator.uniform(0.2, 0.7, size=(SEEDS, n))
    return (
        0.1
        + generator.uniform(-0.2, 0.2, size=(SEEDS, n))
        - 0.4 * (generator.beta(2, 5, size=(SEEDS, n)) - 2 / 7) * (0.5 + shared) / (0.5 + 0.45)
    )


def grouped(generator):
    """40 pairs and 20 single prompts with a shared part in each pair; shape (SEEDS, 100) and labels; mean 0.1."""
    labels = np.concatenate([np.repeat(np.arange(40), 2), np.arange(40, 60)])
    shared = generator.normal(0, 0.2, size=(SEEDS, 60))[:, labels]
    return 0.1 + shared + generator.normal(0, 0.1, size=(SEEDS, 100)), labels.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("n", [25, 80])
def test_t_and_bootstrap_intervals_cover(n):
    rows = graded(np.random.default_rng(n), n)
    units = [clustered(row) for row in rows]
    assert BAND[0] <= covered([one.t_interval(0.95) for one in units], 0.1) <= BAND[1]
    drawn = [bootstrap_interval(one, confidence=0.95, resamples=500, seed=seed) for seed, one in enumerate(units)]
    # 500 draws place a 2.5 % quantile a little less exactly than the 10,000 of a run.
    assert BAND[0] - 0.005 <= covered(drawn, 0.1) <= BAND[1]


@pytest.mark.slow
def test_clustered_intervals_cover_and_unclustered_ones_do_not():
    rows, labels = grouped(np.random.default_rng(2))
    units = [clustered(row, labels) for row in rows]
    assert BAND[0] <= covered([one.t_interval(0.95) for one in units], 0.1) <= BAND[1]
    drawn = [bootstrap_interval(one, confidence=0.95, resamples=500, seed=seed) for seed, one in enumerate(units)]
    assert BAND[0] - 0.005 <= covered(drawn, 0.1) <= BAND[1]
    assert covered([clustered(row).t_interval(0.95) for row in rows], 0.1) < 0.92


@pytest.mark.slow
def test_the_contrast_record_covers_with_clusters_from_scores_to_interval():
    generator = np.random.default_rng(4)
    rows, labels = grouped(generator)
    question = Question("b", "a", "metric")
    intervals = []
    for row in rows:
        control = generator.uniform(0.35, 0.45, size=len(row))
        treatment = np.clip(control + 0.3 * row, 0, 1)
        one = contrast(question, treatment.tolist(), control.tolist(), clusters=labels, resamples=1, bootstrap=False)
        intervals.append(one.interval)
    assert BAND[0] <= covered(intervals, 0.03) <= BAND[1]


@pytest.mark.slow
@pytest.mark.parametrize("cells", [(0.15, 0.05), (0.3, 0.2)])
def test_tangos_interval_covers(cells):
    b, c = cells
    counts = np.random.default_rng(9).multinomial(80, [b, c, 1 - b - c], size=SEEDS)
    assert BAND[0] <= covered([tango(int(x), int(y), 80) for x, y, _ in counts], b - c) <= BAND[1]


def test_wilson_covers():
    counts = np.random.default_rng(8).binomial(60, 0.3, size=SEEDS)
    made = [mean_interval([1.0] * k + [0.0] * (60 - k)) for k in range(61)]
    assert BAND[0] <= covered([(made[k].low, made[k].high) for k in counts], 0.3) <= BAND[1]


@pytest.mark.slow
def test_joint_ellipses_cover():
    generator = np.random.default_rng(6)
    root = np.array([[0.3, 0.0], [0.15, 0.2]])
    samples = np.array([0.4, 0.1]) + generator.normal(size=(SEEDS, 30, 2)) @ root.T
    inside = 0
    for sample in samples:
        covariance = np.cov(sample, rowvar=False) / 30
        inside += not outside(np.array([0.4, 0.1]) - sample.mean(axis=0), covariance, 30)
    assert BAND[0] <= inside / SEEDS <= BAND[1]


@pytest.mark.slow
def test_the_null_is_rejected_as_often_as_promised():
    """Sign flips over exchangeable differences: p is uniform; McNemar's discrete p is at most as small."""
    generator = np.random.default_rng(11)
    p_values = np.array(
        [sign_flip(row, resamples=199, seed=seed)[0] for seed, row in enumerate(generator.normal(size=(SEEDS, 30)))]
    )
    for level in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(p_values <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / SEEDS))
    exact = [mcnemar_exact(int(k), 20 - int(k)) for k in generator.binomial(20, 0.5, size=SEEDS)]
    assert np.mean(np.array(exact) <= 0.05) <= 0.06


def test_the_ellipse_of_a_known_covariance():
    ellipse = hotelling_ellipse(np.array([0.5, 0.2]), np.diag([0.01, 0.04]), 10_000_000)
    # The radius tends to the chi-square quantile with two degrees of freedom.
    assert ellipse.semi_axes == pytest.approx((np.sqrt(5.991465 * 0.04), np.sqrt(5.991465 * 0.01)), abs=1e-6)
    assert abs(ellipse.angle) == pytest.approx(np.pi / 2)
    with pytest.raises(ValueError, match="three independent pairs"):
        hotelling_ellipse(np.zeros(2), np.eye(2), 2)
