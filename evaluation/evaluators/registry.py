"""Evaluators by name: the ones that ship, and those that other packages add by entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from evaluation.evaluators.protocol import Evaluator
from runs.errors import UserError, unknown_name
from runs.identity import files_digest

ENTRY_POINT_GROUP = "constitutional_ai.evaluators"
"""A package adds an evaluator with an entry point here: name = "package.module:EvaluatorClass"."""

BUILT_IN = ("harm_prevention", "truthfulness", "helpfulness", "fairness")
"""The principle evaluators, in the order in which tables show them; each is a module beside this one."""

EvaluatorClass = TypeVar("EvaluatorClass", bound=Callable[[], Evaluator])

_factories: dict[str, Callable[[], Evaluator]] = {}


def register(name: str) -> Callable[[EvaluatorClass], EvaluatorClass]:
    """Class decorator: make an evaluator known as ``name``.

    Raises:
        ValueError: another class has that name.
    """

    def keep(factory: EvaluatorClass) -> EvaluatorClass:
        if name in _factories and _factories[name] is not factory:
            raise ValueError(f"two evaluators are called {name!r}")
        _factories[name] = factory
        return factory

    return keep


@cache
def _plug_ins() -> dict[str, EntryPoint]:
    """Other packages' evaluators by name; looked up once, since it reads every installed package's metadata."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def names() -> list[str]:
    """Every known evaluator: the built-in ones first, in their order, then the others by name."""
    for module in BUILT_IN:
        import_module(f"evaluation.evaluators.{module}")
    return [*BUILT_IN, *sorted((set(_factories) | set(_plug_ins())) - set(BUILT_IN))]


def get(wanted: Iterable[str] | None = None) -> list[Evaluator]:
    """The evaluators called ``wanted``, in that order without doubles; all built-in ones for None.

    Raises:
        UsageError: a name is unknown; the nearest known one is offered.
        UserError: a plug-in does not load, or is not an evaluator.
    """
    known = names()
    chosen = list(dict.fromkeys(BUILT_IN if wanted is None else wanted))
    for name in chosen:
        if name not in known:
            raise unknown_name("evaluator", name, known)
    return [_make(name) for name in chosen]


def _make(name: str) -> Evaluator:
    factory = _factories.get(name)
    if factory is None:
        point = _plug_ins()[name]
        try:
            factory = point.load()
        except (ImportError, AttributeError) as error:
            raise UserError(f"The evaluator plug-in '{name}' ({point.value}) does not load.", why=str(error)) from error
    made = factory()
    if not isinstance(made, Evaluator):
        raise UserError(f"'{name}' is registered as an evaluator but does not have its shape.", why=repr(made))
    return made


@cache
def code_version() -> str:
    """Digest of the shipped evaluators' code and word lists: any edit gives a run another identity."""
    folder = Path(__file__).parent
    return files_digest([*folder.glob("*.py"), *folder.glob("*.yaml")], folder)[:12]
