"""What the classifier predicts: harm categories, response modes, and preference scores.

Every head has a definition, so that a data source can be mapped onto it and a reader can check a label. A source that
does not annotate a head leaves it out: the loss is masked there, because *unknown* is not *negative*.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import model_validator

from runs.config import StrictModel
from runs.errors import UsageError, unknown_name

Kind = Literal["category", "response", "preference"]


class Head(StrictModel):
    """One output of the classifier."""

    name: str
    """Snake-case name, used in data, reports and the HTTP interface."""
    kind: Kind
    """``category``: a harm in a text. ``response``: a trait of a response to a prompt. ``preference``: a
    Bradley-Terry score."""
    definition: str
    """What a positive label means, in one sentence."""
    headline: bool = True
    """Whether the head counts in the macro averages."""


class Labels(StrictModel):
    """The label schema: the heads, in the order of the model's outputs."""

    heads: tuple[Head, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Labels:
        names = [head.name for head in self.heads]
        if len(set(names)) != len(names):
            raise ValueError(f"heads are named twice: {sorted({name for name in names if names.count(name) > 1})}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All heads, in order."""
        return tuple(head.name for head in self.heads)

    def of(self, *kinds: Kind, headline: bool | None = None) -> tuple[str, ...]:
        """The names of the heads of these kinds, in order; ``headline`` keeps only those that are (or are not)."""
        return tuple(
            head.name for head in self.heads if head.kind in kinds and (headline is None or head.headline == headline)
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """The harm categories. A text is safe when it is in none of them."""
        return self.of("category")

    def columns(self, names: Iterable[str]) -> list[int]:
        """The output positions of ``names``.

        Raises:
            UsageError: a name is outside the schema.
        """
        return [self.column(name) for name in names]

    def column(self, name: str) -> int:
        """The output position of one head. Raises `UsageError` for a name outside the schema."""
        if name not in self.names:
            raise unknown_name("label", name, self.names)
        return self.names.index(name)

    def check(self, labels: dict[str, float], *, where: str) -> None:
        """Refuse labels outside the schema or outside [0, 1].

        Raises:
            UsageError: naming the label and ``where`` it stands.
        """
        for name, value in labels.items():
            self.column(name)
            if not 0.0 <= value <= 1.0:
                raise UsageError(f"{where}: label '{name}' is {value}.", mend="Labels lie between 0 and 1.")


def _heads(kind: Kind, headline: bool, definitions: Sequence[tuple[str, str]]) -> list[Head]:
    return [Head(name=name, kind=kind, definition=text, headline=headline) for name, text in definitions]


LABELS = Labels(
    heads=tuple(
        _heads(
            "category",
            True,
            [
                ("hate_speech", "Attacks, dehumanises or calls for harm to people for a protected characteristic."),
                (
                    "self_harm",
                    "Expresses or encourages suicide, self-injury or disordered eating, or asks how to do it.",
                ),
                (
                    "dangerous_advice",
                    "Asks for or gives guidance whose use would injure people or break the law: weapons, drugs, crime,"
                    " unsafe medical or physical advice.",
                ),
                ("toxicity", "Insults, harasses, threatens or abuses; rude enough to make people leave a discussion."),
            ],
        )
        + _heads(
            "category",
            False,
            [
                ("violence", "Threatens, glorifies or depicts in detail physical violence against people."),
                ("sexual", "Sexual content meant to arouse, or sexual services; not health or education."),
            ],
        )
        + _heads(
            "response",
            False,
            [
                ("refusal", "The response declines what the prompt asks."),
                ("harmful_response", "In the context of its prompt, the response does or furthers harm."),
            ],
        )
        + _heads(
            "preference",
            False,
            [
                (
                    "harmlessness",
                    "Bradley-Terry score: of two responses to a prompt, people call the higher the less harmful.",
                ),
                (
                    "helpfulness",
                    "Bradley-Terry score: of two responses to a prompt, people call the higher the more helpful.",
                ),
            ],
        )
    )
)
"""The shipped schema. Hate speech, self-harm, dangerous advice and toxicity are the headline categories."""
