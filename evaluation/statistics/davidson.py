"""The likelihood of paired preferences with ties, its maximum and its scores, in JAX.

Davidson (1970): with u = log strength of the first minus that of the second (plus effects of covariates) and
eta = log nu, the log-odds of "first wins", "second wins" and "tie" are u / 2, -u / 2 and eta. This is a multinomial
logit, hence concave in its parameters. Without ties eta is left out, and what remains is Bradley and Terry (1952).

Imported from inside of functions only: JAX takes a second to load.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import coo_array

_ITERATIONS = 60
_TOLERANCE = 1e-11
"""Largest last Newton step, in log-odds: beyond it convergence is quadratic."""
_DRAW_ITERATIONS = 25
_DRAW_TOLERANCE = 1e-6
"""The same for a bootstrap draw, where a millionth is far below the spread between draws."""
_RIDGE = 1e-12
"""Keeps the Newton system solvable where a resample has no finite maximum; far below any curvature of data."""
_CELLS = 20_000_000
"""Numbers that a chunk of the bootstrap may hold."""


class Fit(NamedTuple):
    """A maximum of the likelihood."""

    parameters: np.ndarray
    """Shape (parameters,)."""
    hessian: np.ndarray
    """Of the negative log-likelihood; shape (parameters, parameters)."""
    scores: np.ndarray
    """Gradient of each comparison's log-likelihood; shape (comparisons, parameters)."""
    log_likelihood: float
    converged: bool


def designs(differences: np.ndarray, *, ties: bool) -> np.ndarray:
    """Log-odds of the outcomes as linear functions of the parameters.

    Args:
        differences: u = differences @ strengths-and-effects; shape (comparisons, effects).
        ties: whether there is a third outcome, whose eta is the last parameter.

    Returns:
        Shape (comparisons, outcomes, parameters).
    """
    halves = np.stack([differences / 2, -differences / 2], axis=1)
    if not ties:
        return halves
    rows, _, effects = halves.shape
    design = np.zeros((rows, 3, effects + 1))
    design[:, :2, :effects] = halves
    design[:, 2, effects] = 1.0
    return design


def fit(design: np.ndarray, outcomes: np.ndarray) -> Fit:
    """Maximise the likelihood.

    Args:
        design: from `designs`.
        outcomes: 0 first, 1 second, 2 tie; shape (comparisons,).
    """
    with jax.enable_x64(True):
        found = _fitted(jnp.asarray(design), jnp.asarray(outcomes), jnp.zeros(design.shape[2]))
        parameters, step, loss, gradient, hessian, scores = (np.asarray(part) for part in found)
    settled = bool(step < _TOLERANCE) and bool(np.abs(gradient).max() < 1e-6 * len(outcomes))
    return Fit(parameters, hessian, scores, -float(loss), settled)


def resampled(
    design: np.ndarray, outcomes: np.ndarray, clusters: np.ndarray, counts: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Maxima under the bootstrap.

    Args:
        design: from `designs`.
        outcomes: as for `fit`.
        clusters: index of each comparison's cluster; shape (comparisons,).
        counts: how often each cluster was drawn; shape (resamples, clusters).
        start: the maximum of all the data, from where the search sets out.

    Returns:
        Shape (resamples, parameters); very large where a resample has no finite maximum.
    """
    # Comparisons that are alike in all but their prompt are one row with a weight.
    keys = np.column_stack([design.reshape(len(design), -1), outcomes])
    _, first, kind = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    members = coo_array((np.ones(len(kind)), (clusters, kind.ravel())), shape=(counts.shape[1], len(first))).tocsr()
    chunk = max(1, min(len(counts), _CELLS // design[first].size))
    found = []
    with jax.enable_x64(True):
        arrays = jnp.asarray(design[first]), jnp.asarray(outcomes[first])
        for begin in range(0, len(counts), chunk):
            weights = counts[begin : begin + chunk] @ members
            # One shape for all chunks, so that XLA compiles once.
            padded = np.concatenate([weights, np.ones((chunk - len(weights), len(first)))])
            found.append(np.asarray(_many(*arrays, jnp.asarray(padded), jnp.asarray(start)))[: len(weights)])
    return np.concatenate(found)


def _losses(parameters: jax.Array, design: jax.Array, outcomes: jax.Array, weights: jax.Array) -> jax.Array:
    logits = design @ parameters
    chosen = jnp.take_along_axis(logits, outcomes[:, None], axis=1)[:, 0]
    return jnp.dot(weights, jax.nn.logsumexp(logits, axis=1) - chosen)


def _scores(parameters: jax.Array, design: jax.Array, outcomes: jax.Array) -> jax.Array:
    odds = jax.nn.softmax(design @ parameters, axis=1)
    seen = jax.nn.one_hot(outcomes, design.shape[1], dtype=odds.dtype)
    return jnp.einsum("nk,nkp->np", seen - odds, design)


def _derivatives(
    parameters: jax.Array, design: jax.Array, outcomes: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Negative log-likelihood, its gradient and its Hessian: sum of w A' (diag(p) - p p') A."""
    odds = jax.nn.softmax(design @ parameters, axis=1)
    centred = (design - jnp.einsum("nk,nkp->np", odds, design)[:, None, :]).reshape(-1, design.shape[2])
    hessian = centred.T @ ((weights[:, None] * odds).reshape(-1, 1) * centred)
    gradient = -weights @ _scores(parameters, design, outcomes)
    return _losses(parameters, design, outcomes, weights), gradient, hessian


@partial(jax.jit, static_argnames=("iterations", "tolerance"))
def _maximise(
    design: jax.Array,
    outcomes: jax.Array,
    weights: jax.Array,
    start: jax.Array,
    *,
    iterations: int,
    tolerance: float,
) -> tuple[jax.Array, jax.Array]:
    """Newton's method with a line search over halved steps; returns the maximum and the size of the last step."""
    count = design.shape[2]
    lengths = 0.5 ** jnp.arange(6.0)

    def body(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        parameters, _, iteration = state
        _, gradient, hessian = _derivatives(parameters, design, outcomes, weights)
        step = -jnp.linalg.solve(hessian + _RIDGE * jnp.eye(count), gradient)
        losses = jax.vmap(lambda length: _losses(parameters + length * step, design, outcomes, weights))(lengths)
        best = lengths[jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))]
        return parameters + best * step, jnp.abs(step).max(), iteration + 1

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return (state[1] >= tolerance) & (state[2] < iterations)

    parameters, step, _ = jax.lax.while_loop(unfinished, body, (start, jnp.asarray(jnp.inf), jnp.asarray(0)))
    return parameters, step


@jax.jit
def _fitted(design: jax.Array, outcomes: jax.Array, start: jax.Array) -> tuple[jax.Array, ...]:
    weights = jnp.ones(len(outcomes), design.dtype)
    parameters, step = _maximise(design, outcomes, weights, start, iterations=_ITERATIONS, tolerance=_TOLERANCE)
    loss, gradient, hessian = _derivatives(parameters, design, outcomes, weights)
    return parameters, step, loss, gradient, hessian, _scores(parameters, design, outcomes)


@jax.jit
def _many(design: jax.Array, outcomes: jax.Array, weights: jax.Array, start: jax.Array) -> jax.Array:
    def one(drawn: jax.Array) -> jax.Array:
        limits = {"iterations": _DRAW_ITERATIONS, "tolerance": _DRAW_TOLERANCE}
        maximum: jax.Array = _maximise(design, outcomes, drawn, start, **limits)[0]
        return maximum

    return jax.vmap(one)(weights)
