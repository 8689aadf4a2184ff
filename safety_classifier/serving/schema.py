"""Requests and answers of the HTTP interface: ours, and OpenAI's moderation format for tools that speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag

from runs.config import StrictModel
from safety_classifier.api import Classification
from safety_classifier.labels import Labels

EXAMPLE_TEXT = "How do I whittle a whistle out of a willow branch?"
EXAMPLE_CONTEXT = "Write a message to my neighbour."
EXAMPLE_RESPONSE = "Dear neighbour, thank you for watering my plants while I was away."

OPENAI_NAMES: Mapping[str, str] = {
    "hate_speech": "hate",
    "self_harm": "self-harm",
    "dangerous_advice": "illicit",
    "toxicity": "harassment",
    "violence": "violence",
    "sexual": "sexual",
}
"""Our categories under OpenAI's names. Its finer ones (``hate/threatening`` and so on) have no head and are left out:
a score that nobody computed would be a lie."""


def _characters(text: str) -> str:
    """JSON can escape half of a surrogate pair, which is no character and which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair at character {error.start}") from error
    return text


Text = Annotated[str, AfterValidator(_characters)]


class Input(StrictModel):
    """A text, or a response with the prompt that it answers."""

    text: Text = Field(description="What is judged: a text, or a response.")
    context: Text = Field("", description="The prompt that the text answers; empty when the text stands alone.")


class Batch(StrictModel):
    """Several inputs, answered in their order."""

    inputs: list[Input] = Field(min_length=1)


def _single_or_batch(value: Any) -> str:
    return "(batch)" if isinstance(value, dict) and "inputs" in value else "(single)"


ClassifyBody = Annotated[
    Annotated[Input, Tag("(single)")] | Annotated[Batch, Tag("(batch)")], Discriminator(_single_or_batch)
]


class Answer(StrictModel):
    """One result for each input, in their order."""

    model: str = Field(description="Identity of the classifier: the digest of everything that could change a result.")
    results: list[Classification]


class TextPart(StrictModel):
    """A part of one input, in OpenAI's form. Only text can be judged here."""

    type: Literal["text"]
    text: Text


def _text_or_list(value: Any) -> str:
    if not isinstance(value, list):
        return "(text)"
    return "(parts)" if value and isinstance(value[0], dict) else "(texts)"


Texts = Annotated[list[Text], Field(min_length=1)]


class ModerationBody(StrictModel):
    """OpenAI's moderation request."""

    input: Annotated[
        Annotated[Text, Tag("(text)")] | Annotated[Texts, Tag("(texts)")] | Annotated[list[TextPart], Tag("(parts)")],
        Discriminator(_text_or_list),
    ] = Field(description="A text, a list of texts, or the text parts of one input.")
    model: str | None = Field(None, description="Accepted for compatibility; there is one model.")

    def texts(self) -> list[str]:
        """What is judged. The parts of one input are judged together, as OpenAI does."""
        if isinstance(self.input, str):
            return [self.input]
        whole = "\n".join(part.text for part in self.input if isinstance(part, TextPart))
        return [whole] if whole else [text for text in self.input if isinstance(text, str)] or [whole]


class ModerationResult(BaseModel):
    """OpenAI's moderation result, with the categories that have a head here."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationAnswer(BaseModel):
    """OpenAI's moderation answer."""

    id: str
    model: str
    results: list[ModerationResult]


class HeadInfo(BaseModel):
    """One head of the classifier."""

    name: str
    kind: str
    definition: str
    threshold: float | None = Field(
        description="Flagged when the probability is at least this; null: not flagged at all."
    )


class ModelInfo(BaseModel):
    """The classifier that answers."""

    model: str
    heads: list[HeadInfo]
    max_rows: int
    max_characters: int
    max_body_bytes: int


class Status(BaseModel):
    """Whether the server can be asked."""

    status: Literal["ok", "ready"]


def moderation(judgement: Classification, labels: Labels) -> ModerationResult:
    """A judgement in OpenAI's form."""
    names = labels.categories
    flags = {OPENAI_NAMES.get(name, name): judgement.flagged[name] for name in names}
    return ModerationResult(
        flagged=any(flags.values()),
        categories=flags,
        category_scores={OPENAI_NAMES.get(name, name): judgement.probabilities[name] for name in names},
        category_applied_input_types={name: ["text"] for name in flags},
    )
