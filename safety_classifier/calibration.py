"""Calibration: scores that mean what they say, and the measure of how far they do not.

Guo et al. 2017 (temperature scaling, expected calibration error) and Platt 1999 (a slope and an offset per head, with
smoothed targets). Both are fitted on a split of their own, under the mask of unknown labels, and keep the ranking: the
slope is positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from runs.config import StrictModel
from runs.errors import UsageError, UserError
from safety_classifier.labels import Labels

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Method = Literal["none", "temperature", "vector"]
Binning = Literal["mass", "width"]

BINS = 15
"""Bins of the expected calibration error, as in Guo et al. 2017."""
MINIMUM = 20
"""A head needs so many rows of either class to be fitted; with fewer its logits stay as they are."""


class Calibration(StrictModel):
    """Probabilities from logits: ``sigmoid(scale * z + bias)`` per head; preference heads keep their raw score."""

    method: Method
    heads: tuple[str, ...]
    """All heads, in the order of the model's outputs."""
    scale: tuple[float, ...]
    """One positive slope a head; 1 / temperature."""
    bias: tuple[float, ...]
    """One offset a head; zeros for temperature scaling."""
    raw: tuple[str, ...] = ()
    """Heads that are scores and not probabilities."""
    fitted: tuple[str, ...] = ()
    """Heads that had enough labelled rows; the others keep slope 1 and offset 0."""

    @model_validator(mode="after")
    def _shapes_agree(self) -> Calibration:
        if not len(self.heads) == len(self.scale) == len(self.bias):
            raise ValueError("heads, scale and bias differ in length")
        if any(scale <= 0 for scale in self.scale):
            raise ValueError("a scale that is not positive would turn the ranking round")
        return self

    def apply(self, logits: Floats) -> npt.NDArray[np.float32]:
        """Calibrated probabilities.

        Args:
            logits: (n, heads).

        Returns:
            (n, heads); in [0, 1] but for the raw heads.

        Raises:
            UsageError: another number of columns.
        """
        self._check(logits)
        z = np.asarray(logits, np.float64)
        p = _sigmoid(z * np.asarray(self.scale) + np.asarray(self.bias))
        return np.where(self._raw_columns(), z, p).astype(np.float32)

    def invert(self, probabilities: Floats) -> Floats:
        """The logits (n, heads) that `apply` turns into ``probabilities``; 0 and 1 are clipped to stay finite."""
        self._check(probabilities)
        p = np.asarray(probabilities, np.float64)
        clipped = np.clip(p, 1e-12, 1 - 2.0**-25)
        z = (np.log(clipped) - np.log1p(-clipped) - np.asarray(self.bias)) / np.asarray(self.scale)
        return np.where(self._raw_columns(), p, z)

    def _raw_columns(self) -> npt.NDArray[np.bool_]:
        return np.array([head in self.raw for head in self.heads])

    def _check(self, values: Floats) -> None:
        if values.ndim != 2 or values.shape[1] != len(self.heads):
            raise UsageError(f"Calibration has {len(self.heads)} heads; the scores have the shape {values.shape}.")


def identity(labels: Labels) -> Calibration:
    """The calibration that leaves every logit as it is."""
    count = len(labels.heads)
    return Calibration(
        method="none", heads=labels.names, scale=(1.0,) * count, bias=(0.0,) * count, raw=labels.of("preference")
    )


def fit_calibration(
    labels: Labels, logits: Floats, targets: Floats, *, method: Method = "vector", minimum: int = MINIMUM
) -> Calibration:
    """Fit on the calibration split.

    Args:
        labels: the schema.
        logits: (n, heads).
        targets: (n, heads) in [0, 1]; NaN where the label is unknown.
        method: ``temperature`` fits the slope of each head, ``vector`` the slope and the offset.
        minimum: rows of either class that a head needs.

    Raises:
        UsageError: shapes differ or a logit of a labelled row is not finite.
        UserError: the optimiser did not converge.
    """
    if logits.shape != targets.shape or logits.ndim != 2 or logits.shape[1] != len(labels.heads):
        raise UsageError(f"Logits {logits.shape} and targets {targets.shape} do not fit {len(labels.heads)} heads.")
    start = identity(labels)
    if method == "none":
        return start
    scale, bias, fitted = list(start.scale), list(start.bias), []
    for column, head in enumerate(labels.heads):
        if head.kind == "preference":
            continue
        known = ~np.isnan(targets[:, column])
        z, y = np.asarray(logits[known, column], np.float64), np.asarray(targets[known, column], np.float64)
        if not np.isfinite(z).all():
            raise UsageError(f"Head '{head.name}' has logits that are not finite.", mend="Check the weights.")
        if min((y >= 0.5).sum(), (y < 0.5).sum()) < minimum:
            continue
        scale[column], bias[column] = _platt(z, y, offset=method == "vector", name=head.name)
        fitted.append(head.name)
    return Calibration(
        method=method, heads=labels.names, scale=tuple(scale), bias=tuple(bias), raw=start.raw, fitted=tuple(fitted)
    )


