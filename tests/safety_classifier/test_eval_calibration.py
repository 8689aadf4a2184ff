from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from runs.errors import UsageError, UserError
from safety_classifier.calibration import (
    Calibration,
    bin_index,
    calibration_report,
    expected_calibration_error,
    fit_calibration,
    identity,
    reliability,
)
from safety_classifier.labels import Head, Labels
from safety_classifier.thresholds import OperatingPoints, Policy, choose_threshold, choose_thresholds

TWO = Labels(
    heads=(
        Head(name="rude", kind="category", definition="Rude."),
        Head(name="rare", kind="category", definition="Rare."),
        Head(name="better", kind="preference", definition="Better."),
    )
)


def sample(n: int = 20_000, slope: float = 2.5, offset: float = -1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too flat and shifted, with their labels; the second head is known in a third of the rows."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1.5, (n, 3))
    y = (rng.random((n, 3)) < expit(slope * z + offset)).astype(float)
    y[::3, 1] = np.nan
    y[1::3, 1] = np.nan
    y[:, 2] = np.nan
    return z, y


def test_ece_by_hand():
    y = np.array([0, 0, 1, 1, 1, 0, np.nan])
    p = np.array([0.1, 0.2, 0.2, 0.7, 0.9, 0.8, 0.5])
    # Two bins of equal width: {.1 .2 .2} with one positive and {.7 .9 .8} with two.
    expected = (abs(1 - 0.5) + abs(2 - 2.4)) / 6
    assert expected_calibration_error(y, p, bins=2, binning="width") == pytest.approx(expected)
    # The median cuts at the same place here.
    assert expected_calibration_error(y, p, bins=2, binning="mass") == pytest.approx(expected)


def test_bins_of_equal_mass_hold_ties_together_and_equally_many_rows():
    p = np.linspace(0, 1, 150)
    counts = np.bincount(bin_index(p, bins=15))
    assert counts.tolist() == [10] * 15
    assert len(set(bin_index(np.repeat([0.1, 0.9], 50), bins=15))) == 2
    assert bin_index(np.array([0.0, 1.0]), bins=15, binning="width").tolist() == [0, 14]


def test_reliability_bins_add_up():
    z, y = sample(500)
    p = expit(z[:, 0])
    bins = reliability(y[:, 0], p)
    assert sum(one.count for one in bins) == 500
    total = sum(one.count * abs(one.confidence - one.frequency) for one in bins) / 500
    assert total == pytest.approx(expected_calibration_error(y[:, 0], p))


def test_vector_scaling_finds_slope_and_offset_under_the_mask_and_lowers_the_error():
    z, y = sample()
    found = fit_calibration(TWO, z, y, method="vector")
    assert found.fitted == ("rude", "rare")
    assert found.scale[:2] == pytest.approx((2.5, 2.5), rel=0.06)
    assert found.bias[:2] == pytest.approx((-1.0, -1.0), abs=0.08)
    assert (found.scale[2], found.bias[2], found.raw) == (1.0, 0.0, ("better",))
    report = calibration_report(TWO, found, z, y)
    assert report["rude"].ece_mass[1] < 0.01 < report["rude"].ece_mass[0]
    assert report["rude"].brier[1] < report["rude"].brier[0]
    assert report["rare"].labelled == int((~np.isnan(y[:, 1])).sum())
    assert "better" not in report


def test_vector_scaling_equals_logistic_regression_on_smoothed_targets():
    z, y = sample(800)
    found = fit_calibration(TWO, z, y)
    positives, n = y[:, 0].sum(), len(y)
    high, low = (positives + 1) / (positives + 2), 1 / (n - positives + 2)
    target = np.where(y[:, 0] == 1, high, low)
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000)
    model.fit(np.r_[z[:, :1], z[:, :1]], np.repeat([1, 0], n), sample_weight=np.r_[target, 1 - target])
    assert found.scale[0] == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert found.bias[0] == pytest.approx(model.intercept_[0], rel=1e-3)


def test_temperature_keeps_the_sign_of_the_logit():
    z, y = sample()
    found = fit_calibration(TWO, z, y, method="temperature")
    assert found.bias == (0.0, 0.0, 0.0)
    assert ((found.apply(z)[:, 0] >= 0.5) == (z[:, 0] >= 0)).all()


def test_separated_classes_and_rare_heads_stay_finite():
    z = np.array([[-1.0, 0.0, 0.0]] * 30 + [[1.0, 0.0, 0.0]] * 30)
    y = np.full((60, 3), np.nan)
    y[:, 0] = np.repeat([0, 1], 30)
    y[:3, 1] = [0, 1, 0]
    found = fit_calibration(TWO, z, y)
    assert np.isfinite(found.scale).all()
    assert found.fitted == ("rude",)
    assert found.scale[1] == 1.0


