"""What a recipe is, and what it proposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from critique_revision.calls import Calls
from critique_revision.config import Reason, RecipeConfig
from critique_revision.folder import FinishedRun, Setup
from critique_revision.records import ChosenPrompt
from inference.records import FinishReason


@dataclass(frozen=True)
class Side:
    """One text of a candidate pair."""

    text: str
    finish_reason: FinishReason


@dataclass(frozen=True)
class Proposal:
    """A candidate pair, before the filters."""

    prompt: ChosenPrompt
    chosen: Side
    rejected: Side
    step: int = 1
    """Which of the prompt's candidates it is, from 1: the last accepted one becomes its pair."""
    principle_ids: tuple[str, ...] = ()
    """The principles that this candidate was made by."""
    critique: str = ""
    """What the writer of ``chosen`` was told of an earlier text; a text that repeats it is commentary."""
    request: str = ""
    """What that writer was asked for; likewise."""
    shown: tuple[str, ...] = ()
    """The texts of the exemplars that it saw, and could copy."""
    faults: tuple[Reason, ...] = ()
    """Reasons against the pair that only the recipe knows."""
    label_prob: float | None = None
    """A labeller's probability that ``chosen`` is the better one."""
    margin: float | None = None
    """How much better ``chosen`` scored."""


class Recipe(Protocol):
    """One way to make candidate pairs. It has no state: all is in the run's folder."""

    @property
    def version(self) -> int:
        """Raised when the recipe changes what it would write; part of a run's identity."""
        ...

    def files(self, config: RecipeConfig) -> list[str]:
        """The files of its stages, in the order in which they are made; each holds records of every prompt."""
        ...

    def calls(self, config: RecipeConfig) -> dict[str, int]:
        """Role → calls for one prompt, at most."""
        ...

    def principles(self, config: RecipeConfig) -> int:
        """How many different principles it draws for one prompt."""
        ...

    def check(self, setup: Setup) -> None:
        """Raise `UsageError` if the recipe cannot work from ``setup``."""
        ...

    def identity(self, setup: Setup) -> dict[str, Any]:
        """What could change its records, beyond prompts, roles, seed and version."""
        ...

    def carry_out(self, calls: Calls) -> None:
        """Make all calls, stage by stage."""
        ...

    def proposals(self, run: FinishedRun) -> list[Proposal]:
        """The candidate pairs of a finished run, step by step, each in the order of the prompts."""
        ...

    def about(self, config: RecipeConfig) -> str:
        """What the two sides of its pairs are, for the dataset card."""
        ...


def exemplar_texts(setup: Setup, *fields: str) -> tuple[str, ...]:
    """The texts of the exemplars' ``fields``."""
    return tuple(str(getattr(exemplar, name)) for exemplar in setup.exemplars for name in fields)


def side(row: Any) -> Side:
    """The text of a record with ``text`` and ``finish_reason``."""
    return Side(row.text, row.finish_reason)


def by_prompt(rows: Sequence[Any]) -> dict[str, Any]:
    """Records by their prompt's id."""
    return {row.prompt_id: row for row in rows}
