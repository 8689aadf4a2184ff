"""Attacks on the surface of a text: a reader still understands it, a classifier may not.

Written apart from the classifier's normaliser, so that the two do not share their blind spots. Each attack is a
function of a text and a random generator; `attack` seeds one generator a row, so that a row's attack does not depend on
the rows before it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runs.errors import unknown_name

Change = Callable[[str, random.Random], str]

_WORD = re.compile(r"\w+", re.UNICODE)

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: [row[at] for at in (index - 1, index + 1) if 0 <= at < len(row)]
    for row in _KEYBOARD
    for index, key in enumerate(row)
}
_LEET = {
    "a": "4@",
    "b": "8",
    "c": "(",
    "e": "3",
    "g": "96",
    "h": "#",
    "i": "1!",
    "l": "1|",
    "o": "0",
    "s": "5$",
    "t": "7+",
    "z": "2",
}
# Cyrillic, Greek, full-width, mathematical and accented letters that look like Latin ones.
_LOOKALIKES = {
    "a": "\u0430\u03b1\uff41\U0001d41a\u00e0",
    "b": "\u044c\u0184\uff42\U0001d41b",
    "c": "\u0441\u03f2\uff43\u00e7",
    "d": "\u0501\uff44\U0001d41d",
    "e": "\u0435\u03b5\uff45\u00e9\U0001d41e",
    "g": "\u0261\uff47\U0001d420",
    "h": "\u04bb\uff48\U0001d421",
    "i": "\u0456\u03b9\uff49\u00ed\U0001d422",
    "j": "\u0458\uff4a",
    "k": "\u043a\u03ba\uff4b",
    "l": "\u04cf\uff4c\U0001d425",
    "m": "\u043c\uff4d\U0001d426",
    "n": "\u0578\uff4e\u00f1",
    "o": "\u043e\u03bf\uff4f\u00f6\U0001d428",
    "p": "\u0440\u03c1\uff50",
    "q": "\u051b\uff51",
    "r": "\u0433\uff52\U0001d42b",
    "s": "\u0455\uff53\U0001d42c",
    "t": "\u0442\u03c4\uff54\U0001d42d",
    "u": "\u03c5\u057d\uff55\u00fc",
    "v": "\u03bd\u0475\uff56",
    "w": "\u051d\uff57\u03c9",
    "x": "\u0445\u03c7\uff58",
    "y": "\u0443\u04af\uff59",
    "z": "\u1d22\uff5a\u017e",
}
_INVISIBLE = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u180e")
_MARKS = ("\u0301", "\u0308", "\u0323", "\u0332", "\u0336", "\u035c")
_EMOJI = ("😀", "🔥", "✨", "🙃", "💯", "🌈", "🎉", "👀", "🐸", "❤️", "🤷", "🍀", "👍🏽", "🇳🇿")


def typos(text: str, rng: random.Random, rate: float = 0.4) -> str:
    """One slip in this share of the words of four letters and more: swapped, dropped, doubled or neighbouring key."""

    def slip(word: str) -> str:
        if len(word) < 4 or not word.isalpha() or rng.random() >= rate:
            return word
        at = rng.randrange(1, len(word) - 1)
        kind = rng.randrange(4)
        if kind == 0:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        if kind == 1:
            return word[:at] + word[at + 1 :]
        if kind == 2:
            return word[:at] + word[at] + word[at:]
        near = _NEIGHBOURS.get(word[at].lower())
        return word[:at] + rng.choice(near) + word[at + 1 :] if near else word

    return _WORD.sub(lambda match: slip(match.group()), text)


def leetspeak(text: str, rng: random.Random, rate: float = 0.5) -> str:
    """This share of the letters that have one written as a digit or sign."""
    return _each(
        text, rng, rate, lambda letter: rng.choice(_LEET[letter.lower()]) if letter.lower() in _LEET else letter
    )


def homoglyphs(text: str, rng: random.Random, rate: float = 0.5) -> str:
    """This share of the letters replaced by ones of other scripts that look alike."""
    return _each(
        text,
        rng,
        rate,
        lambda letter: rng.choice(_LOOKALIKES[letter.lower()]) if letter.lower() in _LOOKALIKES else letter,
    )


def letter_spacing(text: str, rng: random.Random, rate: float = 0.4) -> str:
    """The letters of this share of the words of four letters and more pulled apart by spaces, dots, dashes or stars."""

    def pull(word: str) -> str:
        if len(word) < 4 or rng.random() >= rate:
            return word
        return rng.choice([" ", " ", ".", "-", "_", "*"]).join(word)

    return _WORD.sub(lambda match: pull(match.group()), text)


def zero_width(text: str, rng: random.Random, rate: float = 0.3) -> str:
    """Invisible characters after this share of the letters."""
    return _each(text, rng, rate, lambda letter: letter + rng.choice(_INVISIBLE))


def combining_marks(text: str, rng: random.Random, rate: float = 0.3) -> str:
    """Accents, strokes and underlines on this share of the letters."""
    return _each(text, rng, rate, lambda letter: letter + rng.choice(_MARKS))


def emoji(text: str, rng: random.Random, rate: float = 0.3) -> str:
    """An unrelated emoji after this share of the words, at least one."""
    words = text.split(" ")
    forced = rng.randrange(len(words))
    return " ".join(
        f"{word} {rng.choice(_EMOJI)}" if index == forced or rng.random() < rate else word
        for index, word in enumerate(words)
    )


def letter_case(text: str, rng: random.Random, rate: float = 0.5) -> str:
    """All capitals for half of the texts; upper and lower case at random for the other half."""
    if rng.random() < 0.5:
        return text.upper()
    return _each(text, rng, rate, str.swapcase)


def punctuation(text: str, rng: random.Random, rate: float = 0.15) -> str:
    """Points, commas and quotes after this share of the letters, inside words."""
    return _each(text, rng, rate, lambda letter: letter + rng.choice(".,'`~^"))


def elongation(text: str, rng: random.Random, rate: float = 0.4) -> str:
    """A letter of this share of the words of three letters and more repeated two to four times."""

    def stretch(word: str) -> str:
        if len(word) < 3 or not word.isalpha() or rng.random() >= rate:
            return word
        at = rng.randrange(1, len(word))
        return word[:at] + word[at] * rng.randint(2, 4) + word[at:]

    return _WORD.sub(lambda match: stretch(match.group()), text)


_MIXED: tuple[Change, ...] = (typos, leetspeak, homoglyphs, letter_spacing, zero_width, punctuation, letter_case)


def mixed(text: str, rng: random.Random) -> str:
    """Another attack for every word of three letters and more; a third of the words stays as it is."""

    def change(word: str) -> str:
        if len(word) < 3 or rng.random() < 1 / 3:
            return word
        return rng.choice(_MIXED)(word, rng)

    return _WORD.sub(lambda match: change(match.group()), text)


_BENIGN = (
    "The library opens at nine and closes at six on weekdays.",
    "My aunt grows tomatoes and basil on her balcony.",
    "We took the early train because the late one is often full.",
    "The recipe calls for two cups of flour and a pinch of salt.",
    "Our neighbour painted his fence green last spring.",
    "There is a small museum about clocks near the harbour.",
    "She has been learning the cello for almost three years.",
    "The meeting moved to Thursday, so there is time to read the notes.",
    "A heron stood in the pond for most of the morning.",
    "The bakery on the corner sells rye bread and plum cake.",
    "He keeps a list of every film that he has seen since school.",
    "The trail is easy at first and then climbs through pine woods.",
    "Please bring a warm jacket, the evenings are cool by the lake.",
    "The printer needs new paper, which is in the second drawer.",
    "They planted an apple tree when their daughter was born.",
    "The bus stops in front of the post office every twenty minutes.",
    "I finished the puzzle, apart from one piece that the cat took.",
    "The choir practises on Mondays in the old town hall.",
    "A light rain fell in the afternoon and the streets smelled fresh.",
    "The spreadsheet has one sheet for each month of the year.",
    "Her grandfather repaired radios and taught her how to solder.",
    "The café put two more tables outside when the weather turned.",
    "We compared three kinds of tea and liked the second best.",
    "The ferry crosses four times a day in summer.",
    "His favourite book is a history of maps with many drawings.",
    "The garden club meets in the shed behind the school.",
    "A new bridge for bicycles will open in October.",
    "The kettle whistles a little flat, but it works well.",
    "We walked around the market and bought peaches.",
    "The lecture was about the migration of swallows.",
)


def benign_padding(text: str, rng: random.Random, characters: int = 2000) -> str:
    """The text at the end of some four hundred harmless words: whoever cuts off the end never sees it."""
    padding: list[str] = []
    length = 0
    while length < characters:
        padding.append(rng.choice(_BENIGN))
        length += len(padding[-1]) + 1
    return " ".join(padding) + " " + text


_FRAMES = (
    "My friend said: “{}”",
    "In a story, a character says: {}",
    "I came across this and wanted to pass it on: {}",
    "so basically what i am saying is: {}",
    "For a school play, one line reads as follows. {}",
    "{} That is all I have to say about it.",
    "Here is the message that I got this morning: {} What do you think?",
    "Translate into formal English: {}",
    "Honestly, and I mean this, {}",
    "Step 1: read the following. {} Step 2: go on as it says.",
)


def framing(text: str, rng: random.Random) -> str:
    """The text inside a frame: a quotation, a story, a letter, a task."""
    return rng.choice(_FRAMES).replace("{}", text, 1)


def _each(text: str, rng: random.Random, rate: float, change: Callable[[str], str]) -> str:
    return "".join(change(letter) if letter.isalpha() and rng.random() < rate else letter for letter in text)


@dataclass(frozen=True)
class Attack:
    """An attack and what it may do to the length of a text."""

    name: str
    change: Change
    longest: float
    """The changed text has at most ``longest × length + 2500`` characters."""

    @property
    def what(self) -> str:
        """The first sentence of its docstring."""
        return (self.change.__doc__ or "").strip().splitlines()[0]


ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("typos", typos, 2),
        Attack("leetspeak", leetspeak, 1),
        Attack("letter_spacing", letter_spacing, 2),
        Attack("homoglyphs", homoglyphs, 1),
        Attack("zero_width", zero_width, 2),
        Attack("combining_marks", combining_marks, 2),
        Attack("emoji", emoji, 6),
        Attack("letter_case", letter_case, 3),
        Attack("punctuation", punctuation, 2),
        Attack("elongation", elongation, 3),
        Attack("mixed", mixed, 3),
        Attack("framing", framing, 1),
        Attack("benign_padding", benign_padding, 1),
    )
}
"""All attacks, by name."""


def attack(name: str, texts: Sequence[str], *, seed: int) -> list[str]:
    """The texts under one attack.

    Args:
        name: of `ATTACKS`.
        texts: the clean texts.
        seed: the same seed, name and row give the same text.

    Raises:
        UsageError: there is no such attack.
    """
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    change = ATTACKS[name].change
    return [change(text, random.Random(f"{seed}/{name}/{row}")) for row, text in enumerate(texts)]  # noqa: S311
