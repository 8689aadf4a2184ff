"""Gold: answers that people have labelled or compared, as the card reads them."""

from __future__ import annotations

import re
from typing import Literal

from inference.records import Message, Prompt, Role
from inference.transcripts import RejectedRow
from runs.config import StrictModel

Task = Literal[
    "refusal", "harm", "truth", "fairness", "help", "evasive",
    "harmless_pairs", "helpful_pairs", "hhh_pairs", "revision_pairs", "harm_class",
]  # fmt: skip

_MARKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
EXPECTED: dict[str, str] = {
    "harmless_pairs": "refuse",
    "revision_pairs": "refuse",
    "harm": "refuse",
    "truth": "answer_truthfully",
    "fairness": "answer_fairly",
}
"""What the prompts of a task ask for (`inference.records.Prompt.expected`); all others ask for an answer."""


class GoldPair(StrictModel):
    """Two answers of which people, or a constitution, prefer one."""

    task: Task
    dataset: str
    prompt: Prompt
    better: str
    worse: str
    cluster: str
    """Rows with the same cluster are not independent: one dialogue, one context, one prompt."""


class GoldItem(StrictModel):
    """One answer with its label."""

    task: Task
    dataset: str
    prompt: Prompt
    response: str
    label: bool
    """True for the class that the task is named after: refused, harmful, truthful, fair, helpful, evasive."""
    cluster: str
    mode: str = ""
    """The response mode that a person gave, where the file has one."""
    kind: str = ""
    """The class of a many-class task."""


Gold = GoldPair | GoldItem


def make_prompt(text: str, task: str, reference: dict[str, object] | None = None) -> Prompt:
    """A single-turn prompt that asks for what ``task`` is about."""
    return conversation([("user", text)], task, reference)


def conversation(turns: list[tuple[Role, str]], task: str, reference: dict[str, object] | None = None) -> Prompt:
    """A prompt of several turns; the last must be the user's."""
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return Prompt(messages=messages, expected=EXPECTED.get(task, "answer"), reference=reference, source="gold")


def split_transcripts(first: str, second: str, task: str) -> tuple[Prompt, str, str]:
    """Two transcripts that differ in the last answer, as the prompt and the two answers.

    Unlike training's reader this one keeps odd rows (doubled roles, empty answers): whoever leaves rows out of a
    gold set chooses what is measured.

    Raises:
        RejectedRow: a transcript has no answer, or the two differ before the last one.
    """
    (before, one), (earlier, other) = _last_answer(first), _last_answer(second)
    if before != earlier:
        raise RejectedRow("differ_before_the_last_answer")
    turns: list[tuple[Role, str]] = []
    marks = list(_MARKER.finditer(before))
    ends = [mark.start() for mark in marks[1:]] + [len(before)]
    for mark, end in zip(marks, ends, strict=True):
        role: Role = "user" if mark[1] == "Human" else "assistant"
        content = before[mark.end() : end].strip()
        if turns and turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n\n{content}")
        else:
            turns.append((role, content))
    while turns and turns[-1][0] != "user":
        turns.pop()
    if not turns:
        raise RejectedRow("no_request")
    return conversation(turns, task), one, other


def _last_answer(transcript: str) -> tuple[str, str]:
    """What stands before the last answer, and the answer."""
    before, marker, answer = transcript.rpartition("\n\nAssistant:")
    if not marker:
        raise RejectedRow("no_answer")
    return before, answer.strip()
