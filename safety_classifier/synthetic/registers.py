"""How a sentence is said: tweet, chat, forum post, question or order. Nothing here changes what it means."""

from __future__ import annotations

import random
import re
from functools import cache

from safety_classifier.synthetic.grammar import lexicon, lines, sentence_case

_STOPS = (".", ".", ".", ".", "", "", "", "!", "!", "!!", "...")
_QUESTIONS = ("?", "?", "?", "?", "?", "??", "")


@cache
def _parts(name: str) -> tuple[str, ...]:
    return lines(lexicon("registers")[name])


@cache
def _chat() -> tuple[dict[str, str], re.Pattern[str]]:
    pairs = dict(item.strip().split("=") for item in lexicon("registers")["chat"].split(","))
    return pairs, re.compile(r"\b(" + "|".join(map(re.escape, pairs)) + r")\b")


def ask(verb_phrase: str, rng: random.Random) -> str:
    """The verb phrase as a question or an order."""
    return rng.choice(_parts("request")).replace("{x}", verb_phrase)


def dress(text: str, rng: random.Random) -> str:
    """The text in a register: opened, closed, embedded, punctuated, cased and spelt in one of many ways."""
    if rng.random() < 0.24:
        text = f"{rng.choice(_parts('opener'))} {text}"
    text = _punctuated(text, rng)
    if rng.random() < 0.12:
        text = f"{text} {rng.choice(_parts('closer'))}"
    if rng.random() < 0.12:
        text = _embedded(text, rng)
    if rng.random() < 0.06:
        pairs, pattern = _chat()
        text = pattern.sub(lambda match: pairs[match[1]], text)
    if rng.random() < 0.04:
        text = _mistyped(text, rng)
    return _cased(text, rng)


def _punctuated(text: str, rng: random.Random) -> str:
    if text.endswith("?"):
        return text[:-1] + rng.choice(_QUESTIONS)
    return text + rng.choice(_STOPS) if text[-1].isalnum() or text[-1] in "\"')" else text


def _embedded(text: str, rng: random.Random) -> str:
    """The text among sentences about nothing, as in a longer post."""
    before, after = rng.choice(((1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2)))
    fillers = rng.sample(_parts("filler"), before + after)
    whole = text if text[-1] in ".!?" else f"{text}."
    return " ".join([*fillers[:before], whole, *fillers[before:]])


def _mistyped(text: str, rng: random.Random) -> str:
    """Two neighbouring letters swapped, or one lost."""
    places = [index for index in range(1, len(text) - 1) if text[index].isalpha() and text[index + 1].isalpha()]
    if not places:
        return text
    at = rng.choice(places)
    kept = text[at + 1] + text[at] if rng.random() < 0.6 else text[at + 1]
    return text[:at] + kept + text[at + 2 :]


def _cased(text: str, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.16:
        return text.lower()
    return text.upper() if roll < 0.19 else sentence_case(text)
