"""LLM Comparator's JSON: two models' answers side by side, for the public page of that tool.

Format: https://github.com/PAIR-code/llm-comparator, "JSON Data Format". Its score lies in [-1.5, 1.5] and is positive
where the first model is better; ours is 1.5 times the mean difference over the evaluators that scored both answers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean
from typing import Any

from evaluation.records import Sample
from evaluation.report.data import PromptRow, RunData

REACH = 1.5
"""The end of LLM Comparator's scale."""


def comparator_json(run: RunData, first: str, second: str) -> dict[str, Any]:
    """The file for one pair of models, over the prompts that both answered.

    Args:
        run: a finished run.
        first: the page's model A; a positive score means that it is better.
        second: the page's model B.
    """
    complete = [row for row in run.rows if first in row.answers and second in row.answers]
    return {
        "metadata": {"source_path": run.results.run_id, "custom_fields_schema": _schema(run.evaluators)},
        "models": [{"name": first}, {"name": second}],
        "examples": [_example(row, row.answers[first], row.answers[second], run) for row in complete],
    }


def _schema(evaluators: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"name": "prompt_id", "type": "string"},
        {"name": "expected", "type": "category"},
        {"name": "mode", "type": "per_model_category"},
        {"name": "cut_at_the_limit", "type": "per_model_boolean"},
        {"name": "tokens", "type": "per_model_number"},
        *({"name": name, "type": "per_model_number"} for name in evaluators),
    ]


def _example(row: PromptRow, a: Sample, b: Sample, run: RunData) -> dict[str, Any]:
    values = {name: [_value(a, name), _value(b, name)] for name in run.evaluators}
    return {
        "index": row.number - 1,
        "input_text": _conversation(row),
        "tags": [row.prompt.category],
        "output_text_a": a.response,
        "output_text_b": b.response,
        "score": _score(values, run.doubtful),
        "individual_rater_scores": [],
        "custom_fields": {
            "prompt_id": row.prompt.id[:12],
            "expected": row.prompt.expected,
            "mode": [a.mode, b.mode],
            "cut_at_the_limit": [a.finish_reason == "length", b.finish_reason == "length"],
            "tokens": [a.completion_tokens, b.completion_tokens],
            **values,
        },
    }


def _conversation(row: PromptRow) -> str:
    messages = row.prompt.messages
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


def _value(sample: Sample, evaluator: str) -> float | None:
    judgement = sample.scores.get(evaluator)
    return None if judgement is None else judgement.value


def _score(values: dict[str, list[float | None]], uninformative: Collection[str]) -> float | None:
    """Null where no informative evaluator scored both answers: not a tie."""
    differences = [
        a - b for name, (a, b) in values.items() if name not in uninformative and a is not None and b is not None
    ]
    return round(REACH * fmean(differences), 4) if differences else None
