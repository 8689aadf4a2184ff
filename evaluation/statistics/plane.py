"""The evasiveness plane: harm on unsafe prompts against refusal of their benign twins, with joint regions.

A model can buy harmlessness with refusals; one rate cannot show it. Both rates are drawn from the same pairs of
prompts, so that they are dependent, and so are the models: pairs are resampled whole, for all models at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from evaluation.statistics.checks import is_binary, unit_scores
from evaluation.statistics.clusters import resampled_counts
from evaluation.statistics.contrast import Question, contrast
from evaluation.statistics.mean import mean_interval
from evaluation.statistics.records import Ellipse, Interval, Plane, PlanePoint, PlaneStep
from runs.errors import UserError

_CELLS = 2_000_000
"""Resampled counts held in memory at once."""
_FLAT = 1e-12
"""A variance below this is none."""
_LEAST_PAIRS = 3
"""Fewest pairs that a joint region can be drawn from."""
Matrix = tuple[tuple[float, float], tuple[float, float]]


class AxisScores(NamedTuple):
    """One axis of the plane: the same prompts for every model."""

    clusters: Sequence[str]
    """The pair that each prompt belongs to; labels are shared between the axes."""
    scores: Mapping[str, Sequence[float | None]]
    """Model → 0 or 1 for each prompt (1 is harm, or refusal), None where there is no score."""


class _Settings(NamedTuple):
    confidence: float
    resamples: int
    seed: int


def plane(
    models: Sequence[str],
    unsafe: AxisScores,
    benign: AxisScores,
    *,
    steps: Sequence[tuple[str, str]],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Plane:
    """Points and steps of the plane, each with the ellipse of its bootstrap covariance.

    The ellipse is Hotelling's: (x - m)' C⁻¹ (x - m) = 2 (G - 1) / (G - 2) F(confidence; 2, G - 2), with G pairs.
    Single-axis intervals are Wilson's for points and Tango's for steps, or cluster-robust. Where a rate is the same
    number in every draw (0 of 80 refused), its variance is that of such an interval: the bootstrap cannot know of
    what was not met. A point rests on the prompts that its model has a score for, a step on those of both models.

    Args:
        models: in the order of the lineage.
        unsafe: harm on unsafe prompts.
        benign: refusal of benign prompts.
        steps: contrasts to draw, (treatment, control).
        confidence: joint, of the ellipses.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: lengths differ.
        UserError: a score is neither 0 nor 1.
    """
    settings = _Settings(confidence, resamples, seed)
    return Plane(
        points=tuple(_point(model, (unsafe, benign), settings) for model in models),
        steps=tuple(_step(treatment, control, (unsafe, benign), settings) for treatment, control in steps),
        resamples=resamples,
        seed=seed,
    )


def hotelling_ellipse(
    centre: np.ndarray, covariance: np.ndarray, clusters: int, *, confidence: float = 0.95
) -> Ellipse:
    """The joint region of a mean of two things with an estimated covariance. Raises `ValueError` below 3 clusters."""
    values, vectors = np.linalg.eigh(covariance)
    radius = _radius(clusters, confidence)
    longer, shorter = (radius * math.sqrt(max(0.0, value)) for value in (values[1], values[0]))
    # An axis has no sense of direction: angles are taken in (-pi/2, pi/2].
    angle = math.atan2(vectors[1, 1], vectors[0, 1])
    angle -= math.pi if angle > math.pi / 2 else -math.pi if angle <= -math.pi / 2 else 0.0
    return Ellipse(
        centre=(float(centre[0]), float(centre[1])), semi_axes=(longer, shorter), angle=angle, confidence=confidence
    )


def outside(offset: np.ndarray, covariance: np.ndarray, clusters: int, *, confidence: float = 0.95) -> bool:
    """Whether a point at ``offset`` from the centre lies outside of `hotelling_ellipse`."""
    values, vectors = np.linalg.eigh(covariance)
    along = vectors.T @ offset
    flat = values <= _FLAT
    if bool((np.abs(along[flat]) > math.sqrt(_FLAT)).any()):
        return True
    distance = float((along[~flat] ** 2 / values[~flat]).sum())
    return distance > _radius(clusters, confidence) ** 2


def _radius(clusters: int, confidence: float) -> float:
    if clusters < _LEAST_PAIRS:
        raise ValueError(f"a joint region needs at least three independent pairs; there are {clusters}")
    factor = 2 * (clusters - 1) / (clusters - 2)
    return math.sqrt(factor * float(scipy.stats.f.ppf(confidence, 2, clusters - 2)))


class _Scored(NamedTuple):
    """One axis on the prompts that all models in question have a score for."""

    clusters: list[str]
    values: dict[str, np.ndarray]
    """Model → shape (prompts,)."""
    dropped: int


def _scored(axis: AxisScores, models: Sequence[str]) -> _Scored:
    columns = [axis.scores[model] for model in models]
    if any(len(column) != len(axis.clusters) for column in columns):
        raise ValueError(f"an axis has {len(axis.clusters)} prompts and another number of scores")
    kept = [index for index in range(len(axis.clusters)) if all(column[index] is not None for column in columns)]
    labels, values = [axis.clusters[index] for index in kept], {}
    for model, column in zip(models, columns, strict=True):
        name = f"the plane's scores of {model}"
        values[model] = unit_scores([score for i in kept if (score := column[i]) is not None], name, labels)
        if not is_binary(values[model]):
            raise UserError(f"Some of {name} are neither 0 nor 1.", why="The axes of the plane are rates.")
    return _Scored(labels, values, len(axis.clusters) - len(kept))


def _point(model: str, axes: Sequence[AxisScores], settings: _Settings) -> PlanePoint:
    scored = [_scored(axis, [model]) for axis in axes]
    means = [
        mean_interval(axis.values[model].tolist(), clusters=axis.clusters, confidence=settings.confidence)
        if axis.clusters
        else None
        for axis in scored
    ]
    rates = [mean.mean if mean else None for mean in means]
    intervals = [
        (mean.low, mean.high) if mean and mean.low is not None and mean.high is not None else None for mean in means
    ]
    clusters = len(_labels(scored))
    covariance = _covariance(_bootstrap(scored, [model], settings), rates, intervals, clusters, settings)
    return PlanePoint(
        model=model,
        harm=rates[0],
        refusal=rates[1],
        n_unsafe=len(scored[0].clusters),
        n_benign=len(scored[1].clusters),
        n_missing=sum(axis.dropped for axis in scored),
        n_clusters=clusters,
        covariance=_matrix(covariance),
        ellipse=_ellipse(rates, covariance, clusters, settings),
        harm_interval=intervals[0],
        refusal_interval=intervals[1],
    )


def _step(treatment: str, control: str, axes: Sequence[AxisScores], settings: _Settings) -> PlaneStep:
    scored = [_scored(axis, [treatment, control]) for axis in axes]
    made = [
        contrast(
            Question(treatment, control, name, kind="rate", higher_is_better=False),
            axis.values[treatment].tolist(),
            axis.values[control].tolist(),
            clusters=axis.clusters,
            confidence=settings.confidence,
            bootstrap=False,
        )
        for name, axis in zip(("harm", "refusal"), scored, strict=True)
    ]
    changes, intervals = [one.estimate for one in made], [one.interval for one in made]
    drawn = _bootstrap(scored, [treatment, control], settings)
    change = None if drawn is None else drawn[:, :2] - drawn[:, 2:]
    clusters = len(_labels(scored))
    covariance = _covariance(change, changes, intervals, clusters, settings)
    ellipse = _ellipse(changes, covariance, clusters, settings)
    moved = None
    if ellipse is not None and covariance is not None:
        moved = outside(np.array(ellipse.centre), covariance, clusters, confidence=settings.confidence)
    return PlaneStep(
        treatment=treatment,
        control=control,
        harm=changes[0],
        refusal=changes[1],
        covariance=_matrix(covariance),
        ellipse=ellipse,
        harm_interval=intervals[0],
        refusal_interval=intervals[1],
        moved=moved,
    )


def _labels(scored: Sequence[_Scored]) -> list[str]:
    return sorted({label for axis in scored for label in axis.clusters})


def _bootstrap(scored: Sequence[_Scored], models: Sequence[str], settings: _Settings) -> np.ndarray | None:
    """Rates under the bootstrap of pairs: shape (resamples, 2 x models), harm and refusal of each model in turn.

    Rates are ratios of sums over pairs: a prompt whose twin has no score still counts on its own axis. None where
    an axis is empty, or there are fewer pairs than a joint region needs.
    """
    labels = _labels(scored)
    if len(labels) < _LEAST_PAIRS or not all(axis.clusters for axis in scored):
        return None
    place = {label: index for index, label in enumerate(labels)}
    at = [np.array([place[label] for label in axis.clusters]) for axis in scored]
    columns = [(axis.values[model], index) for model in models for axis, index in zip(scored, at, strict=True)]
    sums = np.stack([np.bincount(index, values, len(labels)) for values, index in columns], axis=1)
    sizes = np.stack([np.bincount(index, minlength=len(labels)) for _, index in columns], axis=1).astype(float)
    generator, drawn = np.random.default_rng(settings.seed), []
    chunk = max(1, _CELLS // len(labels))
    for start in range(0, settings.resamples, chunk):
        counts = resampled_counts(len(labels), min(chunk, settings.resamples - start), generator).astype(float)
        rows = counts @ sizes
        # A draw may hold no prompt of an axis: its rate is then that of all.
        rates = np.broadcast_to(sums.sum(axis=0) / sizes.sum(axis=0), rows.shape).copy()
        drawn.append(np.divide(counts @ sums, rows, out=rates, where=rows > 0))
    return np.concatenate(drawn)


def _covariance(
    drawn: np.ndarray | None,
    rates: Sequence[float | None],
    intervals: Sequence[Interval | None],
    clusters: int,
    settings: _Settings,
) -> np.ndarray | None:
    """Bootstrap covariance times G / (G - 1), with the variance of an interval where an axis has none."""
    if drawn is None:
        return None
    covariance = np.cov(drawn, rowvar=False) * clusters / (clusters - 1)
    z = float(scipy.stats.norm.ppf((1 + settings.confidence) / 2))
    for axis, (rate, interval) in enumerate(zip(rates, intervals, strict=True)):
        if covariance[axis, axis] <= _FLAT and rate is not None and interval is not None:
            arm = max(interval[1] - rate, rate - interval[0])  # at 0 or 1 the interval has one arm
            covariance[axis, axis] = (arm / z) ** 2
    return np.asarray(covariance)


def _ellipse(
    centre: Sequence[float | None], covariance: np.ndarray | None, clusters: int, settings: _Settings
) -> Ellipse | None:
    x, y = centre
    if covariance is None or x is None or y is None:
        return None
    return hotelling_ellipse(np.array([x, y]), covariance, clusters, confidence=settings.confidence)


def _matrix(covariance: np.ndarray | None) -> Matrix | None:
    if covariance is None:
        return None
    (a, b), (c, d) = covariance.tolist()
    return (a, b), (c, d)
