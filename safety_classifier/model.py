"""The classifier: a wide linear branch over hashed n-grams and a deep encoder, added in one set of logits.

Wide and deep (Cheng et al. 2016): the wide branch sees spelling and rare words, and its contributions are exact
explanations; the deep one sees meaning and context. Harm categories, response modes and preference scores are columns
of one output, so that one pass serves them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from pydantic import Field

from runs.config import StrictModel
from safety_classifier.encoder import Dropout, Encoder, EncoderConfig, Linear
from safety_classifier.precision import Precision

Leaves = list[Array]
Batch = dict[str, Array]


class ModelConfig(StrictModel):
    """Shape of the classifier."""

    encoder: EncoderConfig = EncoderConfig()
    """The deep branch."""
    gram_bits: int = Field(18, ge=8, le=24)
    """The wide branch has ``2 ** gram_bits`` weights per head."""
    max_tokens: int = Field(128, ge=16, le=512)
    """The longest window; longer texts are read in overlapping windows."""


class WideAndDeep(nnx.Module):
    """Logits of every head from token ids and n-grams.

    Args:
        config: shapes.
        heads: number of outputs.
        rngs: initialises what no pretrained weights fill.
    """

    def __init__(self, config: ModelConfig, heads: int, *, rngs: nnx.Rngs) -> None:
        width = config.encoder.hidden_size
        self.encoder = Encoder(config.encoder, rngs=rngs)
        self.queries = nnx.Param(0.02 * jax.random.normal(rngs.params(), (width, heads)))
        self.mean_head = Linear(width, heads, rngs=rngs)
        self.attention_head = nnx.Param(0.02 * jax.random.normal(rngs.params(), (heads, width)))
        self.wide = nnx.Param(jnp.zeros((2**config.gram_bits, heads)))
        self.wide_scale: nnx.Param[Array] | None = nnx.data(None)

    def __call__(
        self,
        batch: Batch,
        *,
        precision: Precision = "float32",
        dropout: Dropout | None = None,
        words: Array | None = None,
    ) -> Array:
        """Logits.

        Args:
            batch: ``ids``, ``types`` (B, S), ``length`` (B,) and ``grams`` (B, G), as `Featuriser.pad` makes them.
            precision: of the encoder's products.
            dropout: for training.
            words: word embeddings (B, S, width) to use in place of those of ``ids`` (for attributions).

        Returns:
            float32 (B, heads).
        """
        words = self.encoder.embed_words(batch["ids"]) if words is None else words
        vectors = self.encoder(words, batch["types"], batch["length"], precision=precision, dropout=dropout)
        return self._deep(vectors, batch["length"]) + self.wide_logits(batch["grams"])

    def wide_logits(self, grams: Array) -> Array:
        """The wide branch: grams (B, G), -1 for none -> (B, heads). An n-gram weighs 1 / sqrt(distinct ones)."""
        present = grams >= 0
        rows = self.wide[...][jnp.maximum(grams, 0)].astype(jnp.float32)
        total = jnp.sum(jnp.where(present[..., None], rows, 0.0), axis=1)
        if self.wide_scale is not None:
            total = total * self.wide_scale[...]
        return total * jax.lax.rsqrt(jnp.maximum(jnp.sum(present, axis=1, dtype=jnp.float32), 1.0))[:, None]

    def _deep(self, vectors: Array, length: Array) -> Array:
        """Mean pooling (the one that the encoder was pretrained with) plus one attention pool per head."""
        inside = (jnp.arange(vectors.shape[1]) < length[:, None])[..., None]
        count = jnp.maximum(length, 1)[:, None].astype(jnp.float32)
        mean = jnp.sum(jnp.where(inside, vectors, 0.0), axis=1) / count
        scores = jnp.where(inside, vectors @ self.queries[...], -1e9)
        weights = jax.nn.softmax(scores, axis=1)
        values = vectors @ self.attention_head[...].T
        return self.mean_head(mean, "float32") + jnp.sum(weights * values, axis=1)


def build(config: ModelConfig, heads: int, seed: int = 0) -> WideAndDeep:
    """A classifier with random weights: the start of training, or the shell that stored weights fill."""
    return WideAndDeep(config, heads, rngs=nnx.Rngs(params=seed))


def split(model: nnx.Module) -> tuple[Leaves, Callable[[Leaves], Any]]:
    """The model's arrays, and the function that makes the model of such arrays again.

    Compiled functions take the flat list: walking the module tree costs milliseconds a call in ``nnx.jit``, the list
    a tenth of one.
    """
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)
    return leaves, lambda arrays: nnx.merge(graph, jax.tree.unflatten(tree, arrays))


def named_arrays(model: nnx.Module) -> dict[str, Array]:
    """Every array under its dotted path, as safetensors stores it."""
    flat = nnx.to_flat_state(nnx.state(model))
    return {".".join(str(part) for part in path): variable[...] for path, variable in flat}
