"""Why a revision is not training data: each reason is one small pure function.

Self-revision by small models fails in ways that a preference trainer then learns: revisions that talk about the
answer instead of giving one, that copy the answer or an exemplar, or that refuse what is harmless. A published
run of the same method trained on 38 % identical pairs (docs/footguns.md). Hence every reason is counted.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from critique_revision.config import FilterSettings, Reason
from critique_revision.text import ROLE_MARKER, TERMINAL, ngrams, refuses, straight, words
from inference.records import Messages, normalise


@dataclass(frozen=True)
class Candidate:
    """A revision with all that its checks look at."""

    prompt: str
    """The conversation as text."""
    answer: str
    """The initial answer: the text that the pair would reject."""
    critique: str
    revision: str
    revision_request: str
    finish_reason: str
    tag: str
    exemplar_texts: tuple[str, ...] = ()
    """Every text of the exemplars that the reviser could copy."""


@dataclass(frozen=True)
class Standing:
    """A pair that no check of its own text rejects, as the checks of the whole set see it."""

    prompt_id: str
    messages: Messages
    """The prompt."""
    tag: str
    chosen: str
    rejected: str


STEM = 5
"""Words count as content from this many letters on, and are compared by so many of them: "gardens" meets "gardener"."""

Check = Callable[[Candidate, FilterSettings], bool]

_ABOUT = r"(?:reply|response|answer|critique|revision|rewrite|message)"
_KIND = (
    r"(?:last|previous|original|initial|revised|rewritten|first|new|above|given|suggested|proposed|improved|updated|"
    r"better)"
)
_VERDICT = (
    r"(?:is|was|isn't|does|doesn't|did|should|could|would|may|might|has|contains?|violates?|encourages?|helps?|refuses?|"
    r"suggests?|gives?|provides?|offers?|implies|promotes?|lacks?|fails?|insults?|attacks?|includes?|states?|says)"
)
_DOES = r"(?:reply|response|answer|last|should|did|was|is|could|would|does|must|said|has)"
_FAULT = (
    r"(?:harmful|unhelpful|helpful|over-?cautious|vague|too|not|unsafe|dangerous|offensive|hateful|inappropriate|biased|"
    r"incorrect|misleading|unethical|rude|illegal|appropriate)"
)
COMMENTARY = re.compile(
    rf"\b(?:the|this|that|your|my|its)\s+(?:{_KIND}\s+)+{_ABOUT}\b"
    rf"|\b(?:the|this)\s+(?:reply|response|critique|revision)\s+(?:{_VERDICT})\b"
    rf"|^(?:that|your|a)\s+(?:reply|response|critique|revision)\s+(?:{_VERDICT})\b"
    rf"|\bthe answer (?:is|was) (?:{_FAULT})\b"
    rf"|^(?:it|this) (?:is|was) (?:a |an )?(?:very |rather )?(?:harmful|unhelpful|overcautious|vague|hateful)\b"
    rf"|\bthe (?:ai |virtual )?assistant(?:'s)?\s+{_DOES}\b"
    r"|\b(?:rewrite|rewrote|rewritten|revise|revised) (?:the|this|that|my|your) " + _ABOUT + r"\b"
    r"|\b(?:here is|here's) (?:a|the|my|an|another) (?:" + _KIND + r"\s+)?" + _ABOUT + r"\b"
    r"|^(?:this|that|the|your) (?:response|reply|sentence|statement|message|text|comment|writer|author|user|prompt)\b"
    r"|(?<=[.!?] )(?:this|the|your) (?:response|reply|sentence|writer|author|user)\b"
    r"|\bto the user\b|\bthe user'?s? (?:asked|asks|is asking|wants|question|request|message)\b"
    r"|^(?:critique|revision|overcautious|unhelpful|too vague)\b",
    re.IGNORECASE,
)
PREAMBLE = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|ok|absolutely|yes|great|alright|no problem)\b[^.\n]{0,80}?)?"
    r"(?:here(?:'s| is| are)|below is|this is|i(?:'ve| have)|i(?:'ll| will))\b[^.\n]{0,40}"
    r"\b(?:revised|rewritten|rewrote|rewrite|revision|updated|improved|rephrased|corrected|version|rewriting|rewording|alternative)\b"
    r"|^(?:sure|certainly|of course|okay|ok|absolutely)\b[^.\n]{0,60}\b(?:reply|response|answer|revision|version)\b"
    r"|^\**(?:revised|rewritten|new|improved|updated)?\s*(?:reply|response|answer|version|revision)\**\s*:",
    re.IGNORECASE,
)


def empty(candidate: Candidate, settings: FilterSettings) -> bool:
    """Fewer words than an answer has."""
    return len(words(candidate.revision)) < settings.min_words


def no_answer(candidate: Candidate, settings: FilterSettings) -> bool:
    """There is nothing to prefer the revision to."""
    return not candidate.answer.strip()


def role_markers(candidate: Candidate, settings: FilterSettings) -> bool:
    """The text plays a further turn, or leaks the template."""
    return ROLE_MARKER.search(candidate.revision) is not None


def preamble(candidate: Candidate, settings: FilterSettings) -> bool:
    """The text announces a revision: "Sure, here is the revised reply"."""
    return PREAMBLE.search(_flat(candidate.revision)) is not None


def commentary(candidate: Candidate, settings: FilterSettings) -> bool:
    """The text talks about a reply instead of giving one, or repeats the critique or the request."""
    if COMMENTARY.search(_flat(candidate.revision)):
        return True
    told = (candidate.critique, candidate.revision_request)
    return any(similarity(candidate.revision, text) >= settings.echo for text in told)


def truncated(candidate: Candidate, settings: FilterSettings) -> bool:
    """Cut at the token limit in mid-sentence."""
    return candidate.finish_reason == "length" and not candidate.revision.rstrip().endswith(TERMINAL)


def over_long(candidate: Candidate, settings: FilterSettings) -> bool:
    """More words than the training context is meant to hold."""
    return len(words(candidate.revision)) > settings.max_words


def repetition(candidate: Candidate, settings: FilterSettings) -> bool:
    """The text loops: a word several times in a row, a 4-gram again and again, or few distinct 4-grams."""
    tokens = words(candidate.revision)
    runs = ngrams(tokens, 5)
    if any(len(set(run)) == 1 for run in runs):
        return True
    grams = ngrams(tokens, 4)
    if len(grams) < 8:
        return False
    most = Counter(grams).most_common(1)[0][1]
    return most >= settings.max_repeats or len(set(grams)) / len(grams) < settings.min_distinct


def few_shot_leak(candidate: Candidate, settings: FilterSettings) -> bool:
    """The text shares a run of ``leak_words`` words with an exemplar, and the conversation does not hold that run."""
    own = set(ngrams(words(candidate.revision), settings.leak_words))
    own -= set(ngrams(words(candidate.prompt), settings.leak_words))
    return any(own & set(ngrams(words(text), settings.leak_words)) for text in candidate.exemplar_texts)


def echo(candidate: Candidate, settings: FilterSettings) -> bool:
    """The text repeats the prompt: it begins with it, or is it in other clothes."""
    prompt, revision = words(candidate.prompt), words(candidate.revision)
    begins = len(prompt) >= 4 and revision[: len(prompt)] == prompt
    return begins or similarity(candidate.prompt, candidate.revision) >= settings.echo


def identical(candidate: Candidate, settings: FilterSettings) -> bool:
    """The answer again, letter for letter but for case and spacing."""
    return normalise(candidate.revision) == normalise(candidate.answer)


def near_identical(candidate: Candidate, settings: FilterSettings) -> bool:
    """The answer again with a few words changed: the pair would teach noise."""
    return similarity(candidate.answer, candidate.revision) >= settings.near_identical


def off_topic(candidate: Candidate, settings: FilterSettings) -> bool:
    """A harmless question whose revision shares no content word with it: small models drift to other subjects."""
    asked = {word[:STEM] for word in words(candidate.prompt) if len(word) >= STEM}
    said = {word[:STEM] for word in words(candidate.revision)}
    return candidate.tag == "benign" and bool(asked) and not asked & said and not refuses(candidate.revision)


def refusal_of_benign(candidate: Candidate, settings: FilterSettings) -> bool:
    """A harmless request refused: small self-revised models learn to refuse everything from such pairs."""
    return candidate.tag == "benign" and refuses(candidate.revision)


def no_decline(candidate: Candidate, settings: FilterSettings) -> bool:
    """A red-team request that the revision does not decline (only with ``require_decline``)."""
    return settings.require_decline and candidate.tag == "red_team" and not refuses(candidate.revision)


CHECKS: dict[Reason, Check] = {
    "empty": empty,
    "no_answer": no_answer,
    "role_markers": role_markers,
    "preamble": preamble,
    "commentary": commentary,
    "truncated": truncated,
    "over_long": over_long,
    "repetition": repetition,
    "few_shot_leak": few_shot_leak,
    "echo": echo,
    "identical": identical,
    "near_identical": near_identical,
    "refusal_of_benign": refusal_of_benign,
    "off_topic": off_topic,
    "no_decline": no_decline,
}
"""In the order in which they count: the first that holds is the reason."""

OF_THE_PAIR: tuple[Reason, ...] = ("broken_rejected", "not_refused", "tie", "unlabelled", "unscored")
"""Reasons that lie in the rejected side, or in what the recipe knows of the two sides (`critique_revision.pairs`)."""
OF_THE_SET: tuple[Reason, ...] = ("in_evaluation", "duplicate", "boilerplate", "near_duplicate", "unsafe_chosen")
"""Reasons that need more than the candidate, in their order: what `CHECKS` accepted is held against other texts
(`critique_revision.marking`)."""

assert {*CHECKS, *OF_THE_PAIR, *OF_THE_SET} == set(get_args(Reason))


def reasons(candidate: Candidate, settings: FilterSettings) -> tuple[Reason, ...]:
    """Every reason to reject ``candidate``, the one that counts first; empty if it is accepted."""
    return tuple(name for name, check in CHECKS.items() if name not in settings.skip and check(candidate, settings))


def similarity(first: str, second: str) -> float:
    """Share of words in common, in order: 2 M / T over words (Ratcliff and Obershelp)."""
    return difflib.SequenceMatcher(None, words(first), words(second), autojunk=False).ratio()


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", straight(text)).strip()
