"""What an evaluator is. A plug-in needs nothing but this shape and a name in the registry."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from evaluation.scores import Judgement
from inference.records import FinishReason, Prompt


@runtime_checkable
class Evaluator(Protocol):
    """Judges one answer to one prompt, without state, network or randomness.

    Evidence spans index ``response`` as given, not a normalised copy of it.
    """

    @property
    def name(self) -> str:
        """The registry's name, used in files and on the command line."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the same answer could get another score; part of a run's identity."""
        ...

    def applies_to(self, prompt: Prompt) -> bool:
        """Whether the evaluator has anything to say about answers to ``prompt``."""
        ...

    def score(self, prompt: Prompt, response: str, finish_reason: FinishReason = "stop") -> Judgement:
        """Judge ``response``.

        Args:
            prompt: what was asked, and what is expected of the answer.
            response: the model's text, unchanged.
            finish_reason: ``length`` when the text was cut at the token limit.

        Returns:
            A value with evidence, or the reason why there is none.
        """
        ...
