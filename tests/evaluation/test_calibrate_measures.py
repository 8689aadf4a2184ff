"""The card's arithmetic against scikit-learn and SciPy, and the fit against its own promises."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from evaluation.calibrate import measures
from evaluation.calibrate.solve import fit_linear

GENERATOR = np.random.default_rng(1)
LABELS = GENERATOR.integers(0, 2, 300).astype(float)
SCORES = np.round(GENERATOR.normal(LABELS, 1.5), 1)
ONES = np.ones((1, 300))


def test_auc_with_ties_and_weights_is_scikit_learns():
    assert measures.auc_of(SCORES, LABELS)(ONES)[0] == pytest.approx(roc_auc_score(LABELS, SCORES), abs=1e-12)
    weights = GENERATOR.integers(0, 4, 300).astype(float)
    found = measures.auc_of(SCORES, LABELS)(weights[None])[0]
    assert found == pytest.approx(roc_auc_score(LABELS, SCORES, sample_weight=weights), abs=1e-12)


def test_one_class_has_no_auc():
    assert np.isnan(measures.auc_of(SCORES, np.ones(300))(ONES)[0])


def test_ratios_are_precision_recall_and_f1():
    guesses = (SCORES > 0.5).astype(float)
    hits = LABELS * guesses
    assert measures.ratio_of(hits, guesses)(ONES)[0] == pytest.approx(precision_score(LABELS, guesses))
    assert measures.ratio_of(hits, LABELS)(ONES)[0] == pytest.approx(recall_score(LABELS, guesses))
    assert measures.ratio_of(2 * hits, LABELS + guesses)(ONES)[0] == pytest.approx(f1_score(LABELS, guesses))


def test_wins_count_ties_as_a_half():
    assert measures.wins(np.array([1.0, 2.0, 0.0]), np.array([0.0, 2.0, 1.0])).tolist() == [1.0, 0.5, 0.0]


def test_calibration():
    error, brier = measures.calibration(np.array([0.95, 0.95, 0.05, 0.05]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert (error, brier) == (pytest.approx(0.05), pytest.approx(0.0025))
    assert measures.calibration(np.array([1.0, 1.0]), np.array([0.0, 0.0])) == (1.0, 1.0)


def test_rank_correlation():
    found = measures.rank_correlation(SCORES, LABELS)
    assert found == pytest.approx(stats.spearmanr(SCORES, LABELS).statistic)
    assert measures.rank_correlation(np.ones(5), np.arange(5.0)) is None


def test_the_bootstrap_is_seeded_and_draws_clusters_whole():
    values = np.repeat(GENERATOR.normal(size=30), 10)
    alone = [str(index) for index in range(300)]
    together = [str(index // 10) for index in range(300)]
    first = measures.bootstrap(measures.mean_of(values), together)
    assert first == measures.bootstrap(measures.mean_of(values), together)
    narrow = measures.bootstrap(measures.mean_of(values), alone)
    assert (first.high - first.low) > 2 * (narrow.high - narrow.low)
    assert first.value == pytest.approx(values.mean())
    error = np.std(values[::10], ddof=1) / np.sqrt(30)
    assert first.high - first.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_the_fit_is_scikit_learns_without_constraints():
    rows = GENERATOR.normal(size=(400, 3))
    labels = (rows @ [1.0, -2.0, 0.0] + 0.5 + GENERATOR.logistic(size=400) > 0).astype(float)
    scale = rows.std(axis=0)
    coefficients, intercept = fit_linear(rows, labels, penalty=0.01, intercept=True)
    reference = LogisticRegression(C=1 / (0.01 * 400), tol=1e-10, max_iter=5000).fit(rows / scale, labels)
    assert coefficients * scale == pytest.approx(reference.coef_[0], abs=1e-4)
    assert intercept == pytest.approx(reference.intercept_[0], abs=1e-4)


def test_signs_hold_and_length_is_left_out():
    rows = GENERATOR.normal(size=(500, 4))
    labels = (rows @ [1.0, -1.0, 1.0, 0.5] + GENERATOR.logistic(size=500) > 0).astype(float)
    signed, _ = fit_linear(rows, labels, penalty=1e-3, intercept=False, signs=[1, 1, -1, 0])
    assert signed[0] > 0
    assert signed[1] == 0
    assert signed[2] == 0
    direction = np.array([1.0, 0.5, 0.0, 2.0])
    neutral, _ = fit_linear(rows, labels, penalty=1e-3, intercept=False, neutral=direction, signs=[1, 0, 0, 0])
    assert neutral @ direction == pytest.approx(0, abs=1e-8)
    assert neutral[0] >= 0


def test_weights_of_rows_count_as_repetitions():
    rows = GENERATOR.normal(size=(60, 2))
    labels = GENERATOR.integers(0, 2, 60).astype(float)
    twice = np.where(np.arange(60) < 30, 2.0, 1.0)
    weighted, _ = fit_linear(rows / rows.std(axis=0), labels, penalty=0.0, intercept=False, weights=twice)
    repeated = np.repeat(np.arange(60), twice.astype(int))
    plain, _ = fit_linear((rows / rows.std(axis=0))[repeated], labels[repeated], penalty=0.0, intercept=False)
    assert weighted == pytest.approx(plain, abs=1e-3)
