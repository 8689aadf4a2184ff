"""Fitting of the evaluators' linear models: penalised logistic regression under constraints of sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FloatArray = Any
"""A numpy array of floats; numpy is imported inside the functions."""


def fit_linear(
    rows: FloatArray,
    labels: FloatArray,
    *,
    penalty: float,
    weights: FloatArray | None = None,
    intercept: bool,
    signs: Sequence[int] = (),
    neutral: FloatArray | None = None,
) -> tuple[FloatArray, float]:
    """Minimise the mean logistic loss plus ``penalty`` / 2 times the squared norm of the scaled coefficients.

    Args:
        rows: (n, k) features, or their differences for pairs.
        labels: (n,) of 0 and 1; all 1 for pairs, whose first answer is the preferred one.
        penalty: L2, on coefficients per standard deviation of a feature.
        weights: (n,) weight of each row; equal where None.
        intercept: whether to fit one, unpenalised.
        signs: for each feature 1 (coefficient at least 0), -1 (at most 0) or 0 (free); empty for all free.
        neutral: (k,) direction that the coefficients must be orthogonal to: with the covariance of the features
            with log length, the score has no linear relation to length.

    Returns:
        The coefficients per unit of the features (k,), and the intercept.

    Raises:
        RuntimeError: the optimiser did not converge.
    """
    import numpy as np
    from scipy.optimize import LinearConstraint, minimize
    from scipy.special import expit

    count, width = rows.shape
    scale = rows.std(axis=0) if intercept else np.sqrt((rows**2).mean(axis=0))
    scale = np.where(scale > 1e-9, scale, 1.0)
    design = rows / scale
    if intercept:
        design = np.column_stack([design, np.ones(count)])
    sides = np.where(np.asarray(labels) > 0, 1.0, -1.0)
    shares = np.full(count, 1.0 / count) if weights is None else np.asarray(weights) / np.sum(weights)
    ridge = np.append(np.full(width, penalty), 0.0) if intercept else np.full(width, penalty)

    def loss(coefficients: FloatArray) -> tuple[float, FloatArray]:
        margins = sides * (design @ coefficients)
        value = shares @ np.logaddexp(0.0, -margins) + 0.5 * ridge @ coefficients**2
        slope = design.T @ (-shares * sides * expit(-margins)) + ridge * coefficients
        return float(value), slope

    bounds = [(0.0 if sign > 0 else None, 0.0 if sign < 0 else None) for sign in (signs or [0] * width)]
    start = np.zeros(design.shape[1])
    if intercept:
        bounds.append((None, None))
    if neutral is None:
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000})
    else:
        direction = np.append(neutral / scale, 0.0) if intercept else neutral / scale
        line = LinearConstraint((direction / np.linalg.norm(direction))[None, :], 0.0, 0.0)
        found = minimize(
            loss, start, jac=True, method="SLSQP", bounds=bounds, constraints=[line], options={"maxiter": 500}
        )
    if not found.success:
        raise RuntimeError(f"the fit did not converge: {found.message}")
    return found.x[:width] / scale, float(found.x[width]) if intercept else 0.0


def fit_wording(first: Any, second: Any, penalty: float) -> FloatArray:
    """Weights of phrases from pairs.

    Args:
        first: (n, k) sparse 0/1, phrases of the preferred answers.
        second: (n, k), phrases of the others.
        penalty: inverse of liblinear's C.

    Returns:
        (k,) weights.
    """
    import numpy as np
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    sides = np.where(np.arange(first.shape[0]) % 2 == 0, 1.0, -1.0)  # both classes must occur
    design = sparse.diags(sides) @ (first - second)
    model = LogisticRegression(C=1 / penalty, fit_intercept=False, solver="liblinear", max_iter=300)
    return model.fit(design, sides).coef_[0]
