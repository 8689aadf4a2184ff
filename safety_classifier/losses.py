"""Losses: masked cross-entropy for labels, Bradley-Terry for preferences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from safety_classifier.model import Batch


def label_loss(logits: Array, batch: Batch) -> Array:
    """Binary cross-entropy summed over annotated heads, per row: (B,).

    ``batch["mask"]`` (B, heads) is 0 where a source does not annotate the head, else the weight of the entry; unknown
    is never read as negative.
    """
    entropy = jax.nn.softplus(logits) - batch["targets"] * logits
    return jnp.sum(batch["mask"] * entropy, axis=1)


def preference_loss(logits: Array, batch: Batch) -> Array:
    """Bradley-Terry loss -log sigmoid(chosen - rejected), per row: (B,) (Ouyang et al. 2022, eq. 1, one pair a prompt).

    ``batch["pair"]`` (B, heads) is 1 at the chosen row of a pair and its head; the rejected answer is the next row.
    """
    margin = logits - jnp.roll(logits, -1, axis=0)
    return jnp.sum(batch["pair"] * jax.nn.softplus(-margin), axis=1)


def batch_loss(logits: Array, batch: Batch, rows: float, preference_weight: float) -> Array:
    """The training loss: the weighted sum over rows by a fixed ``rows``.

    The divisor is a constant (the mean rows a batch) and not the rows of this batch: batches of short texts hold more
    rows, and a row's weight must not depend on the length of the others.
    """
    per_row = label_loss(logits, batch) + preference_weight * preference_loss(logits, batch)
    return jnp.sum(batch["weight"] * per_row) / rows
