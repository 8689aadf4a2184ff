"""The arrays of an artifact: into a model of the config's shape, and in and out of safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from runs.atomic import write_bytes
from runs.errors import IntegrityError, UsageError
from safety_classifier.model import ModelConfig, WideAndDeep, build, named_arrays
from safety_classifier.quantisation import Storage, quantise_model

Arrays = Mapping[str, NDArray[Any]]


def arrays_of(model: WideAndDeep) -> dict[str, NDArray[Any]]:
    """Every array under its dotted path.

    Raises:
        UsageError: a weight is not finite; it is named.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in named_arrays(model).items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            why = "Training diverged."
            raise UsageError(f"The weights '{name}' are not finite.", why=why, mend="Use an earlier checkpoint.")
    return arrays


def filled_model(config: ModelConfig, heads: int, storage: Storage, arrays: Arrays) -> WideAndDeep:
    """A model with these arrays; nothing random is drawn.

    Raises:
        IntegrityError: an array is missing, unknown, or of another shape or type than the config says; it is named.
    """

    def shell() -> WideAndDeep:
        model = build(config, heads)
        return quantise_model(model) if storage == "int8" else model

    model: WideAndDeep = nnx.eval_shape(shell)
    flat = nnx.to_flat_state(nnx.state(model))
    names = {".".join(str(part) for part in path): variable for path, variable in flat}
    odd = sorted(names.keys() ^ arrays.keys())
    if odd:
        raise _other_config(f"They {'lack' if odd[0] in names else 'have an unknown'} '{odd[0]}'.")
    filled = []
    for (path, variable), name in zip(flat, names, strict=True):
        array, wanted = arrays[name], variable.get_value()
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            there, due = f"{array.dtype}{list(array.shape)}", f"{wanted.dtype}{list(wanted.shape)}"
            raise _other_config(f"'{name}' is {there}; the config says {due}.")
        filled.append((path, variable.replace(jnp.asarray(array))))
    nnx.update(model, nnx.from_flat_state(filled))
    return model


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write a safetensors file. Raises `UserError` when the disk refuses."""
    from safetensors.numpy import save

    write_bytes(path, save(arrays))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file. Raises `IntegrityError` when it is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise IntegrityError(f"{path} is not a safetensors file.", why=str(error)) from error


def _other_config(why: str) -> IntegrityError:
    return IntegrityError(
        "weights.safetensors and config.json do not fit: the weights are of another config.",
        why=why,
        mend="Put the files of one run together, or rebuild the artifact.",
    )
