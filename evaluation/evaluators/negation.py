"""Whether a phrase is asserted or denied where it stands: "is not X", "it is a myth that X", "X? That is false"."""

from __future__ import annotations

import re

from evaluation.evaluators.text import Phrases, Text

_CLAUSE_END = re.compile(r"[,;:()?!.\n]")
_NEAR = 4
"""How many words before a phrase a "not" can stand and still deny it."""


def denied(text: Text, start: int, end: int) -> bool:
    """Whether the claim ``text.plain[start:end]`` is negated, framed as false, or called false afterwards."""
    return negated(text, start) or _framed(text, start, end) or _countered(text, end)


def negated(text: Text, start: int) -> bool:
    """Whether a negator stands in the same clause, at most `_NEAR` words before ``start``."""
    first = _sentence_of(text, start)[0]
    breaks = [match.end() for match in _CLAUSE_END.finditer(text.plain, first, start)]
    breaks += [match.end() for match in Phrases.named("contrasts").find(text.plain, first, start)]
    near = [token for token in text.tokens if token.end <= start][-_NEAR:]
    window = max([*breaks, first, *(token.start for token in near[:1])])
    return any(match.end() <= start for match in Phrases.named("negators").find(text.plain, window, start))


def _framed(text: Text, start: int, end: int) -> bool:
    """Whether the sentence calls the claim a myth or another's belief, with no "but" between."""
    first, last = _sentence_of(text, start)
    for match in Phrases.named("framers").find(text.plain, first, last):
        between = (match.end(), start) if match.end() <= start else (end, match.start())
        if between[0] <= between[1] and Phrases.named("contrasts").first(text.plain, *between) is None:
            return True
    return False


def _countered(text: Text, end: int) -> bool:
    """Whether the next sentence opens by calling the claim false."""
    following = next((limits for limits in text.sentences if limits[0] >= end), None)
    if following is None:
        return False
    match = Phrases.named("counter_sentence").first(text.plain, *following)
    return match is not None and not text.plain[following[0] : match.start()].strip()


def _sentence_of(text: Text, position: int) -> tuple[int, int]:
    return next(((first, last) for first, last in text.sentences if first <= position < last), (0, len(text.plain)))