def test_apply_and_invert_are_inverse_and_preferences_stay_raw():
    z, y = sample(2000)
    found = fit_calibration(TWO, z, y)
    p = found.apply(z)
    assert p.dtype == np.float32
    assert np.abs(found.invert(p) - z).max() < 1e-3
    assert (p[:, 2] == z[:, 2].astype(np.float32)).all()
    assert identity(TWO).apply(z)[:, 0] == pytest.approx(expit(z[:, 0]), abs=1e-6)
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_faults_of_calibration():
    z, y = sample(100)
    with pytest.raises(UsageError, match="do not fit 3 heads"):
        fit_calibration(TWO, z[:, :2], y[:, :2])
    z[0, 0] = np.nan
    with pytest.raises(UsageError, match="'rude' has logits that are not finite"):
        fit_calibration(TWO, z, y)
    with pytest.raises(UsageError, match="3 heads"):
        identity(TWO).apply(z[:, :1])
    with pytest.raises(ValidationError, match="ranking"):
        Calibration(method="vector", heads=("a",), scale=(-1.0,), bias=(0.0,))


Y = np.array([0, 0, 0, 1, 0, 1, 1, 0, 1, 1], float)
P = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


@pytest.mark.parametrize(
    ("policy", "threshold"),
    [
        (Policy(), 0.25),  # F1 5/6: all 5 positives, 2 false alarms
        (Policy(aim="precision", value=1.0), 0.75),
        (Policy(aim="precision", value=0.8), 0.45),
        (Policy(aim="recall", value=1.0), 0.25),
        (Policy(aim="recall", value=0.4), 0.75),
        (Policy(aim="fpr", value=0.2), 0.45),
        (Policy(aim="fpr", value=0.0), 0.75),
    ],
)
def test_thresholds_by_hand(policy, threshold):
    found = choose_threshold(Y, P, policy=policy)
    assert found.threshold == pytest.approx(threshold)
    flagged = np.greater_equal(P, found.threshold)
    assert found.recall == pytest.approx(Y[flagged].sum() / 5)
    assert found.precision == pytest.approx(Y[flagged].mean())
    assert found.fpr == pytest.approx((1 - Y[flagged]).sum() / 5)
    assert found.low <= found.threshold <= found.high


def test_band_leaves_no_more_error_outside_than_allowed():
    rng = np.random.default_rng(1)
    y = (rng.random(5000) < 0.2).astype(float)
    p = expit(rng.normal(3 * y - 2, 1.2))
    found = choose_threshold(y, p, policy=Policy(), band_error=0.02)
    assert 0 < found.low < found.high < 1
    assert 1 - y[p >= found.high].mean() <= 0.02
    assert y[p < found.low].mean() <= 0.02
    noise = choose_threshold(y, rng.random(5000), policy=Policy(), band_error=0.02)
    assert noise.high > 1 or (y[p >= noise.high].size < 100)


def test_thresholds_of_all_heads():
    z, y = sample(3000)
    p = fit_calibration(TWO, z, y).apply(z)
    found = choose_thresholds(TWO, p, y, policy=Policy(), overrides={"rare": Policy(aim="recall", value=0.9)})
    assert set(found.values) == {"rude", "rare"}
    assert found.heads["rare"].recall >= 0.9
    assert found.escalate("rude", (found.heads["rude"].low + found.heads["rude"].high) / 2)
    assert not found.escalate("rude", 0.0) or found.heads["rude"].low == 0.0
    for overrides, message in (
        ({"better": Policy()}, "takes no threshold"),
        ({"ruder": Policy()}, "Did you mean 'rude'"),
    ):
        with pytest.raises(UsageError, match=message):
            choose_thresholds(TWO, p, y, policy=Policy(), overrides=overrides)


def test_unreachable_aims_are_errors_that_name_the_best():
    with pytest.raises(UserError, match=r"best on this split is 0\.500"):
        choose_threshold(np.array([1.0, 0.0]), np.array([0.5, 0.5]), policy=Policy(aim="precision", value=0.9))
    with pytest.raises(UserError, match="0 positive and 2 negative"):
        choose_threshold(np.zeros(2), np.array([0.1, 0.2]), policy=Policy())
    with pytest.raises(ValidationError):
        Policy(aim="precision")
    with pytest.raises(ValidationError):
        Policy(aim="f1", value=0.3)


def test_operating_points_join_ties():
    points = OperatingPoints.of(np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.5, 0.9]))
    assert points.scores.tolist() == [0.9, 0.5]
    assert points.hits.tolist() == [1, 2]
    assert points.alarms.tolist() == [0, 1]
