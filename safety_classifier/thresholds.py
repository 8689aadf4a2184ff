"""Decision thresholds: one a head, chosen for a stated aim, with the band that should go to a stronger judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from runs.config import StrictModel
from runs.errors import DataError, UsageError
from safety_classifier.calibration import Floats
from safety_classifier.labels import Labels

Aim = Literal["f1", "precision", "recall", "fpr"]


class Policy(StrictModel):
    """What a threshold is chosen for."""

    aim: Aim = "f1"
    """``f1``: the highest F1. ``precision``: the most recall at this precision. ``recall``: the fewest flags that reach
    this recall.
    ``fpr``: the most recall at this rate of false positives."""
    value: float | None = Field(default=None, ge=0.0, le=1.0)
    """The precision, recall or false-positive rate; nothing for ``f1``."""

    @model_validator(mode="after")
    def _value_fits_aim(self) -> Policy:
        if (self.value is None) != (self.aim == "f1"):
            raise ValueError("'value' goes with precision, recall and fpr, and with them only")
        return self


class Threshold(StrictModel):
    """The operating point of one head, with what it measured where it was chosen."""

    threshold: float
    """A text is flagged when its probability is at least this."""
    low: float
    """Below: surely clear. From here to ``high`` the text should go to a stronger judge."""
    high: float
    """From here on: surely flagged. Above 1 if no score is sure enough."""
    policy: Policy
    precision: float
    recall: float
    fpr: float
    f1: float
    positives: int
    negatives: int


class Thresholds(StrictModel):
    """Thresholds of the category and response heads."""

    heads: dict[str, Threshold]
    band_error: float
    """The error that was allowed on either side of the escalation band."""

    @property
    def values(self) -> dict[str, float]:
        """Head to threshold."""
        return {name: head.threshold for name, head in self.heads.items()}

    def escalate(self, name: str, probability: float) -> bool:
        """Whether the text should go to a stronger judge. Raises `UsageError` for a head without a threshold."""
        if name not in self.heads:
            raise UsageError(f"Head '{name}' has no threshold.", mend=f"Known: {', '.join(sorted(self.heads))}.")
        return self.heads[name].low <= probability < self.heads[name].high


@dataclass(frozen=True)
class OperatingPoints:
    """All the decisions that a set of scores allows: point i flags every row that scores at least ``scores[i]``."""

    scores: Floats
    """(k,) distinct scores, falling."""
    hits: Floats
    """(k,) positives flagged."""
    alarms: Floats
    """(k,) negatives flagged."""

    @classmethod
    def of(cls, targets: Floats, probabilities: Floats) -> OperatingPoints:
        """From targets (n,) of 0 and 1 and probabilities (n,)."""
        order = np.argsort(-probabilities, kind="stable")
        p, y = np.asarray(probabilities, np.float64)[order], targets[order]
        last = np.flatnonzero(np.append(np.diff(p) != 0, True))
        return cls(scores=p[last], hits=np.cumsum(y)[last], alarms=np.cumsum(1 - y)[last])

    @property
    def precision(self) -> Floats:
        """(k,)."""
        return np.asarray(self.hits / (self.hits + self.alarms))

    @property
    def recall(self) -> Floats:
        """(k,)."""
        return np.asarray(self.hits / self.hits[-1])

    @property
    def fpr(self) -> Floats:
        """(k,)."""
        return np.asarray(self.alarms / self.alarms[-1])

    @property
    def f1(self) -> Floats:
        """(k,)."""
        return np.asarray(2 * self.hits / (self.hits + self.alarms + self.hits[-1]))

    def cut(self, index: int) -> float:
        """The threshold of point ``index``: midway to the next score below, so that rounding moves no row across."""
        below = self.scores[index + 1] if index + 1 < len(self.scores) else 0.0
        return float((self.scores[index] + below) / 2)


def choose_thresholds(
    labels: Labels,
    probabilities: Floats,
    targets: Floats,
    *,
    policy: Policy,
    overrides: dict[str, Policy] | None = None,
    band_error: float = 0.02,
) -> Thresholds:
    """Choose on a split that neither trained the model nor measures it.

    Args:
        labels: the schema.
        probabilities: (n, heads), calibrated.
        targets: (n, heads) in [0, 1] (positive from 0.5), NaN where unknown.
        policy: the aim of every head.
        overrides: other aims for some heads.
        band_error: outside the escalation band, at most this share of the flagged rows is harmless, and of the
            cleared ones harmful.

    Raises:
        UsageError: shapes differ, or an override names a head outside the schema or a preference head.
        DataError: a head has rows of one class only, or no score reaches its aim (the best reachable value is named).
    """
    if probabilities.shape != targets.shape or probabilities.shape[1] != len(labels.heads):
        raise UsageError(
            f"Probabilities {probabilities.shape} and targets {targets.shape} do not fit {len(labels.heads)} heads."
        )
    aims = dict(overrides or {})
    scored = labels.of("category", "response")
    for name in aims:
        labels.column(name)
        if name not in scored:
            raise UsageError(f"Head '{name}' is a score; it takes no threshold.")
    chosen = {}
    for name in scored:
        column = labels.column(name)
        known = ~np.isnan(targets[:, column])
        y = (targets[known, column] >= 0.5).astype(np.float64)
        chosen[name] = choose_threshold(
            y, probabilities[known, column], policy=aims.get(name, policy), band_error=band_error, name=name
        )
    return Thresholds(heads=chosen, band_error=band_error)


def choose_threshold(
    targets: Floats, probabilities: Floats, *, policy: Policy, band_error: float = 0.02, name: str = "head"
) -> Threshold:
    """The threshold of one head: targets (n,) of 0 and 1, probabilities (n,). Raises like `choose_thresholds`."""
    positives, negatives = int(targets.sum()), int((1 - targets).sum())
    if not positives or not negatives:
        raise DataError(
            f"No threshold can be chosen for '{name}'.",
            why=f"The split has {positives} positive and {negatives} negative rows of it.",
            mend="Add a source that annotates it, or leave the head out of the schema.",
        )
    points = OperatingPoints.of(targets, probabilities)
    index = _point(points, policy, name)
    threshold = points.cut(index)
    low, high = _band(points, band_error)
    return Threshold(
        threshold=threshold,
        low=min(low, threshold),
        high=max(high, threshold),
        policy=policy,
        precision=float(points.precision[index]),
        recall=float(points.recall[index]),
        fpr=float(points.fpr[index]),
        f1=float(points.f1[index]),
        positives=positives,
        negatives=negatives,
    )


def _point(points: OperatingPoints, policy: Policy, name: str) -> int:
    """The index of the operating point that serves ``policy``."""
    if policy.value is None:
        return int(np.argmax(points.f1))
    if policy.aim == "recall":
        return int(np.argmax(points.recall >= policy.value))  # the first: the last point has recall 1
    series = points.precision if policy.aim == "precision" else points.fpr
    meets = series >= policy.value if policy.aim == "precision" else series <= policy.value
    # A point that flags negatives only serves no aim, however few they are.
    meets &= points.hits > 0
    if not meets.any():
        usable = series[points.hits > 0]
        best = usable.max() if policy.aim == "precision" else usable.min()
        raise DataError(
            f"No threshold of '{name}' reaches {policy.aim} {policy.value:g}.",
            why=f"The best on this split is {best:.3f}.",
            mend="State another value for this head, or choose its threshold by f1.",
        )
    return int(np.flatnonzero(meets)[-1])


def _band(points: OperatingPoints, error: float) -> tuple[float, float]:
    """Ends of the scores that are neither surely clear nor surely harmful."""
    sure = np.flatnonzero((points.precision >= 1 - error) & (points.hits > 0))
    high = points.cut(int(sure[-1])) if len(sure) else np.nextafter(1.0, 2.0)
    # Rows below point i: all those that it does not flag.
    missed, cleared = points.hits[-1] - points.hits, points.alarms[-1] - points.alarms
    rest = missed + cleared
    clear = np.flatnonzero((missed <= error * rest) & (rest > 0))
    low = points.cut(int(clear[0])) if len(clear) else 0.0
    return float(low), float(high)
