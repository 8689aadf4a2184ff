"""What critique_revision writes: one record per model call, per verdict of the filters, per pair."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from critique_revision.config import Reason, RecipeName
from inference.records import FinishReason, Messages
from inference.splits import Split
from runs.config import StrictModel

RECIPE: RecipeName = "critique-revision"
"""Named as the source of its pairs."""
NO_PRINCIPLE = "none"
"""Stands for the principle of a candidate that was made without one."""


class ChosenPrompt(StrictModel):
    """A prompt of the run. prompts.jsonl keeps them, so that later commands need no data root."""

    prompt_id: str
    messages: Messages
    tag: str
    source: str
    categories: tuple[str, ...] = ()
    """The categories that its principles are drawn from; empty: all."""


class Answer(StrictModel):
    """The generator's first answer to a prompt."""

    key: str
    prompt_id: str
    text: str
    model: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seed: int


class TaughtAnswer(Answer):
    """The teacher's answer to a prompt."""

    principle_ids: tuple[str, ...]
    """The principles in its system text."""


class SampledAnswer(Answer):
    """One of several answers of the generator."""

    sample: int
    """From 0."""


class ScoredAnswer(StrictModel):
    """What a scorer says of one sample."""

    key: str
    prompt_id: str
    sample: int
    scorer: str
    value: float | None
    """In [0, 1]; None where it could not be scored."""
    why: str
    """Why there is no value."""
    parts: dict[str, float]
    """What ``value`` was made from: one number for each evaluator that applies."""


class LabelReasons(Answer):
    """What a labeller writes before it names a letter."""

    number: int
    """Which of the prompt's questions it is, from 0."""
    first: int
    """The number of the answer that is shown as (A)."""
    second: int
    """The one that is shown as (B)."""
    principle_id: str


class Label(StrictModel):
    """A labeller's answer to one question, as the log-probabilities of the two letters."""

    key: str
    prompt_id: str
    first: int
    """The number of the answer that is shown as (A)."""
    second: int
    """The one that is shown as (B)."""
    principle_id: str
    logprobs: dict[str, float | None]
    """Of A and B; None: not among the tokens that the engine sees."""
    model: str
    prompt_tokens: int
    completion_tokens: int


class Critique(StrictModel):
    """The critic's words on the current reply, for one principle."""

    key: str
    prompt_id: str
    step: int
    principle_id: str
    text: str
    model: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seed: int


class RevisionStep(StrictModel):
    """One step of a prompt's chain: critique and revision. The history of a prompt is its steps in order."""

    key: str
    prompt_id: str
    step: int
    """From 1."""
    principle_id: str
    critique: str | None
    """None: the revision was made directly, without one."""
    revision: str
    critic: str | None
    """The checkpoint that wrote the critique."""
    reviser: str
    """The checkpoint that wrote the revision."""
    critique_finish_reason: FinishReason | None
    finish_reason: FinishReason
    """How the revision ended."""
    prompt_tokens: int
    completion_tokens: int
    seed: int


class FilteredStep(StrictModel):
    """A candidate pair after the filters, with every reason against it."""

    prompt_id: str
    step: int
    tag: str
    principle_id: str
    """The last principle that it was made by; ``none`` without one."""
    reason: Reason | None
    """The reason that counts; None when it was accepted."""
    reasons: tuple[Reason, ...]
    messages: Messages
    """The prompt."""
    answer: str
    """The side that would be rejected: in `critique-revision`, the first answer."""
    revision: str
    """The side that would be chosen: in `critique-revision`, the revision."""
    finish_reason: FinishReason
    """How ``revision`` ended."""
    turned: bool = False
    """Whether the revision refuses a harmless request that the first answer answers: a pair the other way round."""
    principle_ids: tuple[str, ...] = ()
    """All principles of the candidate, where they are several."""
    label_prob: float | None = None
    margin: float | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Most recipes give no label, margin or list of principles: their records have no such fields."""
        values: dict[str, Any] = dump(self)
        return {key: value for key, value in values.items() if key not in _OPTIONAL or value not in (None, (), [])}


_OPTIONAL = ("principle_ids", "label_prob", "margin")


class PreferencePair(StrictModel):
    """A prompt, the reply that the constitution prefers, and the one it does not (TRL's conversational columns)."""

    schema_version: Literal[1] = 1
    prompt: Messages
    chosen: Messages
    rejected: Messages
    prompt_id: str
    tag: str
    step: int
    """The step whose revision is on one side of the pair."""
    principle_ids: tuple[str, ...]
    """The principles that the pair was made by; in `critique-revision`, those of the steps up to it."""
    turned: bool = False
    """The first answer is chosen, because the revision refused a harmless request."""
    source_recipe: str = RECIPE
    label_prob: float | None = None
    """An AI judge's probability that chosen is better; None: not judged."""
    margin: float | None = None
    """How much better a scorer finds chosen; None: not scored."""
    split: Split | None = None
    """The side that the prompt's first turn falls on; None: from before pairs were told."""
