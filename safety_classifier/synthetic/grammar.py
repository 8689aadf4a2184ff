"""From a frame to a sentence: ``[this|that]`` picks one, ``{slot}`` draws from a word list."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runs.config import read_yaml

_LEXICONS = Path(__file__).parent / "lexicons"

_CHOICE = re.compile(r"\[([^\[\]]+)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa])n? (?=\w)")
_SOUNDS_AS_VOWEL = re.compile(r"(?!eu|one\b|uni|us[eu])(?:[aeiou]|hour|hono|heir|LGBT|ADHD|LSD|HIV)", re.IGNORECASE)
_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] )|(?<=[.!?]\n)|(?<=^\"))([a-z])")
_PERSONS = {
    "i": "you", "i'm": "you're", "i've": "you've", "i'd": "you'd", "i'll": "you'll", "am": "are", "me": "you",
    "my": "your", "mine": "yours", "myself": "yourself", "we": "you", "us": "you", "our": "your", "ours": "yours",
}  # fmt: skip
_FIRST_PERSON = re.compile(rf"\b({'|'.join(sorted(_PERSONS, key=len, reverse=True))})\b(?!')", re.IGNORECASE)


@dataclass(frozen=True)
class Identity:
    """A group of people, in the three forms that the frames use."""

    people: str
    person: str
    adjective: str

    @property
    def one(self) -> str:
        """One member, without the article."""
        return self.person.split(" ", 1)[1]

    def slots(self) -> dict[str, str]:
        """The slots that speak of this group."""
        return {"people": self.people, "person": self.person, "adj": self.adjective, "one": self.one}


IDENTITY_SLOTS = frozenset(Identity("", "a b", "").slots())


@dataclass(frozen=True)
class Words:
    """The word lists."""

    identities: tuple[Identity, ...]
    lists: dict[str, tuple[str, ...]]


def lexicon(name: str) -> dict[str, Any]:
    """One lexicon file."""
    return read_yaml(_LEXICONS / f"{name}.yaml")


def lines(block: str) -> tuple[str, ...]:
    """The entries of a block with one entry per line."""
    return tuple(line.strip() for line in block.strip().splitlines() if line.strip())


@cache
def words() -> Words:
    """The word lists that every class shares."""
    raw = lexicon("words")
    forms = ([form.strip() for form in line.split("|")] for line in lines(raw["identities"]))
    lists = {name: tuple(item.strip() for item in value.split(",")) for name, value in raw["lists"].items()}
    return Words(identities=tuple(Identity(*form) for form in forms), lists=lists)


def seeded(*key: object) -> random.Random:
    """A generator of its own for every key, so that adding a frame leaves the others as they were."""
    return random.Random("/".join(str(part) for part in key))  # noqa: S311 (nothing secret)


def fill(frame: str, rng: random.Random, identity: Identity) -> str:
    """A sentence. A slot that stands twice says the same thing twice."""
    drawn = identity.slots()

    def draw(match: re.Match[str]) -> str:
        name = match[1]
        if name not in drawn:
            drawn[name] = rng.choice(words().lists[name])
        return drawn[name]

    chosen = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), frame)
    return _with_articles(_SLOT.sub(draw, chosen))


def _with_articles(text: str) -> str:
    def article(match: re.Match[str]) -> str:
        return match[1] + ("n " if _SOUNDS_AS_VOWEL.match(text, match.end()) else " ")

    return _ARTICLE.sub(article, text)


def sentence_case(text: str) -> str:
    """Capitals where sentences begin."""
    return _SENTENCE_START.sub(lambda match: match[1].upper(), text)


def second_person(text: str) -> str:
    """What a prompt says of *me*, as an answer says it of *you*."""
    return _FIRST_PERSON.sub(lambda match: _PERSONS[match[1].lower()], text)


def digest(text: str) -> str:
    """A short, stable name for a frame: editing the file around it does not move it to another split."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
