"""Matrix products at the precision that the hardware is fast at.

XLA on CPU reaches the matrix units (AMX, AVX512-BF16) only for products of bfloat16 operands that accumulate in
float32: a bfloat16 result type, as ``nnx.Linear(dtype=bfloat16)`` asks for, falls back to the float32 path. The
transpose that JAX derives for such a product has a bfloat16 result again, so that training needs the backward written
out.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

Precision = Literal["float32", "bfloat16", "int8"]


def training_precision() -> Precision:
    """The fast one on this machine: bfloat16 where the CPU has units for it (or on an accelerator), else float32."""
    if jax.default_backend() != "cpu":
        return "bfloat16"
    return "bfloat16" if _cpu_flags() & {"amx_bf16", "avx512_bf16"} else "float32"


def scoring_precision() -> Precision:
    """The fast one on this machine: int8 where the CPU has a matrix unit for it, else as in training."""
    if jax.default_backend() == "cpu" and "amx_int8" in _cpu_flags():
        return "int8"
    return training_precision()


def compiler_options(precision: Precision) -> dict[str, int]:
    """What XLA should know when it compiles a scoring function.

    LLVM keeps to 256-bit vectors by default; what stands between int8 products gains a tenth from all 512.
    """
    wide = precision == "int8" and jax.default_backend() == "cpu" and "avx512f" in _cpu_flags()
    return {"xla_cpu_prefer_vector_width": 512} if wide else {}


@functools.cache
def _cpu_flags() -> frozenset[str]:
    information = Path("/proc/cpuinfo")
    return frozenset(information.read_text(encoding="utf-8").split()) if information.exists() else frozenset()


def dot(x: Array, kernel: Array, precision: Precision, *, output_major: bool = False) -> Array:
    """``x @ kernel`` in float32. ``int8`` is for `quantised_dot`.

    Args:
        x: (..., n).
        kernel: (n, m), or (m, n) where ``output_major``, which bfloat16 has no gradient for.
        precision: of the operands.
        output_major: how the kernel lies.

    Returns:
        float32 (..., m).
    """
    if precision == "bfloat16" and not output_major:
        return _dot_bf16(x, kernel)
    narrow = x.astype(jnp.bfloat16) if precision == "bfloat16" else x
    return _product(narrow, kernel, (x.ndim - 1,), (int(output_major),))


def quantised_dot(x: Array, kernel: Array, scale: Array, *, output_major: bool = False) -> Array:
    """``x @ (kernel * scale)`` with int8 operands and int32 accumulation (W8A8, dynamic).

    Args:
        x: float32 (..., n), quantised here with one scale per row (per token).
        kernel: int8 (n, m), or (m, n) where ``output_major``.
        scale: float32 (m,), one per output channel.
        output_major: how the kernel lies.
    """
    # XLA on CPU has a fast kernel for plain reductions and none for |x|: a tenth of the time of a short call.
    largest = jnp.maximum(jnp.max(x, axis=-1, keepdims=True), -jnp.min(x, axis=-1, keepdims=True))
    bound = jnp.maximum(largest, 1e-8) / 127.0
    quantised = jnp.round(x / bound).astype(jnp.int8)
    total = _product(quantised, kernel, (x.ndim - 1,), (int(output_major),), jnp.int32)
    return total.astype(jnp.float32) * bound * scale


def quantise(kernel: Array) -> tuple[Array, Array]:
    """Symmetric int8 with one scale per output channel: kernel (n, m) -> int8 (n, m), float32 (m,)."""
    scale = jnp.maximum(jnp.max(jnp.abs(kernel), axis=0), 1e-12) / 127.0
    return jnp.round(kernel / scale).astype(jnp.int8), scale.astype(jnp.float32)


@jax.custom_vjp
def _dot_bf16(x: Array, kernel: Array) -> Array:
    return _product(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), (x.ndim - 1,), (0,))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    narrow, weights = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _product(narrow, weights, (x.ndim - 1,), (0,)), (narrow, weights)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    narrow = gradient.astype(jnp.bfloat16)
    by_row = narrow.reshape(-1, narrow.shape[-1])
    return _product(narrow, kernel, (x.ndim - 1,), (1,)), _product(_transposed(x), by_row, (1,), (0,))


_dot_bf16.defvjp(_forward, _backward)


def _product(
    a: Array, b: Array, axes_a: tuple[int, ...], axes_b: tuple[int, ...], total: DTypeLike = jnp.float32
) -> Array:
    return lax.dot_general(a, b, ((axes_a, axes_b), ((), ())), preferred_element_type=total)


def _transposed(x: Array) -> Array:
    """X (..., n) as (n, rows), copied.

    XLA folds a plain transpose into the product, and its fast kernel on CPU does not take a left operand that is
    contracted over its first axis: half the rate. A transpose between two reshapes is not folded.
    """
    flat = x.reshape(-1, x.shape[-1])
    rows = flat.shape[0]
    if rows % 16:
        return flat.T
    return flat.reshape(rows // 16, 16, -1).transpose(2, 0, 1).reshape(-1, rows)
