"""The fitted part of the evaluators: small linear models over named features, frozen in ``weights-v1.yaml``.

``uv run evaluate calibrate --fit DATA`` makes the file (`evaluation.calibrate.fit`); nothing in it is typed by hand.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from runs.config import StrictModel, parse, read_yaml
from runs.errors import UserError
from runs.paths import shown

WEIGHTS = Path(__file__).with_name("weights-v1.yaml")


class LinearModel(StrictModel):
    """Coefficients of named features, with what they were fitted on."""

    kind: Literal["logistic", "pairwise"]
    """``logistic``: P(label) of one answer. ``pairwise``: logit of P(first preferred) is a difference of scores."""
    intercept: float = 0.0
    """0 for pairwise models, where it would cancel."""
    coefficients: dict[str, float]
    """Feature → weight, per unit of the feature."""
    threshold: float | None = None
    """Probability from which a logistic model says yes."""
    quantiles: tuple[float, ...] = ()
    """Scores at the 0th, 5th … 100th percentile of the development answers: the scale of `level`."""
    constraints: tuple[str, ...] = ()
    """What the fit was held to, in words."""
    fitted_on: dict[str, int]
    """Data set → rows (pairs, for pairwise models)."""
    cross_validated: dict[str, float] = Field(default_factory=dict)
    """Measure → value on rows whose dialogue was not fitted on."""

    def logit(self, features: Mapping[str, float]) -> float:
        """The weighted sum. Raises `KeyError` where a feature of the model is missing."""
        return self.intercept + math.fsum(weight * features[name] for name, weight in self.coefficients.items())

    def probability(self, features: Mapping[str, float]) -> float:
        """`logit` as a probability."""
        return sigmoid(self.logit(features))

    def level(self, features: Mapping[str, float]) -> float:
        """The share of the development answers that score lower, in [0, 1]; linear between the percentiles."""
        value, marks = self.logit(features), self.quantiles
        if value <= marks[0]:
            return 0.0
        if value >= marks[-1]:
            return 1.0
        upper = bisect_left(marks, value)
        width = marks[upper] - marks[upper - 1]
        inside = (value - marks[upper - 1]) / width if width > 0 else 1.0
        return (upper - 1 + inside) / (len(marks) - 1)

    def contributions(self, features: Mapping[str, float]) -> list[tuple[str, float]]:
        """(feature, weight x value) of each feature that is not 0, largest first."""
        parts = [(name, weight * features[name]) for name, weight in self.coefficients.items() if features[name]]
        return sorted(parts, key=lambda part: -abs(part[1]))


class Weights(StrictModel):
    """The weights file."""

    version: Literal[1]
    command: str
    """What made the file."""
    inputs: dict[str, str]
    """Data file → sha256."""
    models: dict[str, LinearModel]
    notes: tuple[str, ...] = ()


_trial: ContextVar[Weights | None] = ContextVar("trial", default=None)


@lru_cache(maxsize=1)
def _shipped() -> Weights:
    return parse(Weights, read_yaml(WEIGHTS), source=shown(WEIGHTS))


def weights() -> Weights:
    """The shipped weights, or those on trial. Raises `runs.errors.UsageError` where the file is missing or faulty."""
    return _trial.get() or _shipped()


def try_out(found: Weights) -> None:
    """Let the evaluators use ``found`` in this context: a fit builds on models that no file holds yet."""
    _trial.set(found)


def model(name: str) -> LinearModel:
    """The fitted model ``name``.

    Raises:
        UserError: the weights file has no such model.
    """
    found = weights().models.get(name)
    if found is None:
        raise UserError(
            f"{shown(WEIGHTS)} holds no model '{name}'.",
            mend="Fit it: uv run evaluate calibrate --fit DATA (see docs/evaluators.md).",
        )
    return found


def sigmoid(value: float) -> float:
    """The logistic function, without overflow."""
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    power = math.exp(value)
    return power / (1.0 + power)
