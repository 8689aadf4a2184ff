"""Importing Gradio in half the time, and without writing into the installed packages.

On import Gradio parses the source of every component and writes editor stubs (``.pyi``) beside it: half of the import's
time, and a failure in the making where packages are read-only. Nothing at run time reads the stubs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MODULE, _FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


class _WithoutStubs(Loader):
    """Runs the module as it is, then takes the writing of stubs out."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if hasattr(module, _FUNCTION):  # a later Gradio may have none
            setattr(module, _FUNCTION, _write_nothing)


class _Finder(MetaPathFinder):
    """Finds the one module that is changed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithoutStubs(spec.loader)
        return spec


def _write_nothing(*arguments: Any) -> None:
    """Stands for the writer of stubs."""


def prepare_gradio() -> None:
    """Call before the first import of Gradio; no effect afterwards. Also turns its telemetry off."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if "gradio" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
