"""The compiled training step and forward pass, over flat lists of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from safety_classifier.config import TrainSection
from safety_classifier.encoder import Dropout
from safety_classifier.losses import batch_loss
from safety_classifier.model import Batch, Leaves, WideAndDeep, named_arrays, split
from safety_classifier.precision import Precision


class State(NamedTuple):
    """What training changes."""

    trained: Leaves
    """Arrays with gradients."""
    optimiser: Any
    """Optax's state."""
    average: Leaves
    """Exponential moving average of ``trained``; empty when it is off."""


@dataclass(frozen=True)
class Partition:
    """A model as flat arrays, parted into trained and frozen ones."""

    names: tuple[str, ...]
    """Dotted path of each array."""
    trained: tuple[int, ...]
    """Positions of the trained arrays."""
    frozen: tuple[Array, ...]
    """The frozen arrays, in order."""
    merge: Callable[[Leaves], Any]
    """From all arrays back to the model."""

    def join(self, trained: Sequence[Array], frozen: Sequence[Array]) -> Leaves:
        """All arrays, in order."""
        leaves: list[Any] = [None] * len(self.names)
        rest = iter(frozen)
        for position, array in zip(self.trained, trained, strict=True):
            leaves[position] = array
        return [next(rest) if leaf is None else leaf for leaf in leaves]

    @property
    def trained_names(self) -> tuple[str, ...]:
        """Dotted paths of the trained arrays."""
        return tuple(self.names[position] for position in self.trained)


def partition(model: WideAndDeep, freeze: Sequence[str]) -> tuple[Partition, Leaves]:
    """Part the arrays of ``model``: those whose path starts with one of ``freeze`` are frozen."""
    leaves, merge = split(model)
    names = tuple(named_arrays(model))
    trained = tuple(index for index, name in enumerate(names) if not any(name.startswith(prefix) for prefix in freeze))
    frozen = tuple(leaf for index, leaf in enumerate(leaves) if index not in set(trained))
    return Partition(names, trained, frozen, merge), [leaves[index] for index in trained]


class Compiled(NamedTuple):
    """The two compiled functions."""

    step: Callable[[State, Sequence[Array], Batch, Array], tuple[State, dict[str, Array]]]
    """``(state, frozen, batch, step) -> (state, metrics)``; the state's buffers are reused (donated)."""
    forward: Callable[[Leaves, Sequence[Array], Batch], Array]
    """``(trained, frozen, batch) -> logits``, without dropout."""


def compile_functions(
    config: TrainSection,
    parts: Partition,
    optimiser: optax.GradientTransformation,
    *,
    rows: float,
    precision: Precision,
) -> Compiled:
    """Compile step and forward; each specialises itself by the batch's bucket.

    Args:
        config: dropouts, weights, seed.
        parts: the model.
        optimiser: of `make_optimiser`.
        rows: mean rows a batch, the divisor of the loss.
        precision: of the encoder's products.
    """

    def objective(trained: Leaves, frozen: Sequence[Array], batch: Batch, key: Array) -> Array:
        model = parts.merge(parts.join(trained, frozen))
        deep_key, wide_key = jax.random.split(key)
        batch = {**batch, "grams": _drop_rows(batch["grams"], wide_key, config.branch_dropout)}
        logits = model(batch, precision=precision, dropout=Dropout(config.dropout, deep_key))
        return batch_loss(logits, batch, rows, config.preference_weight)

    def step(state: State, frozen: Sequence[Array], batch: Batch, number: Array) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        loss, gradients = jax.value_and_grad(objective)(state.trained, frozen, batch, key)
        updates, optimiser_state = optimiser.update(gradients, state.optimiser, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        metrics = {"loss": loss, "grad_norm": optax.global_norm(gradients)}
        return State(trained, optimiser_state, _averaged(state.average, trained, config.ema_decay)), metrics

    def forward(trained: Leaves, frozen: Sequence[Array], batch: Batch) -> Array:
        logits: Array = parts.merge(parts.join(trained, frozen))(batch, precision=precision)
        return logits

    return Compiled(jax.jit(step, donate_argnums=0), jax.jit(forward))


def initial_state(trained: Leaves, optimiser: optax.GradientTransformation, ema_decay: float | None) -> State:
    """The state before the first step."""
    average = [jnp.array(array, copy=True) for array in trained] if ema_decay else []
    return State(trained, optimiser.init(trained), average)


def make_mesh(devices: int | None) -> Mesh:
    """A mesh of one axis, ``data``, over ``devices`` devices (all by default)."""
    chosen = jax.devices()[:devices] if devices else jax.devices()
    return Mesh(chosen, ("data",))


def place(batch: dict[str, Any], mesh: Mesh) -> Batch:
    """A host's rows of a batch as global arrays, sharded by row over the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Every array of ``tree`` on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def own_copy(tree: Any) -> Any:
    """Replicated arrays as this process's own: computing with those of the mesh waits for all of its processes."""
    if jax.process_count() == 1:
        return tree
    device = jax.local_devices()[0]
    return jax.tree.map(lambda array: jax.device_put(array.addressable_data(0), device), tree)


def _drop_rows(grams: Array, key: Array, rate: float) -> Array:
    """Blank all n-grams of a share ``rate`` of the rows."""
    if rate == 0.0:
        return grams
    dropped = jax.random.bernoulli(key, rate, (grams.shape[0], 1))
    return jnp.where(dropped, -1, grams)


def _averaged(average: Leaves, trained: Leaves, decay: float | None) -> Leaves:
    if decay is None:
        return average
    return [decay * old + (1.0 - decay) * new for old, new in zip(average, trained, strict=True)]
