"""Evaluators as a scorer of the recipe best-of-n (`critique_revision.scorers`, group ``constitutional_ai.scorers``)."""

from __future__ import annotations

from collections.abc import Sequence

from critique_revision.scorers import Scored
from evaluation.evaluators import registry
from evaluation.evaluators.protocol import Evaluator
from inference.records import FinishReason, Prompt


class EvaluatorScorer:
    """The mean of the evaluators that apply to a prompt.

    An answer that one of them cannot score has no value: a mean over others would not compare with the next answer's.

    Args:
        evaluators: at least one.
    """

    def __init__(self, evaluators: Sequence[Evaluator]) -> None:
        self._evaluators = tuple(evaluators)

    @property
    def identity(self) -> dict[str, str]:
        """Evaluator → version."""
        return {evaluator.name: evaluator.version for evaluator in self._evaluators}

    def score(self, prompt: Prompt, answer: str, finish_reason: FinishReason) -> Scored:
        """The mean in [0, 1], with each evaluator's value; see `critique_revision.scorers.Scorer.score`."""
        parts: dict[str, float] = {}
        for evaluator in self._evaluators:
            if not evaluator.applies_to(prompt):
                continue
            found = evaluator.score(prompt, answer, finish_reason)
            if found.value is None:
                return Scored(None, f"{evaluator.name}: {found.unscored}", parts)
            parts[evaluator.name] = found.value
        if not parts:
            return Scored(None, f"no evaluator applies to a prompt that expects '{prompt.expected}'")
        return Scored(sum(parts.values()) / len(parts), "", parts)


def make_scorer(names: Sequence[str]) -> EvaluatorScorer:
    """The scorer of the evaluators called ``names``. Raises as `evaluation.evaluators.registry.get`."""
    return EvaluatorScorer(registry.get(names))
