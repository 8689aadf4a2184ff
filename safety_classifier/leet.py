"""Which word a reader sees in ``5tup1d``: digits and signs as letters, where that makes a known word out of none.

The words are those of the vocabulary of ``bert-base-uncased`` (Apache-2.0), commonest first.
"""

from __future__ import annotations

import itertools
import re
from functools import lru_cache
from importlib.resources import files

READINGS = {
    "0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "gb", "7": "t", "8": "b", "9": "g",
    "@": "a", "$": "s", "!": "il", "|": "li", "+": "t", "(": "c", "#": "h", "€": "e", "^": "a",
}  # fmt: skip
"""The letters that each sign can stand for, the likelier first."""

SIGNS = re.escape("".join(READINGS))
EDGES = "!|+(#^"
"""Signs that are also punctuation: at the edge of a word they count as letters only if the rest alone is no word."""

_LONGEST = 20
_MOST_SIGNS = 8
# Numbers with a unit or an ordinal's ending, and versions of names: h1n1, mp3, 5am, 2nd, i18n.
_FIGURES = re.compile(
    r"\d+(?:am|pm|st|nd|rd|th|s|k|m|g|x|d|kg|km|cm|mm|ml|mg|gb|mb|tb|hz|hrs?|mins?|secs?|ft|in|lbs?|yrs?|yo|ish|pc|pt)"
    r"|[a-z]\d+[a-z]\d*|[a-z]{1,2}\d+[a-z]?|[a-z]+\d+|\d+[a-z]"
)


def _words() -> dict[str, int]:
    text = files("safety_classifier").joinpath("words.txt").read_text(encoding="ascii")
    return {word: rank for rank, word in enumerate(text.split())}


WORDS = _words()
"""Known words with their rank by frequency."""


def known(word: str) -> bool:
    """Whether ``word`` (lower case) is in the list, or its plural is."""
    return word in WORDS or (word.endswith("s") and word[:-1] in WORDS)


@lru_cache(maxsize=1 << 16)
def read(word: str) -> str | None:
    """The known word, letter for sign, that ``word`` (lower case) disguises; None where it need not be a disguise.

    A result has the length of ``word``. A name with a number (``iphone5``), a quantity (``5am``) and a word beside
    punctuation (``wow!``) are no disguise.
    """
    signs = sum(char in READINGS for char in word)
    letters = sum("a" <= char <= "z" for char in word)
    if not 3 <= len(word) <= _LONGEST or not 0 < signs <= _MOST_SIGNS or not letters or signs + letters < len(word):
        return None
    core = word.strip("0123456789@" + EDGES)
    bare = word.strip("@" + EDGES)
    money = re.search(r"\$\d+k?$", word) is not None
    figure = _FIGURES.fullmatch(word) is not None and not _inside(word)
    if known(core) or (bare.isalpha() and len(bare) < 4) or money or figure:
        return None
    options = ("".join(chars) for chars in itertools.product(*(READINGS.get(char, char) for char in word)))
    found = [option for option in options if known(option)]
    # Three characters say little: "+he", "a$s"; two of them must be letters.
    if not found or (len(word) == 3 and letters < 2):
        return None
    return min(found, key=lambda option: WORDS.get(option, len(WORDS)))


def _inside(word: str) -> bool:
    """A sign between letters of a long word, as in ``h1story``: no figure looks so."""
    return len(word) > 4 and re.search(r"[a-z][^a-z]+[a-z]{2}", word) is not None
