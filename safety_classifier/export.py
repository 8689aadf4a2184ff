"""The forward pass as StableHLO, so that a server needs JAX and the artifact, and none of our model code.

``jax.export`` with symbolic row, token and n-gram dimensions, for CPU, CUDA and TPU in one file. The weights stay in
``weights.safetensors``: they are the first arguments, in the order that ``model.json`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from numpy.typing import NDArray
from pydantic import ValidationError

from runs.atomic import write_bytes, write_text
from runs.config import StrictModel
from runs.errors import IntegrityError, UsageError
from runs.identity import file_digest

GRAPH, SIGNATURE, WEIGHTS = "model.stablehlo", "model.json", "weights.safetensors"
PLATFORMS = ("cpu", "cuda", "tpu")
INPUTS = {"ids": "(rows, tokens)", "types": "(rows, tokens)", "length": "(rows,)", "grams": "(rows, grams)"}
"""The batch, in the order of the arguments after the weights; all int32."""


class Signature(StrictModel):
    """``model.json``: how to call the graph."""

    schema_version: int = 1
    weights: tuple[str, ...]
    """Names in ``weights.safetensors``, in the order of the first arguments."""
    inputs: dict[str, str]
    """Name and shape of the arguments that follow, in order; int32. ``grams`` is filled up with -1."""
    longest: int
    """Most tokens of a row."""
    output: str = "float32 logits (rows, heads)"
    heads: tuple[str, ...]
    """Columns of the output."""
    precision: Literal["int8", "float32"]
    """Of the encoder's products."""
    platforms: tuple[str, ...] = PLATFORMS
    sha256: str
    """Of ``model.stablehlo``."""


@dataclass(frozen=True)
class Exported:
    """A graph that was read, with its weights on the device."""

    signature: Signature
    weights: list[Any]
    call: Callable[..., Any]

    def __call__(self, batch: Mapping[str, Any]) -> NDArray[np.float32]:
        """Logits (rows, heads) of a batch as `safety_classifier.features.Featuriser.pad` makes it.

        Raises:
            UsageError: the rows are padded to more tokens than the model has positions.
        """
        tokens, longest = batch["ids"].shape[1], self.signature.longest
        if tokens > longest:
            raise UsageError(f"A batch has {tokens} tokens a row; the model reads {longest}.", mend="Use windows.")
        return np.asarray(self.call(*self.weights, *(batch[name] for name in self.signature.inputs)))


def export_artifact(folder: Path, model: Any, heads: tuple[str, ...]) -> None:
    """Write the graph and its signature into ``folder``.

    Args:
        folder: the artifact under construction.
        model: a `safety_classifier.model.WideAndDeep` as it is stored.
        heads: columns of the output.

    Raises:
        UserError: the disk refused.
    """
    from safety_classifier.model import named_arrays, split
    from safety_classifier.quantisation import is_quantised

    leaves, merge = split(model)
    precision: Literal["int8", "float32"] = "int8" if is_quantised(model) else "float32"

    def forward(*arguments: Any) -> Any:
        batch = dict(zip(INPUTS, arguments[len(leaves) :], strict=True))
        return merge(list(arguments[: len(leaves)]))(batch, precision=precision)

    longest = model.encoder.config.max_position_embeddings
    rows, tokens, grams = export.symbolic_shape("rows, tokens, grams", constraints=(f"tokens <= {longest}",))
    dimensions = {"ids": (rows, tokens), "types": (rows, tokens), "length": (rows,), "grams": (rows, grams)}
    shape_of: Any = jax.ShapeDtypeStruct
    shapes = [shape_of(leaf.shape, leaf.dtype) for leaf in leaves]
    shapes += [shape_of(dimensions[name], jnp.int32) for name in INPUTS]
    with _without_locations():
        graph = export.export(jax.jit(forward), platforms=PLATFORMS)(*shapes)
    write_bytes(folder / GRAPH, bytes(graph.serialize()))
    signature = Signature(
        weights=tuple(named_arrays(model)),
        inputs=INPUTS,
        longest=longest,
        heads=heads,
        precision=precision,
        sha256=file_digest(folder / GRAPH),
    )
    write_text(folder / SIGNATURE, signature.model_dump_json(indent=2) + "\n")


@contextmanager
def _without_locations() -> Iterator[None]:
    """Lower without source locations: they would carry the paths of this machine into the file."""
    settings: Any = jax.config
    limit = settings.jax_traceback_in_locations_limit
    settings.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        settings.update("jax_traceback_in_locations_limit", limit)


def load_exported(folder: Path) -> Exported:
    """Read the graph and the weights of an artifact; no model code is involved.

    Raises:
        IntegrityError: a file is missing, or graph and signature do not belong together.
    """
    from safetensors.numpy import load_file

    missing = [name for name in (GRAPH, SIGNATURE, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise IntegrityError(f"{folder} has no {', '.join(missing)}.", mend="Save the artifact again.")
    try:
        signature = Signature.model_validate_json((folder / SIGNATURE).read_bytes())
    except ValidationError as error:
        raise IntegrityError(f"{folder / SIGNATURE} is not a signature.", why=str(error.errors()[0]["msg"])) from error
    if file_digest(folder / GRAPH) != signature.sha256:
        what = f"{folder / GRAPH} is not the graph that {SIGNATURE} describes."
        raise IntegrityError(what, mend="Save the artifact again.")
    arrays = load_file(folder / WEIGHTS)
    absent = [name for name in signature.weights if name not in arrays]
    if absent:
        raise IntegrityError(f"{folder / WEIGHTS} has no '{absent[0]}'.", mend="Save the artifact again.")
    graph = export.deserialize(bytearray((folder / GRAPH).read_bytes()))
    return Exported(signature, [jnp.asarray(arrays[name]) for name in signature.weights], jax.jit(graph.call))
