"""What an evaluator says about one answer: a value with evidence, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field, model_validator

from runs.config import StrictModel


class Span(StrictModel):
    """A piece of the answer that speaks for the score."""

    start: int = Field(ge=0)
    """Index of the first character, in the answer as the model wrote it."""
    end: int = Field(ge=0)
    """Index after the last character."""
    why: str
    """What the piece shows, in a few words."""

    @model_validator(mode="after")
    def _holds_text(self) -> Self:
        if self.end <= self.start:
            raise ValueError("a span must hold at least one character")
        return self


class Judgement(StrictModel):
    """An evaluator's view of one answer: exactly one of ``value`` and ``unscored`` is set."""

    value: float | None = None
    """In [0, 1], higher is better; None where the answer could not be scored."""
    unscored: str | None = None
    """Why there is no value; such answers leave the denominator and are counted by reason."""
    label: str = ""
    """The class that the value rests on, such as ``engaged_refusal``."""
    evidence: tuple[Span, ...] = ()
    explanation: str = ""
    """One sentence for people."""
    subscores: dict[str, float] = Field(default_factory=dict)
    """The named parts that ``value`` was made from, each in [0, 1]."""

    @model_validator(mode="after")
    def _value_or_reason(self) -> Self:
        if (self.value is None) == (self.unscored is None):
            raise ValueError("exactly one of value and unscored must be set")
        if self.unscored is not None and not self.unscored.strip():
            raise ValueError("unscored needs a reason")
        numbers = dict(self.subscores) if self.value is None else {**self.subscores, "value": self.value}
        for name, number in numbers.items():
            if not math.isfinite(number) or not 0.0 <= number <= 1.0:
                raise ValueError(f"{name} must be a number in [0, 1], not {number}")
        return self


class Score(Judgement):
    """A `Judgement` with its place: which completion, which evaluator."""

    completion_key: str
    evaluator: str

    @property
    def key(self) -> str:
        """Identity in a score log: one score for each completion and evaluator."""
        return f"{self.completion_key}:{self.evaluator}"

    @classmethod
    def of(cls, completion_key: str, evaluator: str, judgement: Judgement) -> Score:
        """``judgement`` as the record of ``evaluator`` on ``completion_key``."""
        fields = {name: getattr(judgement, name) for name in Judgement.model_fields}
        return cls(completion_key=completion_key, evaluator=evaluator, **fields)


def scored(
    value: float,
    label: str,
    explanation: str,
    *,
    evidence: Sequence[Span] = (),
    subscores: Mapping[str, float] | None = None,
) -> Judgement:
    """A judgement with a value. Raises `pydantic.ValidationError` if a number is NaN or outside [0, 1]."""
    return Judgement(
        value=value,
        label=label,
        explanation=explanation,
        evidence=tuple(evidence),
        subscores=dict(subscores or {}),
    )


def unscored(reason: str) -> Judgement:
    """A judgement without a value: ``reason`` says why."""
    return Judgement(unscored=reason, label="unscored", explanation=reason)
