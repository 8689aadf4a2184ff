"""Ratings from preferences between models: Bradley-Terry with ties, clustered by prompt, in Elo points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from evaluation.statistics.clusters import percentile_interval, resampled_counts
from evaluation.statistics.records import Comparison, Covariate, Interval, Rating, Ratings
from runs.errors import UserError

ELO = 400 / math.log(10)
"""Elo points in a unit of natural-log strength: 400 points are odds of 10 to 1."""
_OUTCOMES = {"first": 0, "second": 1, "tie": 2}
_SEPARATED = 15.0
"""Log-odds beyond which a maximum is taken for infinite: 3 million to 1."""
CovariateName = Literal["length", "order"]


@dataclass(frozen=True)
class _Data:
    """Comparisons as arrays."""

    differences: np.ndarray
    """Shape (comparisons, models - 1 + covariates): 1 for the first model, -1 for the second, then covariates."""
    outcomes: np.ndarray
    clusters: np.ndarray
    """Index of each comparison's cluster."""
    count: int
    """Clusters."""
    ties: int


def bradley_terry(
    comparisons: Sequence[Comparison],
    *,
    reference: str,
    models: Sequence[str] | None = None,
    covariates: Sequence[CovariateName] = (),
    confidence: float = 0.95,
    resamples: int = 0,
    seed: int = 0,
) -> Ratings:
    """Rate models by the preferences between their answers, as differences from a reference.

    Davidson's model (1970): P(first) : P(second) : P(tie) = e^(u/2) : e^(-u/2) : nu, with u = s(first) - s(second) +
    effects of covariates; without ties it is Bradley and Terry's (1952). The covariance is the sandwich
    G / (G - 1) H⁻¹ (sum over clusters g g') H⁻¹ with clusters' scores g (Liang and Zeger 1986): several comparisons on
    one prompt are one piece of evidence. Intervals take t quantiles with G - 1 degrees of freedom.

    Args:
        comparisons: preferences; their order does not matter.
        reference: the model at 0 Elo, such as ``base``.
        models: order of the ratings; by default the reference and then the others by name.
        covariates: ``length``, log2 of the ratio of lengths (1 is added to each), whose effect is what a preference
            for longer answers does by itself; ``order``, the advantage of being first.
        confidence: of the intervals.
        resamples: of the bootstrap over clusters; 0 leaves it out.
        seed: of the bootstrap.

    Raises:
        UserError: no comparisons or fewer than two prompts; a model that is unknown, never compared, or never
            beaten (its rating has no finite value); a length that is missing; effects that cannot be told apart.
    """
    from evaluation.statistics import davidson

    names = _names(comparisons, reference, models)
    data = _arrays(comparisons, names, covariates)
    _check_connected(comparisons, names)
    design = davidson.designs(data.differences, ties=data.ties > 0)
    fit = davidson.fit(design, data.outcomes)
    if np.linalg.matrix_rank(fit.hessian) < len(fit.parameters):
        raise UserError("These comparisons cannot tell the models and covariates apart.", mend="Leave a covariate out.")
    if not fit.converged or np.abs(fit.parameters[: data.differences.shape[1]]).max() > _SEPARATED:
        raise UserError(
            "The ratings have no finite values.",
            why="A model, or a covariate, predicts every outcome.",
            mend="Add comparisons, or leave the covariate out.",
        )
    covariance = sandwich(fit.hessian, fit.scores, data.clusters, data.count)
    draws, separated = None, 0
    if resamples:
        counts = resampled_counts(data.count, resamples, np.random.default_rng(seed))
        draws = davidson.resampled(design, data.outcomes, data.clusters, counts, fit.parameters)
        separated = int((~(np.abs(draws[:, : data.differences.shape[1]]) <= _SEPARATED)).any(axis=1).sum())
    nu = math.exp(fit.parameters[-1]) if data.ties else 0.0
    reach = float(scipy.stats.t.ppf((1 + confidence) / 2, data.count - 1))
    ratings = _ratings(names, fit.parameters, covariance, draws, nu, reach, confidence, data.count)
    return Ratings(
        reference=reference,
        ratings=tuple(ratings),
        covariance=_elo_covariance(covariance, len(names)),
        tie_parameter=nu,
        covariates=tuple(
            _covariate(name, fit.parameters, covariance, len(names) - 1 + index, reach)
            for index, name in enumerate(covariates)
        ),
        n_comparisons=len(comparisons),
        n_ties=data.ties,
        n_clusters=data.count,
        log_likelihood=fit.log_likelihood,
        confidence=confidence,
        resamples=resamples,
        separated_resamples=separated,
    )


def sandwich(hessian: np.ndarray, scores: np.ndarray, clusters: np.ndarray, count: int) -> np.ndarray:
    """G / (G - 1) H⁻¹ (sum over clusters g g') H⁻¹, with ``count`` clusters indexed by ``clusters``."""
    sums = np.zeros((count, scores.shape[1]))
    np.add.at(sums, clusters, scores)
    bread = np.linalg.inv(hessian)
    return np.asarray(bread @ (sums.T @ sums) @ bread * count / (count - 1))


