"""Text with marks: what differs between two answers, and the passages that a score rests on. All text is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from itertools import pairwise

MOST_TOKENS = 3000
"""Longer answers are shown without differences: comparing them would keep the reader waiting."""
MOST_CHARACTERS = 20_000
"""What is shown of one text; the rest is said to be left out."""
LEAST_EQUAL = 3
"""Equal words between two changes that set them apart: single words in common are chance."""
LEAST_SHARED = 0.1
"""Share of the shorter text that must be in both, in runs of some words, for differences to be of use."""
_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True)
class Mark:
    """A passage ``text[start:end]`` and how it looks."""

    start: int
    end: int
    look: str
    """A class of the style sheet: ``gone``, ``new``, ``evidence``, ``adds``, ``takes``."""
    why: str = ""
    """Shown on hovering."""
    strength: float = 0.0
    """How strongly it is coloured, in [0, 1], for the looks that have degrees."""


def word_differences(before: str, after: str) -> tuple[list[Mark], list[Mark]]:
    """The words of ``before`` that are gone, and the words of ``after`` that are new.

    Equal words are found by `difflib.SequenceMatcher` without its junk heuristic. Texts of more than `MOST_TOKENS`
    words and signs give no marks, nor do texts with less than `LEAST_SHARED` in common: all of them would be marked.
    """
    old, new = ([found.span() for found in _TOKEN.finditer(text)] for text in (before, after))
    if max(len(old), len(new)) > MOST_TOKENS:
        return [], []
    matcher = SequenceMatcher(
        None, [before[start:end] for start, end in old], [after[start:end] for start, end in new], autojunk=False
    )
    shared = sum(block.size for block in matcher.get_matching_blocks() if block.size >= 2 * LEAST_EQUAL)
    if shared < LEAST_SHARED * min(len(old), len(new)):
        return [], []
    gone, added = [], []
    for left, right in _changes(matcher.get_opcodes(), [before[start:end] for start, end in old]):
        if left.stop > left.start:
            gone.append(Mark(old[left.start][0], old[left.stop - 1][1], "gone"))
        if right.stop > right.start:
            added.append(Mark(new[right.start][0], new[right.stop - 1][1], "new"))
    return gone, added


def _changes(opcodes: Sequence[tuple[str, int, int, int, int]], tokens: Sequence[str]) -> list[tuple[slice, slice]]:
    """The changed stretches. Changes with fewer than `LEAST_EQUAL` equal words between them are one change."""
    found: list[tuple[slice, slice]] = []
    equal_words = LEAST_EQUAL
    for kind, first, last, other, end in opcodes:
        if kind == "equal":
            equal_words = sum(token.isalnum() for token in tokens[first:last])
            continue
        if found and equal_words < LEAST_EQUAL:
            left, right = found.pop()
            found.append((slice(left.start, last), slice(right.start, end)))
        else:
            found.append((slice(first, last), slice(other, end)))
    return found


def marked(text: str, marks: Sequence[Mark]) -> str:
    """``text`` as HTML with its marks; where marks overlap, a passage has all their looks and reasons."""
    shown = text[:MOST_CHARACTERS]
    inside = [mark for mark in marks if mark.start < len(shown)]
    ends = {0, len(shown)} | {min(end, len(shown)) for mark in inside for end in (mark.start, mark.end)}
    cuts = sorted(ends)
    parts = []
    for start, end in pairwise(cuts):
        over = [mark for mark in inside if mark.start <= start and mark.end >= end]
        parts.append(_passage(shown[start:end], over))
    if len(text) > len(shown):
        parts.append(f"<span class='cut'>… {len(text) - len(shown):,} more characters</span>")
    return "".join(parts)


def _passage(text: str, over: Sequence[Mark]) -> str:
    if not over:
        return escape(text)
    looks = dict.fromkeys(mark.look for mark in over)
    why = "; ".join(dict.fromkeys(mark.why for mark in over if mark.why))
    tag = "del" if "gone" in looks else "ins" if "new" in looks else "mark"
    title = f' title="{escape(why, quote=True)}"' if why else ""
    strength = max(mark.strength for mark in over)
    title += f' style="--s:{strength:.2f}"' if strength else ""
    return f'<{tag} class="{" ".join(looks)}"{title}>{escape(text)}</{tag}>'
