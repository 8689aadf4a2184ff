"""Strict configs: an unknown key is an error that names the file, the key and the nearest valid one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from runs.atomic import write_text
from runs.errors import UsageError
from runs.paths import shown


class StrictModel(BaseModel):
    """Base of every config and record: frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


Config = TypeVar("Config", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UsageError: the file is missing, not UTF-8, not YAML, or not a mapping; the line is named where known.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"There is no config file {path}.", mend="See configs/ for the ones that ship.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown(path)} cannot be read.", why=str(error)) from error
    except yaml.YAMLError as error:
        raise UsageError(f"{shown(path)} is not valid YAML.", why=str(error)) from error
    if not isinstance(value, dict):
        raise UsageError(f"{shown(path)} must hold a mapping of keys to values.")
    return value


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``values`` with each ``a.b=value`` set; the value is read as YAML.

    Raises:
        UsageError: an override has no ``=``, or its path leads through something that is not a mapping.
    """
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for override in overrides:
        dotted, separator, text = override.partition("=")
        if not separator or not dotted:
            raise UsageError(f"--set {override}: expected KEY=VALUE.", mend="For example: --set train.seed=1")
        *parents, last = dotted.strip().split(".")
        node = merged
        for parent in parents:
            child = node.get(parent)
            if child is None:
                child = {}
            if not isinstance(child, dict):
                raise UsageError(f"--set {override}: '{parent}' is a value, not a section.")
            node[parent] = child = dict(child)
            node = child
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {override}: the value is not valid YAML.", why=str(error)) from error
    return merged


def parse(model: type[Config], values: dict[str, Any], *, source: str) -> Config:
    """Validate ``values`` as ``model``.

    Raises:
        UsageError: every fault, one a line, with its dotted key and, for an unknown key, the nearest valid one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = [_describe(model, fault["loc"], fault["type"], fault["msg"]) for fault in error.errors()]
        raise UsageError(f"{source} is not valid:", why="\n".join(f"  {fault}" for fault in faults)) from error


def load(model: type[Config], path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read ``path``, apply ``overrides`` and validate. Raises `UsageError` as `read_yaml` and `parse` do."""
    return parse(model, apply_overrides(read_yaml(path), overrides), source=shown(path))


def save(config: BaseModel, path: Path) -> None:
    """Write the resolved config as YAML, atomically."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100))


def _describe(model: type[BaseModel], location: tuple[int | str, ...], kind: str, message: str) -> str:
    dotted = ".".join(str(part) for part in location) or "(top level)"
    if kind != "extra_forbidden":
        return f"'{dotted}': {message}"
    known = _fields_at(model, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(sorted(known))}."
    return f"'{dotted}': unknown key; {hint}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the model found by walking ``location`` down from ``model``."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None:
            return []
        field = current.model_fields.get(str(part))
        if field is not None:
            current = _model_in(field.annotation)
    return list(current.model_fields) if current is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside ``annotation`` (through Optional, list, dict and tuple), if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, list, dict, tuple):
        for argument in get_args(annotation):
            found = _model_in(argument)
            if found is not None:
                return found
    return None