def _names(comparisons: Sequence[Comparison], reference: str, models: Sequence[str] | None) -> list[str]:
    """Models in the order of the ratings, the reference first."""
    found = {name for one in comparisons for name in (one.first, one.second)}
    listed = list(models) if models is not None else sorted(found)
    for name in (reference, *listed):
        if name not in found:
            raise UserError(f"Model {name} is in no comparison.", mend="Compare it with another, or leave it out.")
    if found - set(listed):
        raise UserError(f"Comparisons name {', '.join(sorted(found - set(listed)))}, which is not to be rated.")
    return [reference, *(name for name in listed if name != reference)]


def _arrays(comparisons: Sequence[Comparison], names: Sequence[str], covariates: Sequence[CovariateName]) -> _Data:
    labels = [one.cluster or one.prompt_id for one in comparisons]
    places = {label: index for index, label in enumerate(sorted(set(labels)))}
    if len(places) < 2:
        raise UserError(f"Ratings need comparisons on at least two prompts; there are {len(places)}.")
    columns = {name: index - 1 for index, name in enumerate(names)}
    differences = np.zeros((len(comparisons), len(names) - 1 + len(covariates)))
    for row, one in enumerate(comparisons):
        if one.first == one.second:
            raise UserError(f"A comparison on prompt {one.prompt_id[:12]} sets {one.first} against itself.")
        for name, sign in ((one.first, 1.0), (one.second, -1.0)):
            if columns[name] >= 0:
                differences[row, columns[name]] = sign
        for index, covariate in enumerate(covariates):
            differences[row, len(names) - 1 + index] = _covariate_value(one, covariate)
    outcomes = np.array([_OUTCOMES[one.outcome] for one in comparisons])
    clusters = np.array([places[label] for label in labels])
    return _Data(differences, outcomes, clusters, len(places), int((outcomes == _OUTCOMES["tie"]).sum()))


def _covariate_value(one: Comparison, covariate: CovariateName) -> float:
    if covariate == "order":
        return 1.0
    if one.first_length is None or one.second_length is None:
        raise UserError(
            f"The comparison of {one.first} and {one.second} on prompt {one.prompt_id[:12]} has no lengths.",
            mend="Give both lengths, or rate without the length covariate.",
        )
    return math.log2((one.first_length + 1) / (one.second_length + 1))


def _check_connected(comparisons: Sequence[Comparison], names: Sequence[str]) -> None:
    """Ford's condition (1957): between any two models there is a chain of wins, or ties, both ways."""
    place = {name: index for index, name in enumerate(names)}
    edges = []
    for one in comparisons:
        first, second = place[one.first], place[one.second]
        edges += {"first": [(first, second)], "second": [(second, first)]}.get(
            one.outcome, [(first, second), (second, first)]
        )
    winners, losers = zip(*edges, strict=True)
    graph = scipy.sparse.coo_array((np.ones(len(edges)), (winners, losers)), shape=(len(names), len(names)))
    groups, group = scipy.sparse.csgraph.connected_components(graph, directed=True, connection="strong")
    if groups > 1:
        parts = [", ".join(name for name in names if group[place[name]] == part) for part in range(groups)]
        raise UserError(
            f"No finite ratings: {' | '.join(parts)} never lost to, or never met, each other both ways.",
            mend="Add comparisons, or rate the groups by themselves.",
        )


def _ratings(
    names: Sequence[str],
    parameters: np.ndarray,
    covariance: np.ndarray,
    draws: np.ndarray | None,
    nu: float,
    reach: float,
    confidence: float,
    clusters: int,
) -> list[Rating]:
    ratings = []
    for index, name in enumerate(names):
        place = index - 1
        strength = 0.0 if index == 0 else float(parameters[place])
        error = 0.0 if index == 0 else math.sqrt(covariance[place, place])
        drawn: Interval | None = None
        if draws is not None:
            column = np.zeros(len(draws)) if index == 0 else draws[:, place]
            low, high = percentile_interval(column, confidence=confidence, clusters=clusters)
            drawn = (ELO * low, ELO * high)
        wins, losses = math.exp(strength / 2), math.exp(-strength / 2)
        ratings.append(
            Rating(
                model=name,
                elo=ELO * strength,
                standard_error=ELO * error,
                interval=(ELO * (strength - reach * error), ELO * (strength + reach * error)),
                bootstrap_interval=drawn,
                win_rate=(wins + nu / 2) / (wins + losses + nu),
            )
        )
    return ratings


def _elo_covariance(covariance: np.ndarray, models: int) -> tuple[tuple[float, ...], ...]:
    full = np.zeros((models, models))
    full[1:, 1:] = ELO**2 * covariance[: models - 1, : models - 1]
    return tuple(tuple(float(value) for value in row) for row in full)


def _covariate(
    name: CovariateName, parameters: np.ndarray, covariance: np.ndarray, place: int, reach: float
) -> Covariate:
    estimate, half = float(parameters[place]), reach * math.sqrt(covariance[place, place])
    return Covariate(name=name, estimate=estimate, interval=(estimate - half, estimate + half))
