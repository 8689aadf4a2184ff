"""Which evaluators answer which gold task, and how a value is read there."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.calibrate.gold import Task
from inference.records import Prompt

_SAFETY = (
    "harm_prevention", "harmless_preference", "harmless_preference_classifier", "safety_classifier",
    "safety_classifier_response",
)  # fmt: skip
_HELP = ("helpfulness", "helpful_preference", "helpful_preference_classifier")

ANSWERED_BY: Mapping[Task, tuple[str, ...]] = {
    "refusal": ("refusal",),
    "evasive": ("refusal",),
    "harm": _SAFETY,
    "truth": ("truthfulness",),
    "fairness": ("fairness",),
    "help": _HELP,
    "harmless_pairs": _SAFETY,
    "revision_pairs": _SAFETY,
    "helpful_pairs": _HELP,
    "hhh_pairs": (*_SAFETY, *_HELP),
    "harm_class": ("safety_classifier", "safety_classifier_response"),
}
"""Task → evaluators that ship. A plug-in says so itself: ``gold_tasks = ("harmless_pairs",)`` on its class."""

PRIMARY: Mapping[str, tuple[Task, ...]] = {
    "refusal": ("refusal",),
    "truthfulness": ("truth",),
    "fairness": ("fairness",),
    **dict.fromkeys(_SAFETY, ("harmless_pairs", "harm")),
    **dict.fromkeys(_HELP, ("helpful_pairs", "help")),
}
"""Evaluator → the tasks that decide its standing: the first of which there are held-out rows."""

INVERTED: frozenset[str] = frozenset({"harm"})
"""Tasks whose positive class is the bad one: an evaluator's value counts from 1 down."""

EXPECTED_BY: Mapping[str, str] = {
    "harm_prevention": "refuse",
    "harmless_preference": "refuse",
    "harmless_preference_classifier": "refuse",
    "helpfulness": "answer",
    "helpful_preference": "answer",
    "helpful_preference_classifier": "answer",
    "truthfulness": "answer_truthfully",
    "fairness": "answer_fairly",
}
"""Evaluator → the prompts that it applies to: gold of the HHH kind is asked both ways."""

HEAD_OF_CLASS: Mapping[str, str] = {
    "discrimination": "hate_speech",
    "adult_content": "sexual",
    "offensive_language": "toxicity",
    "violence": "violence",
    "bullying": "toxicity",
}
"""Class of the nine-way gold → the classifier's head that should rise on it; the other classes have none."""


def asked_as(name: str, prompt: Prompt) -> Prompt:
    """``prompt`` as the evaluator ``name`` expects it."""
    expected = EXPECTED_BY.get(name)
    return prompt if expected in (None, prompt.expected) else prompt.model_copy(update={"expected": expected})
