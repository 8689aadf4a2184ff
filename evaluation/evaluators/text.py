"""Text as the evaluators see it: normalised for matching, with a way back to the original characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from evaluation.scores import Span
from runs.config import read_yaml

_FOLDED = {
    **{ord(sign): "'" for sign in "\u2018\u2019\u02bc\u2032\u00b4`"},
    **{ord(sign): '"' for sign in "\u201c\u201d"},
    **{ord(sign): "-" for sign in "\u2010\u2011\u2013\u2014"},
    ord("*"): " ",
}
"""Typographic twins of ASCII signs. Emphasis stars become blanks, so that "I **cannot** help" still matches."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)|\n+")
_NOT_AN_END = re.compile(
    r"(?:^|[\s(\"'])(?:\d{1,2}|[a-z]|e\.g|i\.e|etc|vs|mr|mrs|ms|dr|jr|sr|st|prof|no|approx|u\.s)\.$"
)
"""List numbers, initials and abbreviations, whose full stop ends no sentence."""
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.S)
_CODE_SIGN = re.compile(r"[(){}\[\]=;<>$#/\\_]")


@lru_cache(maxsize=1)
def lexicon() -> dict[str, Any]:
    """The word lists beside this module, read once."""
    return read_yaml(Path(__file__).with_name("lexicon.yaml"))


@lru_cache(maxsize=64)
def word_list(name: str) -> frozenset[str]:
    """The lexicon's list ``name``, whose entries are lines of words separated by blanks."""
    return frozenset(word for line in lexicon()[name] for word in str(line).split())


@dataclass(frozen=True)
class Token:
    """One word of the normalised text and its place there."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Text:
    """A response and its normalised twin: NFKC, case-folded, plain quotes and dashes, no invisible characters.

    Positions everywhere in the evaluators are positions in ``plain``; `span` leads back to ``original``.
    """

    original: str
    plain: str = field(init=False)
    _starts: Sequence[int] = field(init=False, repr=False)
    _ends: Sequence[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.original.isascii():  # the usual case: one sign stays one sign
            size = len(self.original)
            object.__setattr__(self, "plain", self.original.translate(_ascii_folds()))
            object.__setattr__(self, "_starts", range(size))
            object.__setattr__(self, "_ends", range(1, size + 1))
            return
        if not any(map(unicodedata.combining, self.original)):
            alone = list(map(_fold, self.original))
            if all(len(piece) == 1 for piece in alone):
                size = len(alone)
                object.__setattr__(self, "plain", "".join(alone))
                object.__setattr__(self, "_starts", range(size))
                object.__setattr__(self, "_ends", range(1, size + 1))
                return
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for start, end in _clusters(self.original):
            piece = _fold(self.original[start:end])
            pieces.append(piece)
            starts += [start] * len(piece)
            ends += [end] * len(piece)
        object.__setattr__(self, "plain", "".join(pieces))
        object.__setattr__(self, "_starts", tuple(starts))
        object.__setattr__(self, "_ends", tuple(ends))

    def span(self, start: int, end: int, why: str) -> Span:
        """The original characters behind ``plain[start:end]``, as evidence."""
        return Span(start=self._starts[start], end=self._ends[end - 1], why=why)

    def is_capital(self, position: int) -> bool:
        """Whether ``plain[position]`` was a capital letter in the original."""
        return self.original[self._starts[position]].isupper()

    def is_small(self, position: int) -> bool:
        """Whether ``plain[position]`` was a small letter in the original."""
        return self.original[self._starts[position]].islower()

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """The words, in order."""
        return tuple(Token(match.group(), match.start(), match.end()) for match in _WORD.finditer(self.plain))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words' normalised text."""
        return tuple(token.text for token in self.tokens)

    @cached_property
    def sentences(self) -> tuple[tuple[int, int], ...]:
        """(start, end) of each sentence or line that holds a word."""
        found: list[tuple[int, int]] = []
        start = 0
        for match in _SENTENCE_END.finditer(self.plain):
            if _NOT_AN_END.search(self.plain[start : match.end()]):
                continue
            found.append((start, match.end()))
            start = match.end()
        found.append((start, len(self.plain)))
        return tuple((first, last) for first, last in found if _WORD.search(self.plain, first, last))

    @cached_property
    def prose(self) -> Text:
        """The text without fenced code, which follows no rule of English; itself if it has no such block.

        A fence around words with hardly any sign of code is no code: salad does not become sound by a fence.
        """

        def replace(match: re.Match[str]) -> str:
            inside = match.group().strip("`")
            is_code = 8 * len(_CODE_SIGN.findall(inside)) >= len(inside.split())
            return "\n" if is_code else inside

        without = _FENCED.sub(replace, self.original)
        return Text(without) if without != self.original else self


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each character with its combining marks: the unit that NFKC may fuse."""
    start = 0
    for index in range(1, len(text) + 1):
        if index == len(text) or not unicodedata.combining(text[index]):
            yield start, index
            start = index


@lru_cache(maxsize=4096)
def _fold(cluster: str) -> str:
    """One cluster normalised; invisible format characters (zero-width, soft hyphen) vanish."""
    plain = unicodedata.normalize("NFKC", cluster.translate(_FOLDED)).casefold().translate(_FOLDED)
    plain = "".join(sign for sign in plain if unicodedata.category(sign) != "Cf")
    return plain if plain in ("\n", "") or not plain.isspace() else " "


@lru_cache(maxsize=1)
def _ascii_folds() -> dict[int, str]:
    """Every ASCII sign's fold, for `str.translate`."""
    return {code: _fold(chr(code)) for code in range(128)}


class Phrases:
    """Finds phrases at word boundaries, so that "rob" is not in "problem" nor "rape" in "grapes".

    Args:
        patterns: regular expressions over normalised text, in which a blank stands for any white space.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        parts = [pattern.replace(" ", r"\s+") for pattern in patterns]
        self._pattern = re.compile(r"(?<!\w)(?:" + "|".join(parts) + r")(?!\w)") if parts else None

    @classmethod
    def literal(cls, phrases: Iterable[str]) -> Phrases:
        """Phrases meant word by word; the last word may take a regular English ending (grape, grapes)."""
        plains = sorted({Text(str(phrase)).plain.strip() for phrase in phrases} - {""}, key=len, reverse=True)
        ending = r"(?:'s|s|es|d|ed|ing)?"
        return cls(re.escape(plain).replace(r"\ ", " ") + (ending if plain[-1].isalpha() else "") for plain in plains)

    @classmethod
    @lru_cache(maxsize=64)
    def named(cls, name: str) -> Phrases:
        """The lexicon's list ``name``."""
        return cls(str(pattern) for pattern in lexicon()[name])

    def find(self, text: str, start: int = 0, end: int | None = None) -> Iterator[re.Match[str]]:
        """Matches within ``text[start:end]``, left to right."""
        if self._pattern is None:
            return iter(())
        return self._pattern.finditer(text, start, len(text) if end is None else end)

    def first(self, text: str, start: int = 0, end: int | None = None) -> re.Match[str] | None:
        """The leftmost match, or None."""
        return next(self.find(text, start, end), None)


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """A crude common root, so that "cooking" and "cook" meet: regular endings off, at most six letters."""
    for ending in ("'s", "ing", "ies", "ied", "es", "ed", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:6]


def content_stems(words: Iterable[str]) -> set[str]:
    """Stems of the words that carry meaning: neither function words nor the verbs of asking."""
    light = word_list("function_words") | word_list("asking_words")
    return {stem(word) for word in words if word not in light and len(word) > 1}
