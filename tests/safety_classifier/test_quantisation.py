"""Int8 storage: small errors, the same decisions, and back again."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from runs.errors import UsageError
from safety_classifier.features import Featuriser
from safety_classifier.labels import LABELS
from safety_classifier.model import Batch, WideAndDeep, named_arrays
from safety_classifier.precision import Precision, compiler_options, training_precision
from safety_classifier.quantisation import (
    dequantise_model,
    executable,
    is_quantised,
    quantisation_error,
    quantise_model,
    resolve_precision,
)
from tests.safety_classifier.conftest import SENTENCES


@pytest.fixture(scope="module")
def batches(tiny_featuriser: Featuriser) -> list[Batch]:
    encoded = tiny_featuriser.encode([" ".join(text.split()[i : i + 6]) for text in SENTENCES for i in range(12)])
    return [tiny_featuriser.pad(encoded, range(len(encoded)), 24, len(encoded) + 3)]


def test_kernels_and_tables_become_int8_and_the_rest_stays(tiny_model: WideAndDeep) -> None:
    stored = named_arrays(quantise_model(tiny_model))
    narrow = {name for name, array in stored.items() if array.dtype == jnp.int8}
    assert {"wide", "encoder.words", "encoder.layers.0.qkv.kernel", "encoder.layers.1.down.kernel"} <= narrow
    assert len(narrow) == 2 + 4 * 2
    assert all(array.dtype == jnp.float32 for name, array in stored.items() if name not in narrow)
    assert not is_quantised(tiny_model)  # the original is left alone


def test_no_array_moves_by_more_than_half_a_step(tiny_model: WideAndDeep) -> None:
    before = named_arrays(tiny_model)
    after = named_arrays(dequantise_model(quantise_model(tiny_model)))
    assert before.keys() == after.keys()
    for name, array in before.items():
        axis = {"encoder.words": 1}.get(name, 0)
        step = np.abs(array).max(axis, keepdims=True) / 127
        assert np.all(np.abs(np.asarray(after[name] - array)) <= 0.5001 * step + 1e-9), name


def test_quantising_twice_changes_nothing(tiny_model: WideAndDeep) -> None:
    once = quantise_model(tiny_model)
    assert quantise_model(once) is once
    assert dequantise_model(tiny_model) is tiny_model


def test_storage_moves_logits_little(tiny_model: WideAndDeep, batches: list[Batch]) -> None:
    stored = quantise_model(tiny_model)
    error = quantisation_error(tiny_model, stored, batches, LABELS.names)
    assert error.rows == 48  # the padding is left out
    assert max(error.largest.values()) < 0.15
    assert max(error.mean.values()) < 0.05
    assert max(error.flips.values()) <= 0.05


def test_whole_number_products_move_logits_little(tiny_model: WideAndDeep, batches: list[Batch]) -> None:
    error = quantisation_error(tiny_model, quantise_model(tiny_model), batches, LABELS.names, precision="int8")
    assert max(error.mean.values()) < 0.1
    assert error.mean.keys() == set(LABELS.names)


def test_cutoffs_decide_what_a_flip_is(tiny_model: WideAndDeep, batches: list[Batch]) -> None:
    never = quantisation_error(
        tiny_model, quantise_model(tiny_model), batches, LABELS.names, cutoffs=[1e6] * len(LABELS.names)
    )
    assert set(never.flips.values()) == {0.0}


def test_a_stored_model_in_float32_equals_its_float32_copy(tiny_model: WideAndDeep, batches: list[Batch]) -> None:
    stored = quantise_model(tiny_model)
    error = quantisation_error(dequantise_model(stored), stored, batches, LABELS.names)
    assert max(error.largest.values()) < 2e-5


def test_kernels_have_the_type_that_is_multiplied(tiny_model: WideAndDeep) -> None:
    stored = quantise_model(tiny_model)
    for precision, dtype in (("int8", jnp.int8), ("bfloat16", jnp.bfloat16), ("float32", jnp.float32)):
        model = executable(stored, precision)  # type: ignore[arg-type]
        assert model.encoder.layers[0].up.kernel[...].dtype == dtype
        assert model.encoder.words[...].dtype == jnp.int8


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_kernels_laid_out_for_the_product_multiply_to_the_same_logits(
    tiny_model: WideAndDeep, batches: list[Batch], precision: Precision
) -> None:
    stored = quantise_model(tiny_model)
    quick = executable(stored, precision)
    plain = nnx.clone(quick)
    for one, other in zip(plain.encoder.layers, stored.encoder.layers, strict=True):
        assert one.up.kernel[...].shape == other.up.kernel[...].shape[::-1]
        for linear in (one.qkv, one.out, one.up, one.down):
            linear.kernel, linear.output_major = nnx.Param(linear.kernel[...].T), False
    np.testing.assert_array_equal(quick(batches[0], precision=precision), plain(batches[0], precision=precision))


@pytest.mark.parametrize(
    ("flags", "training", "scoring", "options"),
    [
        ({"avx2"}, "float32", "float32", {}),
        ({"avx512f", "avx512_bf16"}, "bfloat16", "bfloat16", {}),
        ({"avx512f", "amx_bf16", "amx_int8"}, "bfloat16", "int8", {"xla_cpu_prefer_vector_width": 512}),
    ],
)
def test_the_processor_decides_the_precision(
    monkeypatch: pytest.MonkeyPatch,
    flags: set[str],
    training: Precision,
    scoring: Precision,
    options: dict[str, int],
) -> None:
    monkeypatch.setattr("safety_classifier.precision._cpu_flags", lambda: frozenset(flags))
    assert (training_precision(), resolve_precision("auto")) == (training, scoring)
    assert compiler_options(scoring) == options


def test_unknown_precision() -> None:
    with pytest.raises(UsageError, match="Unknown precision 'int4'"):
        resolve_precision("int4")
