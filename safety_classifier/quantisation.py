"""Int8 weights: a quarter of the bytes on disk, and whole-number products on CPU.

Symmetric rounding with one scale per output channel of a kernel, per row of the word embeddings and per head of the
n-gram table (Jacob et al. 2018, section 2; Dettmers et al. 2022 on scales per row). Norms, biases, positions, pooling
and heads are a thirtieth of the bytes and the most sensitive: they stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from runs.config import StrictModel
from runs.errors import UsageError
from safety_classifier.encoder import Linear
from safety_classifier.model import Batch, Leaves, WideAndDeep, split
from safety_classifier.precision import Precision, compiler_options, quantise, scoring_precision

Storage = Literal["int8", "float32"]
"""How an artifact keeps its weights."""

PRECISIONS = ("auto", "float32", "bfloat16", "int8")


class QuantisationError(StrictModel):
    """What changed when the weights (or the products) lost precision."""

    rows: int
    largest: dict[str, float]
    """Head to the largest change of a logit."""
    mean: dict[str, float]
    """Head to the mean change of a logit, without sign."""
    flips: dict[str, float]
    """Head to the share of rows whose decision changed."""


def is_quantised(model: WideAndDeep) -> bool:
    """Whether the kernels are int8."""
    return model.encoder.words_scale is not None


def quantise_model(model: WideAndDeep) -> WideAndDeep:
    """A copy with int8 kernels, word embeddings and n-gram table. A quantised model comes back as it is."""
    if is_quantised(model):
        return model
    model = nnx.clone(model)
    for linear in _linears(model):
        kernel, scale = quantise(linear.kernel[...])
        linear.kernel, linear.scale = nnx.Param(kernel), nnx.Param(scale)
    words, words_scale = quantise(model.encoder.words[...].T)
    model.encoder.words, model.encoder.words_scale = nnx.Param(words.T), nnx.Param(words_scale)
    wide, wide_scale = quantise(model.wide[...])
    model.wide, model.wide_scale = nnx.Param(wide), nnx.Param(wide_scale)
    return model


def dequantise_model(model: WideAndDeep) -> WideAndDeep:
    """A copy with every array in float32. A model that is not quantised comes back as it is."""
    if not is_quantised(model):
        return model
    model = _dequantise_kernels(model, jnp.float32)
    encoder = model.encoder
    assert encoder.words_scale is not None
    assert model.wide_scale is not None
    encoder.words = nnx.Param(encoder.words[...].astype(jnp.float32) * encoder.words_scale[...][:, None])
    model.wide = nnx.Param(model.wide[...].astype(jnp.float32) * model.wide_scale[...])
    encoder.words_scale, model.wide_scale = nnx.data(None), nnx.data(None)
    return model


def resolve_precision(precision: str) -> Precision:
    """``auto`` as the precision that this machine scores fast at.

    Raises:
        UsageError: an unknown precision.
    """
    match precision:
        case "auto":
            return scoring_precision()
        case "float32" | "bfloat16" | "int8":
            return precision
    raise UsageError(f"Unknown precision '{precision}'.", mend=f"Known: {', '.join(PRECISIONS)}.")


def executable(model: WideAndDeep, precision: Precision) -> WideAndDeep:
    """``model`` with its kernels in the type that ``precision`` multiplies, as the product reads them quickest.

    The tables stay as stored: a gather reads few of their rows, and int8 rows take less room in the cache. Kernels are
    converted once here and not in every call.
    """
    match precision:
        case "int8":
            return _output_major(quantise_model(model))
        case "bfloat16":
            return _output_major(_dequantise_kernels(model, jnp.bfloat16))
        case "float32":
            return _dequantise_kernels(model, jnp.float32)


def compiled(model: WideAndDeep, precision: Precision) -> tuple[Leaves, Callable[[Leaves, Batch], jax.Array]]:
    """The arrays of `executable`, and the jitted function from them and a batch to logits (rows, heads)."""
    leaves, merge = split(executable(model, precision))

    def forward(arrays: Leaves, batch: Batch) -> jax.Array:
        logits: jax.Array = merge(arrays)(batch, precision=precision)
        return logits

    return leaves, jax.jit(forward, compiler_options=compiler_options(precision))


def quantisation_error(
    reference: WideAndDeep,
    changed: WideAndDeep,
    batches: Sequence[Batch],
    names: Sequence[str],
    *,
    precision: Precision = "float32",
    cutoffs: Sequence[float] | None = None,
) -> QuantisationError:
    """Compare logits and decisions of two models on the same rows.

    Args:
        reference: run in float32.
        changed: run in ``precision``.
        batches: as `Featuriser.pad` makes them; rows of length 0 are left out.
        names: the heads.
        precision: of ``changed``'s products.
        cutoffs: the logit from which each head says yes; zero by default.
    """
    before, after = [], []
    first, second = _forward(executable(reference, "float32"), "float32"), _forward(changed, precision)
    for batch in batches:
        present = np.asarray(batch["length"]) > 0
        before.append(first(batch)[present])
        after.append(second(batch)[present])
    old, new = np.concatenate(before), np.concatenate(after)
    cut = np.zeros(len(names)) if cutoffs is None else np.asarray(cutoffs)
    gap, flips = np.abs(new - old), (old >= cut) != (new >= cut)

    def by_head(values: npt.NDArray[np.floating[Any]]) -> dict[str, float]:
        return dict(zip(names, values.tolist(), strict=True))

    return QuantisationError(
        rows=len(old), largest=by_head(gap.max(0)), mean=by_head(gap.mean(0)), flips=by_head(flips.mean(0))
    )


def _forward(model: WideAndDeep, precision: Precision) -> Callable[[Batch], npt.NDArray[np.float32]]:
    leaves, forward = compiled(model, precision)
    return lambda batch: np.asarray(forward(leaves, batch))


def _linears(model: WideAndDeep) -> Iterator[Linear]:
    """The kernels worth the loss: those of the layers. The heads are tiny and close to the decision."""
    for layer in model.encoder.layers:
        yield from (layer.qkv, layer.out, layer.up, layer.down)


def _output_major(model: WideAndDeep) -> WideAndDeep:
    """A copy with kernels (out, in), which XLA's products on CPU need not rearrange in every call."""
    model = nnx.clone(model)
    for linear in _linears(model):
        linear.kernel, linear.output_major = nnx.Param(linear.kernel[...].T), True
    return model


def _dequantise_kernels(model: WideAndDeep, dtype: Any) -> WideAndDeep:
    model = nnx.clone(model)
    for linear in _linears(model):
        kernel = linear.kernel[...]
        if linear.scale is not None:
            kernel = kernel.astype(jnp.float32) * linear.scale[...]
            linear.scale = nnx.data(None)
        linear.kernel = nnx.Param(kernel.astype(dtype))
    return model
