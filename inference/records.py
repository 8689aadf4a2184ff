"""The records that travel between the stages: messages, prompts, completions."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Literal

from pydantic import Field, field_validator

from runs.config import StrictModel
from runs.identity import digest

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]


class Message(StrictModel):
    """One turn of a conversation."""

    role: Role
    content: str


Messages = tuple[Message, ...]

CURLY = "\u2019"
"""The right single quotation mark, which stands for the apostrophe in much text."""
TERMINAL = tuple(f".!?…\"'\u201d{CURLY})]}}*`")
"""What a finished text may end with: a full stop and its kin, a closing bracket or quote, the end of markup."""


def normalise(text: str) -> str:
    """NFKC, case-folded, with runs of white space as one space: equal texts for a reader are equal here."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def prompt_id(messages: Messages) -> str:
    """sha256 of the normalised conversation: the identity of a prompt in every stage and split."""
    return digest([[message.role, normalise(message.content)] for message in messages])


class Prompt(StrictModel):
    """A conversation that waits for the assistant's answer, and what is expected of it."""

    messages: Messages
    category: str = "uncategorised"
    expected: str = "answer"
    """``refuse``, ``answer``, ``answer_truthfully`` or ``answer_fairly``."""
    tags: tuple[str, ...] = ()
    pair: str | None = None
    """Links a harmful prompt and its benign twin."""
    principle_ids: tuple[str, ...] = ()
    reference: dict[str, Any] | None = None
    """What a right answer holds: ``accept``/``reject`` phrases, or ``keywords`` groups."""
    source: str = ""

    @field_validator("messages")
    @classmethod
    def _ends_with_the_user(cls, messages: Messages) -> Messages:
        if not messages or messages[-1].role != "user":
            raise ValueError("a prompt must end with a user message")
        return messages

    @property
    def id(self) -> str:
        """`prompt_id` of the messages."""
        return prompt_id(self.messages)

    @property
    def text(self) -> str:
        """The last user message."""
        return self.messages[-1].content


class Sampling(StrictModel):
    """How tokens are chosen. Temperature 0 is greedy."""

    max_new_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    repetition_penalty: float = Field(default=1.0, gt=0.0)
    """Divides the positive and multiplies the negative logits of tokens already generated or in the prompt
    (Keskar et al. 2019, CTRL, section 4.1); 1 turns it off."""
    seed: int = 0


class Request(StrictModel):
    """One generation to make. ``key`` is the caller's identity for it, unique within a call."""

    key: str
    messages: Messages
    sample: int = 0
    """Which of several samples for the same prompt this is; part of the row's seed."""


class Completion(StrictModel):
    """One generated answer."""

    key: str
    """The request's key."""
    text: str
    finish_reason: FinishReason
    """``stop``: the model ended its turn; ``length``: it was cut at ``max_new_tokens``."""
    prompt_tokens: int
    completion_tokens: int
    seed: int
    """The row's seed (unused when greedy)."""


class Partial(StrictModel):
    """A streamed answer, as far as it is written."""

    key: str
    """The request's key."""
    text: str
    """From the first word on; a character whose bytes are not complete yet is left out."""
    tokens: int
    completion: Completion | None = None
    """The finished answer, on the last of the stream; a stream that was stopped ends without one."""


class LabelScores(StrictModel):
    """How likely a model is to answer with each of a few labels."""

    key: str
    """The request's key."""
    logprobs: dict[str, float | None]
    """Label → natural logarithm of the probability that the answer begins with it, among all answers; None: not among
    the candidates that the engine sees."""
    prompt_tokens: int
    completion_tokens: int
