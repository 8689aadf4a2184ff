"""The project's own classifier as a contestant: the product's forward pass and its training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from safetensors.numpy import load_file

from benchmarks.classifier_rows import Logits, Setting, training_batch
from benchmarks.classifier_timing import rate
from safety_classifier.config import TrainSection
from safety_classifier.features import Encoded
from safety_classifier.forward import Forward
from safety_classifier.model import ModelConfig, WideAndDeep
from safety_classifier.precision import Precision
from safety_classifier.training.optimiser import make_optimiser
from safety_classifier.training.step import compile_functions, initial_state, partition
from safety_classifier.weights import filled_model

_BLOCK = 1024
_KINDS: dict[str, tuple[Any, Any]] = {
    "float32": (jnp.float32, jnp.float32),
    "bfloat16": (jnp.bfloat16, jnp.float32),
    "int8": (jnp.int8, jnp.int32),
}


class Ours:
    """`safety_classifier.forward.Forward` on its buckets.

    Args:
        setting: weights and shapes.
        precision: of the encoder's products; training knows no int8.
    """

    batch: int | None = None

    def __init__(self, setting: Setting, precision: Precision) -> None:
        self.setting, self.precision, self.featuriser = setting, precision, setting.featuriser
        self.forward = Forward(self._model(), self.featuriser, precision)
        self.trainers: dict[tuple[int, int], Callable[[], None]] = {}

    def score(self, rows: Encoded) -> Logits:
        """Logits in the order of the rows."""
        return self.forward(rows)

    def score_texts(self, texts: Sequence[str]) -> Logits:
        """From strings, a block featurised while the last is scored, as `safety_classifier.api` does it."""
        blocks = [texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK)]
        started = [(self.forward.start(self.featuriser.encode(block)), len(block)) for block in blocks]
        return np.concatenate([self.forward.finish(calls, count) for calls, count in started])

    def step(self, rows: int, length: int) -> None:
        """One step of `safety_classifier.training`, without dropout."""
        key = (rows, length)
        if key not in self.trainers:
            self.trainers[key] = self._trainer(rows, length)
        self.trainers[key]()

    def _model(self) -> WideAndDeep:
        shape = self.setting.shape
        config = ModelConfig.model_validate(shape["config"])
        return filled_model(config, shape["heads"], "float32", load_file(self.setting.arrays))

    def _trainer(self, rows: int, length: int) -> Callable[[], None]:
        config = TrainSection(dropout=0.0, branch_dropout=0.0, augment=None)
        parts, trained = partition(self._model(), config.freeze)
        optimiser = make_optimiser(config, parts.trained_names, [array.ndim for array in trained], 100_000)
        compiled = compile_functions(config, parts, optimiser, rows=float(rows), precision=self.precision)
        drawn = training_batch(self.setting.shape, rows, length)
        ones, zeros = np.ones_like(drawn["targets"]), np.zeros_like(drawn["targets"])
        batch: dict[str, Any] = {
            **drawn,
            "types": np.zeros_like(drawn["ids"]),
            "length": np.full(rows, length, np.int32),
            "mask": ones,
            "pair": zeros,
            "weight": ones[:, 0],
        }
        state, number = initial_state(trained, optimiser, None), 0

        def step() -> None:
            nonlocal state, number
            state, metrics = compiled.step(state, parts.frozen, batch, jnp.int32(number))
            metrics["loss"].block_until_ready()
            state.trained[0].block_until_ready()
            number += 1

        return step


def jax_peak(shape: tuple[int, int, int], precision: Precision, seconds: float) -> float:
    """Operations a second of one matrix product with the types that ``precision`` multiplies and adds up in."""
    rows, inner, columns = shape
    kind, total = _KINDS[precision]
    keys = jax.random.split(jax.random.key(0))
    a, b = (
        (40 * jax.random.normal(key, size)).astype(kind)
        for key, size in zip(keys, ((rows, inner), (inner, columns)), strict=True)
    )
    product = jax.jit(lambda x, y: lax.dot_general(x, y, (((1,), (0,)), ((), ())), preferred_element_type=total))
    return 2.0 * math.prod(shape) * rate(lambda: product(a, b).block_until_ready(), seconds)
