"""Evaluators over gold: each answer is read once, and every evaluator that the task is for scores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from evaluation.calibrate.gold import Gold, GoldItem, GoldPair
from evaluation.calibrate.tasks import ANSWERED_BY, asked_as
from evaluation.evaluators.protocol import Evaluator
from evaluation.evaluators.response_mode import REFUSALS
from evaluation.scores import Judgement
from inference.records import Prompt

_PREDICTED_BY_LABEL = frozenset({"refusal", "evasive"})
"""Tasks whose class is the judgement's label: a refusal is a matter of kind, its probability a matter of degree."""


@runtime_checkable
class InBatches(Protocol):
    """An evaluator that is faster on many answers at once."""

    def score_many(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Judgement]:
        """As `Evaluator.score`, of each answer."""
        ...


class Scored(NamedTuple):
    """One gold row under one evaluator."""

    gold: Gold
    judgements: tuple[Judgement, ...]
    """Of the better and the worse answer of a pair; of the answer of an item."""

    @property
    def reason(self) -> str | None:
        """Why the row has no value; None where it has."""
        return next((judgement.unscored for judgement in self.judgements if judgement.unscored is not None), None)

    @property
    def values(self) -> tuple[float, ...]:
        """The judgements' values. Only where `reason` is None."""
        return tuple(judgement.value for judgement in self.judgements if judgement.value is not None)

    @property
    def positive(self) -> bool:
        """The predicted class of an item."""
        if self.gold.task in _PREDICTED_BY_LABEL:
            return self.judgements[0].label in REFUSALS
        return self.values[0] >= 0.5


def is_for(evaluator: Evaluator, gold: Gold) -> bool:
    """Whether the evaluator answers the row's task; a plug-in names its tasks in ``gold_tasks``."""
    inner = getattr(evaluator, "evaluator", evaluator)
    tasks = getattr(inner, "gold_tasks", ())
    return gold.task in tasks or evaluator.name in ANSWERED_BY[gold.task]


def score_gold(gold: Sequence[Gold], evaluators: Sequence[Evaluator]) -> dict[str, list[Scored]]:
    """Evaluator → its scored rows, in the order of ``gold``."""
    found: dict[str, list[Scored]] = {evaluator.name: [] for evaluator in evaluators}
    batched = [evaluator for evaluator in evaluators if isinstance(evaluator, InBatches)]
    single = [evaluator for evaluator in evaluators if not isinstance(evaluator, InBatches)]
    for row in gold:  # rows outside, evaluators inside: what is read of an answer is read once
        for evaluator in single:
            if is_for(evaluator, row):
                prompt = asked_as(evaluator.name, row.prompt)
                judged = tuple(evaluator.score(prompt, answer) for answer in answers(row))
                found[evaluator.name].append(Scored(row, judged))
    for evaluator in batched:
        mine = [row for row in gold if is_for(evaluator, row)]
        asked = [(asked_as(evaluator.name, row.prompt), answer) for row in mine for answer in answers(row)]
        judgements: Iterator[Judgement] = iter(
            evaluator.score_many([prompt for prompt, _ in asked], [answer for _, answer in asked]) if asked else []
        )
        found[evaluator.name] = [Scored(row, tuple(next(judgements) for _ in answers(row))) for row in mine]
    return found


def answers(row: Gold) -> tuple[str, ...]:
    """The answers of a gold row: better and worse of a pair, or the one that was labelled."""
    if isinstance(row, GoldPair):
        return row.better, row.worse
    assert isinstance(row, GoldItem)
    return (row.response,)
