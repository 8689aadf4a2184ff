"""A fence around plug-ins: what another package's evaluator raises costs its own score, not the run."""

from __future__ import annotations

from collections import Counter

from evaluation.evaluators.protocol import Evaluator
from evaluation.scores import Judgement, unscored
from inference.records import FinishReason, Prompt


class Guarded:
    """An evaluator whose failures become unscored answers with their reason; `failures` counts them.

    Only plug-ins are fenced: a fault in an evaluator that ships must be seen.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.failures: Counter[str] = Counter()
        """Kind of failure → answers, for the run's report."""

    @property
    def name(self) -> str:
        """The plug-in's name."""
        return self.evaluator.name

    @property
    def version(self) -> str:
        """The plug-in's version."""
        return self.evaluator.version

    @property
    def about(self) -> str:
        """What the plug-in says of itself."""
        return type(self.evaluator).__doc__ or ""

    def applies_to(self, prompt: Prompt) -> bool:
        """Whether the plug-in applies; where it cannot say, it is asked for a score, which is then unscored."""
        try:
            return bool(self.evaluator.applies_to(prompt))
        except Exception as error:  # noqa: BLE001 - code that is not ours may raise anything
            self.failures[_kind(error)] += 1
            return True

    def score(self, prompt: Prompt, response: str, finish_reason: FinishReason = "stop") -> Judgement:
        """The plug-in's judgement; unscored where it raises or returns something else."""
        try:
            judgement: object = self.evaluator.score(prompt, response, finish_reason)
        except Exception as error:  # noqa: BLE001 - code that is not ours may raise anything
            self.failures[_kind(error)] += 1
            return unscored(f"evaluator_error: {_kind(error)}")
        if not isinstance(judgement, Judgement):
            self.failures["no Judgement"] += 1
            return unscored(f"evaluator_error: returned {type(judgement).__name__}, not a Judgement")
        return judgement


def _kind(error: Exception) -> str:
    """The error's class: reasons are counted, so they must not hold the answer's text."""
    return type(error).__name__