def _platt(z: Floats, y: Floats, *, offset: bool, name: str) -> tuple[float, float]:
    """Slope and offset of least cross-entropy of ``sigmoid(slope * z + offset)``: a convex problem."""
    from scipy.optimize import minimize

    positives = y.sum()
    negatives = len(y) - positives
    # Platt's targets: a head whose classes separate would otherwise get an infinite slope.
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    smooth = low + y * (high - low)

    def loss(theta: Floats) -> tuple[float, Floats]:
        logit = theta[0] * z + theta[1]
        error = (_sigmoid(logit) - smooth) / len(z)
        gradient = np.array([error @ z, error.sum() if offset else 0.0])
        return float(np.mean(np.logaddexp(0.0, logit) - smooth * logit)), gradient

    bounds = [(1e-3, 1e3), (None, None) if offset else (0.0, 0.0)]
    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13, "gtol": 1e-9}
    )
    if not found.success:
        raise UserError(f"The calibration of '{name}' did not converge.", why=str(found.message))
    return float(found.x[0]), float(found.x[1])


def _sigmoid(z: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(z))


class ReliabilityBin(StrictModel):
    """One bin of a reliability diagram."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean predicted probability."""
    frequency: float
    """Share of positive labels."""


def bin_index(probabilities: Floats, *, bins: int = BINS, binning: Binning = "mass") -> Ints:
    """The bin of each probability: (n,) integers in [0, bins).

    ``width`` cuts [0, 1] evenly. ``mass`` cuts at the quantiles; equal probabilities share a bin, so that ties cannot
    be split by the order of the rows (and there may be fewer bins).
    """
    if binning == "width":
        return np.minimum((np.asarray(probabilities) * bins).astype(np.int64), bins - 1)
    inner = np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(np.unique(inner), probabilities, side="left").astype(np.int64)


def expected_calibration_error(
    targets: Floats, probabilities: Floats, *, bins: int = BINS, binning: Binning = "mass"
) -> float:
    """Expected calibration error: the mean over rows of |positive share − mean probability| of the row's bin.

    Args:
        targets: (n,) of 0 and 1, NaN where unknown (left out).
        probabilities: (n,).
        bins: number of bins.
        binning: equal mass (quantiles) or equal width.
    """
    known = ~np.isnan(targets)
    y, p = targets[known], probabilities[known]
    if not len(y):
        return float("nan")
    gaps = np.bincount(bin_index(p, bins=bins, binning=binning), weights=y - p)
    return float(np.abs(gaps).sum() / len(y))


def reliability(
    targets: Floats, probabilities: Floats, *, bins: int = BINS, binning: Binning = "mass"
) -> list[ReliabilityBin]:
    """The bins of the reliability diagram, empty ones left out. Arguments as `expected_calibration_error`."""
    known = ~np.isnan(targets)
    y, p = targets[known], np.asarray(probabilities[known], np.float64)
    index = bin_index(p, bins=bins, binning=binning) if len(p) else np.array([], np.int64)
    return [
        ReliabilityBin(
            low=float(p[rows].min()),
            high=float(p[rows].max()),
            count=int(rows.sum()),
            confidence=float(p[rows].mean()),
            frequency=float(y[rows].mean()),
        )
        for rows in (index == number for number in np.unique(index))
    ]


class HeadCalibration(StrictModel):
    """How well one head is calibrated, before and after."""

    labelled: int
    positives: int
    ece_mass: tuple[float, float]
    """Equal-mass expected calibration error before and after."""
    ece_width: tuple[float, float]
    """Equal-width expected calibration error before and after."""
    brier: tuple[float, float]
    """Mean squared error before and after."""
    before: tuple[ReliabilityBin, ...]
    after: tuple[ReliabilityBin, ...]


def calibration_report(
    labels: Labels, calibration: Calibration, logits: Floats, targets: Floats
) -> dict[str, HeadCalibration]:
    """Before and after of every head that has labels; use a split on which ``calibration`` was not fitted.

    Args:
        labels: the schema.
        calibration: the fitted map.
        logits: (n, heads), before calibration.
        targets: (n, heads) of 0 and 1, NaN where unknown.
    """
    raw, done = identity(labels).apply(logits), calibration.apply(logits)
    report: dict[str, HeadCalibration] = {}
    for name in labels.of("category", "response"):
        column = labels.column(name)
        known = ~np.isnan(targets[:, column])
        if not known.any():
            continue
        y, pair = targets[known, column], (raw[known, column], done[known, column])
        report[name] = HeadCalibration(
            labelled=int(known.sum()),
            positives=int(y.sum()),
            ece_mass=_both(y, pair, "mass"),
            ece_width=_both(y, pair, "width"),
            brier=(float(np.mean((pair[0] - y) ** 2)), float(np.mean((pair[1] - y) ** 2))),
            before=tuple(reliability(y, pair[0])),
            after=tuple(reliability(y, pair[1])),
        )
    return report


def _both(y: Floats, pair: Sequence[Floats], binning: Binning) -> tuple[float, float]:
    before, after = (expected_calibration_error(y, p, binning=binning) for p in pair)
    return before, after
