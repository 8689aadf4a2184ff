"""Scorers: what the recipe best-of-n chooses by. They come from other packages, by entry point.

A package declares ``name = "package.module:make"`` in the group ``constitutional_ai.scorers``; ``make`` takes the names
that the config lists and gives a `Scorer`. This project's own `evaluation` package declares one of its evaluators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from critique_revision.config import ScoringSettings
from inference.records import FinishReason, Prompt
from runs.errors import UserError, unknown_name

GROUP = "constitutional_ai.scorers"
"""The entry-point group."""


@dataclass(frozen=True)
class Scored:
    """What a scorer says of one answer."""

    value: float | None
    """In [0, 1], higher is better; None where the answer could not be scored."""
    why: str = ""
    """Why there is no value."""
    parts: dict[str, float] = field(default_factory=dict)
    """What ``value`` was made from, by name."""


class Scorer(Protocol):
    """Scores answers, without state or randomness."""

    @property
    def identity(self) -> dict[str, str]:
        """Name → version of everything that could change a score; part of a run's identity."""
        ...

    def score(self, prompt: Prompt, answer: str, finish_reason: FinishReason) -> Scored:
        """Score one answer.

        Args:
            prompt: what was asked; ``expected`` is ``refuse`` for prompts tagged ``red_team``, else ``answer``.
            answer: the model's text.
            finish_reason: ``length`` when the text was cut at the token limit.
        """
        ...


def open_scorer(settings: ScoringSettings) -> Scorer:
    """The scorer that a config names.

    Raises:
        UsageError: no package declares it, or it does not know one of the names.
        UserError: it does not load.
    """
    known: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
    if settings.scorer not in known:
        raise unknown_name("scorer", settings.scorer, known)
    point = known[settings.scorer]
    try:
        make: Callable[[Sequence[str]], Scorer] = point.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"The scorer '{point.name}' ({point.value}) does not load.", why=str(error)) from error
    return make(settings.names)
