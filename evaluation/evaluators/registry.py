"""Evaluators by name: the ones that ship, and those that other packages add by entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple, TypeVar

from evaluation.evaluators.guarded import Guarded
from evaluation.evaluators.protocol import Evaluator
from runs.errors import UsageError, UserError, unknown_name
from runs.identity import digest, files_digest

ENTRY_POINT_GROUP = "constitutional_ai.evaluators"
"""A package adds an evaluator with an entry point here: name = "package.module:EvaluatorClass"."""

BUILT_IN = ("harm_prevention", "truthfulness", "helpfulness", "fairness")
"""The principle evaluators, in the order in which tables show them; each is a module beside this one."""
OPTIONAL = {
    "refusal": "refusal",
    "harmless_preference": "preference",
    "helpful_preference": "preference",
    "harmless_preference_classifier": "preference",
    "helpful_preference_classifier": "preference",
    "safety_classifier": "classifier",
    "safety_classifier_response": "classifier",
    "judge": "judge",
}
"""Evaluators that ship and are used when they are named → the module beside this one that has them."""

EvaluatorFactory = TypeVar("EvaluatorFactory", bound=Callable[[], Evaluator])

_factories: dict[str, Callable[[], Evaluator]] = {}

_JUDGE = "judge"
"""How the names of the judge's modules begin."""


class Entry(NamedTuple):
    """A line of the evaluators' list."""

    name: str
    version: str
    """Or why there is none: a missing artifact is no reason for a list to fail."""
    about: str


def register(name: str) -> Callable[[EvaluatorFactory], EvaluatorFactory]:
    """Decorator of a class, or of a function without arguments: make what it builds known as ``name``.

    Raises:
        ValueError: another class has that name.
    """

    def keep(factory: EvaluatorFactory) -> EvaluatorFactory:
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
    """Every known evaluator: the principles first, then the others that ship, then plug-ins by name."""
    shipped = [*BUILT_IN, *OPTIONAL]
    for module in (*BUILT_IN, *dict.fromkeys(OPTIONAL.values())):
        import_module(f"evaluation.evaluators.{module}")
    return [*shipped, *sorted((set(_factories) | set(_plug_ins())) - set(shipped))]


def get(wanted: Iterable[str] | None = None) -> list[Evaluator]:
    """The evaluators called ``wanted``, in that order without doubles; the principles for None.

    Raises:
        UsageError: a name is unknown (the nearest known one is offered), or a judge would be the only instrument.
        UserError: a plug-in does not load or is not an evaluator, or what an evaluator needs is absent.
    """
    known = names()
    chosen = list(dict.fromkeys(BUILT_IN if wanted is None else wanted))
    for name in chosen:
        if name not in known:
            raise unknown_name("evaluator", name, known)
    made = [_make(name) for name in chosen]
    if made and all(getattr(evaluator, "is_judge", False) for evaluator in made):
        raise UsageError(
            "A judge cannot be the only evaluator.",
            why="A judge's refusals and faults fall where answers are worst; something must stand beside it.",
            mend="Name another one, such as: --evaluators harm_prevention helpfulness judge",
        )
    for evaluator in made:
        check = getattr(evaluator, "check", None)
        if check is not None:
            check()
    return made


def entries() -> list[Entry]:
    """Every known evaluator with what it says of itself; nothing is loaded that is not there."""
    found = []
    for name in names():
        evaluator = _make(name)
        about = getattr(evaluator, "about", None) or _factories[name].__doc__ or type(evaluator).__doc__ or ""
        try:
            version = evaluator.version
        except UserError as error:
            version = f"not available: {error.what}"
        found.append(Entry(name, version, about.strip().split("\n", 1)[0]))
    return found


def _make(name: str) -> Evaluator:
    factory = _factories.get(name)
    if factory is None:
        point = _plug_ins()[name]
        try:
            factory = point.load()
        except (ImportError, AttributeError) as error:
            raise UserError(f"The evaluator plug-in '{name}' ({point.value}) does not load.", why=str(error)) from error
    made = factory()
    if not _has_shape(made):
        raise UserError(f"'{name}' is registered as an evaluator but does not have its shape.", why=repr(made))
    return made if name in BUILT_IN or name in OPTIONAL else Guarded(made)


def _has_shape(made: object) -> bool:
    """Whether ``made`` has an evaluator's members. `isinstance` would read them, and a version may need an artifact."""
    members = ("name", "version", "applies_to", "score")
    return all(hasattr(type(made), member) or member in vars(made) for member in members)


@cache
def code_version() -> str:
    """Digest of the fitted evaluators' code, word lists and weights: any edit gives a run another identity.

    The judge has a digest of its own (`judge_version`): an edit of it leaves the report card of the others valid.
    """
    folder = Path(__file__).parent
    files = [path for kind in ("*.py", "*.yaml", "*.json") for path in folder.glob(kind)]
    return files_digest([path for path in files if not path.name.startswith(_JUDGE)], folder)[:12]


def judge_version() -> str:
    """Digest of the judge's code and of what it shares with the others."""
    folder = Path(__file__).parent
    return digest({"shared": code_version(), "own": files_digest(folder.glob(f"{_JUDGE}*.py"), folder)})[:12]
