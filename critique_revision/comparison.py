"""Which of two answers follows a principle better: the labeller's question, and the probability in its reply.

Bai et al. 2022, section 4.1: the question is multiple choice, and the label is soft: the probability that the model
gives to one letter among the two. Models favour a place, so both orders are asked and averaged; swapping the answers
then gives 1 − p. With a chain of thought the letter follows from the reasons almost surely, so probabilities are
clamped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from critique_revision.calls import Ask, Calls, Stage
from critique_revision.config import FeedbackSettings
from critique_revision.constitution import Principle
from critique_revision.dialogue import Exemplar, conversation_text
from critique_revision.folder import LABELS, REASONS
from critique_revision.principles import drawn_principles
from critique_revision.records import ChosenPrompt, Label, LabelReasons
from inference.records import Completion, LabelScores, Message, Messages
from runs.identity import digest

COMPARISON = 1
"""Raised when the wording below changes: it is part of a run's identity."""
LETTERS = ("A", "B")
ASKED = "Which reply, (A) or (B), follows the principle better?"
LETTER_ONLY = "Answer with the letter alone."
REASONS_FIRST = "Say why, in one or two sentences."
EXEMPLAR_PRINCIPLE = "The assistant helps with everything harmless, and declines what does harm and says why."
"""Stands in the exemplars. It is general, so that one prefix serves all principles."""

Texts = Mapping[int, str]
"""Number of an answer → the answer."""
Pairing = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One question: two answers in one order, and the principle that they are compared by."""

    first: int
    """The number of the answer that is shown as (A)."""
    second: int
    principle: Principle


def cases(pairings: Sequence[Pairing], principles: Sequence[Principle]) -> list[Case]:
    """Every pairing under every principle in both orders."""
    return [
        Case(first, second, principle)
        for one, other in pairings
        for principle in principles
        for first, second in ((one, other), (other, one))
    ]


def comparison_digest(exemplars: Sequence[Exemplar], settings: FeedbackSettings) -> str:
    """sha256 of all that the questions add to prompts, answers and principles."""
    wording = [COMPARISON, ASKED, LETTER_ONLY, EXEMPLAR_PRINCIPLE]
    if settings.chain_of_thought:
        wording.append(REASONS_FIRST)
    return digest(["comparison", wording, [exemplar.model_dump() for exemplar in exemplars]])


def letter_messages(exemplars: Sequence[Exemplar], prompt: str, texts: tuple[str, str], principle: str) -> Messages:
    """The question for the letter alone, after exemplars whose right letters alternate."""
    turns: list[Message] = []
    for number, exemplar in enumerate(exemplars):
        shown, letter, _ = _example(exemplar, number)
        turns += [_user(_question(exemplar.user, shown, EXEMPLAR_PRINCIPLE, LETTER_ONLY)), _assistant(letter)]
    return (*turns, _user(_question(prompt, texts, principle, LETTER_ONLY)))


def reasons_messages(exemplars: Sequence[Exemplar], prompt: str, texts: tuple[str, str], principle: str) -> Messages:
    """The question for the reasons, which come before the letter (chain of thought)."""
    turns: list[Message] = []
    for number, exemplar in enumerate(exemplars):
        shown, letter, why = _example(exemplar, number)
        turns += [_user(_question(exemplar.user, shown, EXEMPLAR_PRINCIPLE, REASONS_FIRST)), _assistant(why)]
        turns += [_user(LETTER_ONLY), _assistant(letter)]
    return (*turns, _user(_question(prompt, texts, principle, REASONS_FIRST)))


def _question(prompt: str, texts: tuple[str, str], principle: str, request: str) -> str:
    first, second = texts
    return f"Message: {prompt}\n(A) {first}\n(B) {second}\nPrinciple: {principle}\n{ASKED} {request}"


def _example(exemplar: Exemplar, number: int) -> tuple[tuple[str, str], str, str]:
    """Both texts as they are shown, the right letter, and the reasons for it."""
    if number % 2:
        return (exemplar.reply, exemplar.revision), "B", f"(A) is worse. {exemplar.critique}"
    return (exemplar.revision, exemplar.reply), "A", f"(B) is worse. {exemplar.critique}"


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def compare(
    calls: Calls,
    texts: Mapping[str, Texts],
    pairings: Callable[[ChosenPrompt], Sequence[Pairing]],
) -> list[Label]:
    """Ask the labeller every case of every prompt, each call on record.

    Args:
        calls: the run; its config says by how many principles, and whether reasons come first.
        texts: prompt id → its answers by number.
        pairings: the answers of a prompt that are compared, by number.

    Raises:
        UserError: the labeller gives no log-probabilities, or a call got no answer.
    """
    setup, settings, role = calls.setup, calls.config.feedback, calls.config.roles.labeller
    asked = {
        prompt.prompt_id: cases(pairings(prompt), drawn_principles(setup, prompt, settings.principles))
        for prompt in setup.prompts
    }

    def question(build: Callable[..., Messages], prompt: ChosenPrompt, case: Case) -> Messages:
        shown = (texts[prompt.prompt_id][case.first], texts[prompt.prompt_id][case.second])
        return build(setup.exemplars, conversation_text(prompt.messages), shown, case.principle.text)

    reasons = _reasons(calls, asked, question) if settings.chain_of_thought else {}

    def asks(prompt: ChosenPrompt) -> list[Ask]:
        found = []
        for number, case in enumerate(asked[prompt.prompt_id]):
            if settings.chain_of_thought:
                said = _assistant(reasons[prompt.prompt_id, number])
                messages: Messages = (*question(reasons_messages, prompt, case), said, _user(LETTER_ONLY))
            else:
                messages = question(letter_messages, prompt, case)
            found.append(Ask(messages, number=number))
        return found

    def record(prompt: ChosenPrompt, ask: Ask, done: LabelScores) -> Label:
        case = asked[prompt.prompt_id][ask.number]
        return Label(
            prompt_id=prompt.prompt_id,
            first=case.first,
            second=case.second,
            principle_id=case.principle.id,
            model=role.player,
            **done.model_dump(),
        )

    return calls.label(Stage("label", LABELS, "labels"), Label, role, LETTERS, asks, record)


def _reasons(
    calls: Calls, asked: Mapping[str, Sequence[Case]], question: Callable[..., Messages]
) -> dict[tuple[str, int], str]:
    """(prompt id, number of the case) → the labeller's reasons."""
    role = calls.config.roles.labeller

    def asks(prompt: ChosenPrompt) -> list[Ask]:
        found = enumerate(asked[prompt.prompt_id])
        return [Ask(question(reasons_messages, prompt, case), number=number) for number, case in found]

    def record(prompt: ChosenPrompt, ask: Ask, done: Completion) -> LabelReasons:
        case = asked[prompt.prompt_id][ask.number]
        return LabelReasons(
            prompt_id=prompt.prompt_id,
            number=ask.number,
            first=case.first,
            second=case.second,
            principle_id=case.principle.id,
            model=role.player,
            **done.model_dump(),
        )

    made = calls.write(Stage("reasons", REASONS, "reasons"), LabelReasons, role, asks, record)
    return {(row.prompt_id, row.number): row.text for row in made}


