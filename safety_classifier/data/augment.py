"""Training-time perturbations of a text: what people and evaders do to words, kept few and simple.

Deterministic: the same seed, epoch and row give the same text, so that a resumed run reads what the first one read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from runs.config import StrictModel
from runs.identity import row_seed
from safety_classifier.data.groups import another_group

NEIGHBOURS = {
    key: "".join(row[max(0, i - 1) : i] + row[i + 1 : i + 2])
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for i, key in enumerate(row)
}
LEET = {
    "a": "4@^",
    "b": "8",
    "c": "(",
    "e": "3€",
    "g": "9",
    "i": "1!|",
    "l": "1|",
    "o": "0",
    "s": "5$",
    "t": "7+",
    "z": "2",
}
EMOJI = ("😀", "😂", "🙄", "😡", "💀", "❤️", "👍", "🤔", "😭", "🔥")
_PUNCTUATION = re.compile(r"[^\w\s]")


class AugmentConfig(StrictModel):
    """How often texts are perturbed."""

    probability: float = Field(default=0.25, ge=0.0, le=1.0)
    """Share of the rows of an epoch whose words or signs are perturbed; preference pairs never are."""
    strength: float = Field(default=0.15, gt=0.0, le=1.0)
    """Share of a text's words that a word-level perturbation touches."""
    other_groups: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the rows of an epoch that name another group of people than the text did, where it names one."""

    @property
    def touched(self) -> float:
        """Share of the rows that either may change."""
        return max(self.probability, self.other_groups)


def perturbed_rows(config: AugmentConfig, seed: int, epoch: int, count: int) -> NDArray[np.bool_]:
    """Which of ``count`` rows may change in this epoch, as a mask of shape (count,)."""
    return np.random.default_rng([seed, epoch]).random(count) < config.touched


def perturb(text: str, config: AugmentConfig, seed: int, epoch: int, row: int) -> str:
    """``text`` as a row of `perturbed_rows` reads it, drawn by (seed, epoch, row); without words it stays as it is."""
    rng = random.Random(row_seed(seed, "augment", epoch, row))  # noqa: S311
    if rng.random() * config.touched < config.other_groups:
        text = another_group(text, rng)
    if rng.random() * config.touched >= config.probability:
        return text
    changed = rng.choice(PERTURBATIONS)(text, rng, config.strength)
    return changed if changed.strip() else text


def _casing(text: str, rng: random.Random, strength: float) -> str:
    return rng.choice((str.lower, str.upper, str.title))(text)


def _typos(text: str, rng: random.Random, strength: float) -> str:
    return _in_words(text, rng, _everywhere(rng, strength), _typo)


def _leet(text: str, rng: random.Random, strength: float) -> str:
    share = rng.uniform(0.2, 0.8)

    def rewrite(word: str, rng: random.Random) -> str:
        return "".join(rng.choice(LEET[c.lower()]) if c.lower() in LEET and rng.random() < share else c for c in word)

    return _in_words(text, rng, _everywhere(rng, strength), rewrite)


def _spacing(text: str, rng: random.Random, strength: float) -> str:
    separator = rng.choice((" ", ".", "-", "_"))
    return _in_words(text, rng, _everywhere(rng, strength), lambda word, _: separator.join(word))


def _elongation(text: str, rng: random.Random, strength: float) -> str:
    def stretch(word: str, rng: random.Random) -> str:
        place = rng.randrange(len(word))
        return word[:place] + word[place] * rng.randint(2, 4) + word[place + 1 :]

    return _in_words(text, rng, strength, stretch)


def _no_punctuation(text: str, rng: random.Random, strength: float) -> str:
    return _PUNCTUATION.sub("", text)


def _emoji(text: str, rng: random.Random, strength: float) -> str:
    return f"{text} {''.join(rng.choices(EMOJI, k=rng.randint(1, 3)))}"


PERTURBATIONS: tuple[Callable[[str, random.Random, float], str], ...] = (
    _casing,
    _typos,
    _leet,
    _leet,  # the disguise that the normaliser undoes least
    _spacing,
    _elongation,
    _no_punctuation,
    _emoji,
)


def _everywhere(rng: random.Random, strength: float) -> float:
    """People disguise a word or the whole text: half of the draws take the usual share of its words, half any."""
    return rng.choice((strength, rng.uniform(strength, 1.0)))


def _in_words(text: str, rng: random.Random, strength: float, change: Callable[[str, random.Random], str]) -> str:
    """Apply ``change`` to at least one word of three letters or more; white space stays as it is."""
    parts = re.split(r"(\s+)", text)
    places = [i for i, part in enumerate(parts) if len(part) >= 3 and not part.isspace()]
    if not places:
        return text
    for place in rng.sample(places, max(1, round(strength * len(places)))):
        parts[place] = change(parts[place], rng)
    return "".join(parts)


def _typo(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word) - 1)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    kind = rng.randrange(4)
    if kind == 0:
        return before + after[0] + letter + after[1:]
    if kind == 1:
        return before + after
    if kind == 2:
        return before + letter + letter + after
    return before + rng.choice(NEIGHBOURS.get(letter.lower()) or letter) + after
