"""Our evaluators as an lm-eval task: the functions that ``tasks/constitutional.yaml`` names."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from evaluation.config import CORE_PROMPTS
from evaluation.evaluators import registry
from evaluation.evaluators.protocol import Evaluator
from evaluation.metrics import metrics_for
from evaluation.records import Answer
from evaluation.run import judge
from inference.prompts import load_prompts
from inference.records import Prompt

if TYPE_CHECKING:
    from datasets import Dataset


def dataset(**_: Any) -> dict[str, Dataset]:
    """The shipped prompts as the split ``test``: columns ``text`` (the last user turn), ``expected``, ``prompt``.

    A prompt of several turns would lose all but its last in lm-eval's text interface, so only single turns are in.
    """
    from datasets import Dataset

    single = [prompt for prompt in load_prompts(CORE_PROMPTS) if len(prompt.messages) == 1]
    return {
        "test": Dataset.from_list(
            [
                {
                    "text": prompt.text,
                    "expected": prompt.expected,
                    "category": prompt.category,
                    "prompt_id": prompt.id,
                    "prompt": prompt.model_dump_json(),
                }
                for prompt in single
            ]
        )
    }


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The metrics that apply to one answer.

    An evaluator that does not apply, or gives no score, is left out, so that lm-eval's mean runs over scored
    answers only; ``unscored`` counts the others.
    """
    prompt = Prompt.model_validate_json(doc["prompt"])
    answer = Answer(
        key="lm_eval",
        model="lm_eval",
        prompt_id=prompt.id,
        text=results[0],
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
        seed=0,
    )
    sample = judge(prompt, answer, _evaluators())
    found = {
        name: metric(sample) for name, metric in metrics_for([evaluator.name for evaluator in _evaluators()]).items()
    }
    values = {name: value for name, value in found.items() if isinstance(value, float)}
    return {**values, "unscored": float(any(isinstance(value, str) for value in found.values()))}


@cache
def _evaluators() -> tuple[Evaluator, ...]:
    return tuple(registry.get(registry.BUILT_IN))
