"""What `finetune rl` rewards and what it watches: reward models and evaluators, on answers as text and as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

from finetune.config import RewardTerm
from finetune.reward import Scorer
from inference.families import Family
from inference.records import FinishReason, Prompt

if TYPE_CHECKING:
    from evaluation.evaluators.protocol import Evaluator


@dataclass(frozen=True)
class Answer:
    """One answer to one prompt."""

    prompt: Prompt
    text: str
    prompt_ids: list[int]
    answer_ids: list[int]
    """With the end of the turn, unless it was cut off."""
    finish_reason: FinishReason


class Instrument(Protocol):
    """Gives each answer a number, or None where it has nothing to say."""

    name: str
    version: str
    """What could change a number: part of a run's identity."""

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """One value an answer, in their order."""
        ...


class ByModel:
    """A reward model's rewards (`finetune reward`), in its own units.

    Args:
        folder: the reward model.
        family: its base.
        device: where it is computed.
        batch_size: answers scored together.
    """

    def __init__(self, folder: Path, family: Family, *, device: str, batch_size: int) -> None:
        self._scorer, self._batch_size = Scorer(folder, family, device=device), batch_size
        self.name, self.version = "reward_model", self._scorer.digest

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """The reward at each answer's last token."""
        texts = [answer.prompt_ids + answer.answer_ids for answer in answers]
        return list(self._scorer(texts, batch_size=self._batch_size))


class ByEvaluator:
    """An evaluator's values (`evaluation.evaluators`), in [0, 1]; None where it does not apply or cannot score."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.name, self.version = evaluator.name, evaluator.version

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """The evaluator's value of each answer."""
        return [
            self._evaluator.score(answer.prompt, answer.text, answer.finish_reason).value
            if self._evaluator.applies_to(answer.prompt)
            else None
            for answer in answers
        ]


def instruments(terms: Sequence[RewardTerm], family: Family, *, device: str, batch_size: int) -> list[Instrument]:
    """The instruments of ``terms``, in their order.

    Raises:
        UserError, UsageError: a reward model cannot be loaded, or an evaluator is unknown.
    """
    from evaluation.evaluators import registry

    found: list[Instrument] = []
    for term in terms:
        if term.model is not None:
            found.append(ByModel(Path(term.model), family, device=device, batch_size=batch_size))
        else:
            assert term.evaluator is not None
            found.append(ByEvaluator(registry.get([term.evaluator])[0]))
    return found


def means(instrument: Instrument, answers: Sequence[Answer]) -> float | None:
    """Mean over the answers that have a value; None where none has."""
    values = [value for value in instrument(answers) if value is not None]
    return fmean(values) if values else None


def total(terms: Sequence[RewardTerm], values: Sequence[float | None]) -> float | None:
    """The weighted sum of the terms' values that exist, as TRL adds them up; None where none exists."""
    there = [term.weight * value for term, value in zip(terms, values, strict=True) if value is not None]
    return sum(there) if there else None