def probability(logprobs: Mapping[str, float | None]) -> float | None:
    """P(A) among the two letters; None where the model considers neither.

    A letter that a server does not list among its likeliest tokens counts as probability 0.
    """
    a, b = (logprobs.get(letter) for letter in LETTERS)
    if a is None and b is None:
        return None
    if a is None or b is None:
        return 0.0 if a is None else 1.0
    return 1.0 / (1.0 + math.exp(min(b - a, 700.0)))


def clamped(p: float, settings: FeedbackSettings) -> float:
    """With a chain of thought, ``p`` within [1 − ``clamp``, ``clamp``]; else ``p``. It maps 1 − p to 1 − its result."""
    return min(max(p, 1.0 - settings.clamp), settings.clamp) if settings.chain_of_thought else p


def preferences(labels: Sequence[Label], settings: FeedbackSettings) -> dict[Pairing, float | None]:
    """(i, j) → the probability that answer i is better than j: the mean over orders and principles.

    Antisymmetric: the value of (j, i) is 1 − that of (i, j). None where a question was not answered by a letter.
    """
    found: dict[Pairing, list[float | None]] = {}
    for label in labels:
        p = probability(label.logprobs)
        p = None if p is None else clamped(p, settings)
        found.setdefault((label.first, label.second), []).append(p)
    means: dict[Pairing, float | None] = {}
    for (one, other), forward in found.items():
        if (other, one) in means:
            mirrored = means[other, one]
            means[one, other] = None if mirrored is None else 1.0 - mirrored
            continue
        values = [*forward, *(None if p is None else 1.0 - p for p in found.get((other, one), []))]
        known = [p for p in values if p is not None]
        means[one, other] = sum(known) / len(values) if len(known) == len(values) else None
    return means
