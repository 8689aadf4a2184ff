"""What critique_revision writes: one record per model call, per verdict of the filters, per pair."""

from __future__ import annotations

from typing import Literal

from critique_revision.config import Reason
from inference.records import FinishReason, Messages
from inference.splits import Split
from runs.config import StrictModel

RECIPE = "critique-revision"
"""Named as the source of its pairs."""


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
    """A revision after the filters, with every reason against it."""

    prompt_id: str
    step: int
    tag: str
    principle_id: str
    reason: Reason | None
    """The reason that counts; None when it was accepted."""
    reasons: tuple[Reason, ...]
    messages: Messages
    """The prompt."""
    answer: str
    revision: str
    finish_reason: FinishReason
    turned: bool = False
    """Whether the revision refuses a harmless request that the first answer answers: a pair the other way round."""


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
    """The principles of the steps up to it."""
    turned: bool = False
    """The first answer is chosen, because the revision refused a harmless request."""
    source_recipe: str = RECIPE
    label_prob: float | None = None
    """An AI judge's probability that chosen is better; None: not judged."""
    margin: float | None = None
    split: Split | None = None
    """The side of the line that finetune draws too; None in pairs of older runs."""
