"""How much of what was asked an answer takes up, measured on the answer's own words."""

from __future__ import annotations

from typing import Any

from evaluation.evaluators.coherence import ramp
from evaluation.evaluators.response_mode import Mode
from evaluation.evaluators.text import Phrases, Text, content_stems
from evaluation.evaluators.weights import KEYWORD_SHARE, TOPIC_ENOUGH, TOPIC_FLOOR
from evaluation.scores import Span
from inference.records import Prompt


def topic(prompt: Prompt, mode: Mode) -> tuple[float, tuple[Span, ...]]:
    """Share of the prompt's subject that the answer addresses, in [`TOPIC_FLOOR`, 1], and where it does so.

    Word overlap counts content stems, saturating at `TOPIC_ENOUGH`. ``reference.keywords``, a list of groups
    of alternatives, counts the groups of which one word occurs; it weighs `KEYWORD_SHARE`.
    """
    asked = content_stems(Text(prompt.text).words)
    overlap = ramp(len(asked & mode.novelty.stems) / len(asked), 0.0, TOPIC_ENOUGH) if asked else 1.0
    groups: list[list[Any]] = (prompt.reference or {}).get("keywords") or []
    spans = [found for group in groups if (found := own_phrase(mode, group, "names a point of the reference"))]
    share = KEYWORD_SHARE * len(spans) / len(groups) + (1 - KEYWORD_SHARE) * overlap if groups else overlap
    return TOPIC_FLOOR + (1 - TOPIC_FLOOR) * share, tuple(spans)


def own_phrase(mode: Mode, phrases: list[Any], why: str) -> Span | None:
    """The first of ``phrases`` in the answer's own words, as evidence."""
    for match in Phrases.literal(phrases).find(mode.text.plain):
        if mode.novelty.is_own(match.start(), match.end()):
            return mode.text.span(match.start(), match.end(), why)
    return None
