"""Losses against values worked by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safety_classifier.losses import batch_loss, label_loss, preference_loss


def batch(**arrays):
    empty = {"targets": np.zeros((2, 2)), "mask": np.zeros((2, 2)), "pair": np.zeros((2, 2)), "weight": np.ones(2)}
    return {name: jnp.asarray(value, jnp.float32) for name, value in {**empty, **arrays}.items()}


def test_cross_entropy_by_hand():
    logits = jnp.asarray([[0.0, 2.0], [-1.0, 3.0]])
    given = batch(targets=[[1, 1], [0, 0]], mask=[[1, 0.5], [1, 0]])
    expected = [math.log(2) + 0.5 * math.log1p(math.exp(-2)), math.log1p(math.exp(-1))]
    np.testing.assert_allclose(label_loss(logits, given), expected, rtol=1e-6)


def test_an_unknown_label_has_no_gradient():
    given = batch(targets=[[1, 0], [0, 0]], mask=[[1, 0], [0, 0]])
    gradient = jax.grad(lambda z: jnp.sum(label_loss(z, given)))(jnp.ones((2, 2)))
    assert float(gradient[0, 0]) != 0
    assert np.count_nonzero(gradient) == 1


def test_equal_scores_cost_ln_2_and_the_better_choice_less():
    given = batch(pair=[[0, 1], [0, 0]])
    assert float(jnp.sum(preference_loss(jnp.zeros((2, 2)), given))) == pytest.approx(math.log(2))
    right = preference_loss(jnp.asarray([[0.0, 3.0], [0.0, 1.0]]), given)
    assert float(right[0]) == pytest.approx(math.log1p(math.exp(-2)), rel=1e-6)
    assert float(right[1]) == 0


def test_the_preference_loss_reads_the_two_rows_of_its_pair_only():
    given = batch(pair=[[0, 1], [0, 0]])
    gradient = jax.grad(lambda z: jnp.sum(preference_loss(z, given)))(jnp.zeros((2, 2)))
    np.testing.assert_allclose(gradient, [[0, -0.5], [0, 0.5]], atol=1e-7)


def test_a_rows_share_does_not_depend_on_its_batch():
    """Ten rows of one kind weigh ten times one: the divisor is fixed."""
    one = batch(targets=[[1, 0], [0, 0]], mask=[[1, 1], [0, 0]])
    many = {name: jnp.concatenate([value] * 10) for name, value in one.items()}
    assert float(batch_loss(jnp.zeros((20, 2)), many, 100.0, 1.0)) == pytest.approx(
        10 * float(batch_loss(jnp.zeros((2, 2)), one, 100.0, 1.0)), rel=1e-6
    )
