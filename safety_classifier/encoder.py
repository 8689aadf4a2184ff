"""BERT's encoder (Devlin et al. 2019) in Flax NNX: post-layer-norm transformer layers.

The same module holds MiniLM-L6, any BERT-base checkpoint, and models from scratch; `safety_classifier.pretrained` fills
it from safetensors.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from pydantic import Field

from runs.config import StrictModel
from safety_classifier.precision import Precision, dot, quantised_dot


class EncoderConfig(StrictModel):
    """Shape of the encoder, with the field names of BERT's own ``config.json``."""

    vocab_size: int = Field(30522, gt=0)
    """Word pieces."""
    hidden_size: int = Field(384, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(6, ge=1)
    """Transformer layers."""
    num_attention_heads: int = Field(12, ge=1)
    """Attention heads; divides ``hidden_size``."""
    intermediate_size: int = Field(1536, gt=0)
    """Width of the feed-forward layer."""
    max_position_embeddings: int = Field(512, ge=8)
    """The longest input in tokens."""
    type_vocab_size: int = Field(2, ge=1)
    """Segments: text or prompt, and response."""
    layer_norm_eps: float = 1e-12
    """Added to the variance in layer norms."""


class Linear(nnx.Module):
    """An affine map: x (..., in) -> (..., out), float32 out, at a chosen precision.

    After `safety_classifier.quantisation.quantise_model` the kernel is int8 and ``scale`` holds one factor per output
    channel; where ``output_major``, the kernel is (out, in).
    """

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, deviation: float = 0.02) -> None:
        self.kernel = nnx.Param(deviation * jax.random.normal(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.scale: nnx.Param[Array] | None = nnx.data(None)
        self.output_major = False

    def __call__(self, x: Array, precision: Precision) -> Array:
        """The map of ``x``, in float32."""
        kernel, major = self.kernel[...], self.output_major
        if self.scale is not None:
            return quantised_dot(x, kernel, self.scale[...], output_major=major) + self.bias[...]
        return dot(x, kernel, precision, output_major=major) + self.bias[...]


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, in float32 (Ba et al. 2016)."""

    def __init__(self, width: int, epsilon: float) -> None:
        self.scale, self.bias, self.epsilon = nnx.Param(jnp.ones(width)), nnx.Param(jnp.zeros(width)), epsilon

    def __call__(self, x: Array) -> Array:
        """``x`` (..., width) normalised."""
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + self.epsilon) * self.scale[...] + self.bias[...]


class Layer(nnx.Module):
    """Self-attention and feed-forward, each with residual and layer norm; query, key and value are one product."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = Linear(width, 3 * width, rngs=rngs)
        self.out = Linear(width, width, rngs=rngs)
        self.attention_norm = LayerNorm(width, config.layer_norm_eps)
        self.up = Linear(width, config.intermediate_size, rngs=rngs)
        self.down = Linear(config.intermediate_size, width, rngs=rngs)
        self.output_norm = LayerNorm(width, config.layer_norm_eps)

    def __call__(self, x: Array, bias: Array, precision: Precision, dropout: Dropout) -> Array:
        """Vectors x (B, S, width), bias (B, S) added to the scores of each key -> (B, S, width)."""
        attended = self.out(_attention(self.qkv(x, precision), bias, self.heads, precision), precision)
        x = self.attention_norm(x + dropout(attended))
        # The tanh form is within 5e-4 of the exact one, less than bfloat16 rounds off, and a tenth of a pass quicker.
        hidden = jax.nn.gelu(self.up(x, precision), approximate=precision != "float32")
        return self.output_norm(x + dropout(self.down(hidden, precision)))


class Dropout:
    """Inverted dropout (Srivastava et al. 2014) with keys folded from one; without a key it is the identity."""

    def __init__(self, rate: float = 0.0, key: Array | None = None) -> None:
        self.rate, self.key, self.calls = rate, key, 0

    def __call__(self, x: Array) -> Array:
        """``x`` with a share ``rate`` of its entries zeroed and the others scaled up."""
        if self.key is None or self.rate == 0.0:
            return x
        self.calls += 1
        kept = jax.random.bernoulli(jax.random.fold_in(self.key, self.calls), 1.0 - self.rate, x.shape)
        return jnp.where(kept, x / (1.0 - self.rate), 0.0)


class Encoder(nnx.Module):
    """Token ids to contextual vectors."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        if width % config.num_attention_heads:
            raise ValueError(
                f"hidden_size {width} is not a multiple of num_attention_heads {config.num_attention_heads}"
            )
        self.config = config
        self.words = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.vocab_size, width)))
        self.words_scale: nnx.Param[Array] | None = nnx.data(None)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.max_position_embeddings, width)))
        self.types = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.type_vocab_size, width)))
        self.embedding_norm = LayerNorm(width, config.layer_norm_eps)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def embed_words(self, ids: Array) -> Array:
        """Word embeddings: ids (B, S) -> float32 (B, S, width). Integrated gradients start here."""
        rows = self.words[...][ids]
        if self.words_scale is not None:
            return rows.astype(jnp.float32) * self.words_scale[...][ids][..., None]
        return rows

    def __call__(
        self,
        words: Array,
        types: Array,
        length: Array,
        *,
        precision: Precision = "float32",
        dropout: Dropout | None = None,
    ) -> Array:
        """Contextual vectors.

        Args:
            words: word embeddings of `embed_words`, (B, S, width).
            types: segment of each token, int (B, S).
            length: tokens of each row, int (B,); those beyond are masked.
            precision: of the products.
            dropout: for training; None switches it off.

        Returns:
            float32 (B, S, width).
        """
        dropout = dropout or Dropout()
        size = words.shape[1]
        x = words + self.positions[...][:size] + self.types[...][types]
        x = dropout(self.embedding_norm(x))
        bias = jnp.where(jnp.arange(size) < length[:, None], 0.0, -1e9)
        for layer in self.layers:
            x = layer(x, bias, precision, dropout)
        return x


def _attention(qkv: Array, bias: Array, heads: int, precision: Precision) -> Array:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1): qkv (B, S, 3 width), bias (B, S) -> (B, S, width)."""
    batch, size, triple = qkv.shape
    width = triple // 3 // heads
    # Heads before positions: the products then have leading batch axes, which is four times as fast on a CPU.
    query, key, value = jnp.transpose(qkv.reshape(batch, size, 3, heads, width), (2, 0, 3, 1, 4))
    scores = jnp.einsum("bhqd,bhkd->bhqk", query * (1.0 / math.sqrt(width)), key) + bias[:, None, None, :]
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    # Divided after the product, as FlashAttention does (Dao et al. 2022): fewer entries, and one pass over them less.
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, value) / jnp.sum(weights, axis=-1, keepdims=True)
    by_token = jnp.transpose(mixed, (0, 2, 1, 3)).reshape(batch, size, heads * width)
    if precision == "int8":  # several passes read the result: without a barrier XLA transposes it anew in each
        by_token = jax.lax.optimization_barrier(by_token)
    return by_token
