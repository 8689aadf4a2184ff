"""Undo the tricks that hide words from a classifier, and keep everything else as it was written.

A text passes through small steps. Each one finds *edits* (replace this span by that string), so that one function can
apply them and keep the map back to the original. Plain ASCII, which is most text, leaves at the first check.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from safety_classifier.leet import EDGES, READINGS, SIGNS, WORDS
from safety_classifier.leet import read as read_leet

VERSION = "2"
"""Changes with the behaviour of the steps; the tables have their own digest."""

_PASSES = 8  # One step can uncover work for an earlier one; a bound keeps hostile input linear.
_LONGEST_WORD = 40  # Longer runs are identifiers and noise: no disguise is worth decoding there.


@dataclass(frozen=True)
class Normalised:
    """A text as the classifier reads it."""

    text: str
    offsets: tuple[int, ...]
    """For every character of ``text``, the index of the character of the original that it stands for."""
    obfuscation: float
    """The share of the original's characters that were disguised, in [0, 1]."""


class Edit(NamedTuple):
    """Replace ``text[start:end]`` by ``new``; ``disguise`` says whether a writer would do this only to hide a word."""

    start: int
    end: int
    new: str
    disguise: bool


_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffc\ud800-\udfff\U000e0000-\U000e0fff]"
    # Joiners are spelling in Persian and in Indic scripts, and a hiding place everywhere else.
    "|(?<![\u0620-\u109f\u1780-\u17ff])[\u200c\u200d]|[\u200c\u200d](?![\u0620-\u109f\u1780-\u17ff])"
)
_MARKS = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_OVERLAYS = frozenset(chr(code) for code in [*range(0x334, 0x339), 0x20D2, 0x20D3, 0x20E5, 0x20E6])

# Letters that can pass for a Latin one. The first table needs no other evidence; the second convinces beside Latin.
_TWINS = dict(
    zip(
        "асеорхуѕіјһԁԛԝѵАВЕКМНОРСТХУЅІЈ" + "οανιρκυΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + "օսհոցＯ" + "ᎪᏴᏟᎠᎬᎢᎫᏞᎷᏢᏒᏚᎳᏃ",
        "aceopxysijhdqwvABEKMHOPCTXYSIJ" + "oavipkuABEZHIKMNOPTYX" + "ouhngO" + "ABCDETJLMPRSWZ",
        strict=True,
    )
)
_COUSINS = _TWINS | dict(
    zip(
        "ктмнвгпиюбцёзЗЧБИ" + "βγετηχωςσθλ" + "ꓐꓚꓳ",
        "ktmhbrnnobueeEHBN" + "byetnxwcool" + "BCO",
        strict=True,
    )
)
_SHAPED = dict(
    zip(
        "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɑɡɩıǝɐɔøØłŁđĐħŧƀɨʉƒ",
        "abcdefghijklmnoprstuvwyzagiieacoOlLdDhtbiuf",
        strict=True,
    )
) | {"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE"}
_SHAPED |= {chr(0x1F150 + i): chr(97 + i) for i in range(26)} | {chr(0x1F170 + i): chr(97 + i) for i in range(26)}


def _accented() -> dict[str, str]:
    """Every accented Latin letter with the ASCII letter under its accents."""
    chars = [chr(code) for code in [*range(0xC0, 0x250), *range(0x1E00, 0x1F00)]]
    bases = {char: unicodedata.normalize("NFD", char)[0] for char in chars}
    return {char: base for char, base in bases.items() if base.isascii()}


_ACCENTED = _accented()
_STYLED = re.compile("[" + "".join(char for char in _SHAPED if ord(char) > 0x1F000) + "]")

_EMOJI_RANGES = (
    (0x231A, 0x231B), (0x23E9, 0x23F3), (0x2600, 0x27BF), (0x2B1B, 0x2B1C), (0x2B50, 0x2B50), (0x2B55, 0x2B55),
    (0x1F18E, 0x1F19A), (0x1F300, 0x1F64F), (0x1F680, 0x1F6D5), (0x1F6E0, 0x1F6EC), (0x1F6F0, 0x1F6FC),
    (0x1F7E0, 0x1F7EB), (0x1F90C, 0x1F9FF), (0x1FA70, 0x1FA74), (0x1FA78, 0x1FA7A), (0x1FA80, 0x1FA86),
    (0x1FA90, 0x1FAA8), (0x1FAB0, 0x1FAB6), (0x1FAC0, 0x1FAC2), (0x1FAD0, 0x1FAD6),
)  # fmt: skip
_EMOJI_NAMES = {
    "❤": "red heart", "☠": "skull and crossbones", "💩": "poop", "🖕": "middle finger", "🔫": "gun",
    "😂": "tears of joy", "🏻": "light skin", "🏼": "medium light skin", "🏽": "medium skin",
    "🏾": "medium dark skin", "🏿": "dark skin", "👍": "thumbs up", "👎": "thumbs down", "🙏": "folded hands",
    "♂": "male", "♀": "female", "⚧": "transgender", "🔪": "knife", "🤮": "vomiting", "🤢": "nauseated",
    "🤡": "clown", "🙂": "slight smile", "😭": "crying", "🙌": "raised hands", "💅": "nail polish",
    "🏳": "white flag", "🏴": "black flag", "♿": "wheelchair", "✡": "star of david", "☪": "star and crescent",
    "✝": "cross", "🕉": "om", "🔥": "fire", "💪": "strong arm", "😡": "angry", "🤬": "cursing", "🐵": "monkey",
    "🐒": "monkey", "🐷": "pig", "🐖": "pig", "🐀": "rat", "🐭": "mouse", "🪳": "cockroach", "🐍": "snake",
    "🍆": "eggplant", "🍑": "peach",
}  # fmt: skip
_FLAGS = {"\U0001f3f3\U0001f308": "rainbow flag", "\U0001f3f3\u26a7": "transgender flag"}


def _emoji() -> dict[str, str]:
    """Emoji with lower-case names. Unicode never renames a character, so the table is the same everywhere."""
    table: dict[str, str] = {}
    for first, last in _EMOJI_RANGES:
        for code in range(first, last + 1):
            name = re.sub(r"[^a-z]+", " ", unicodedata.name(chr(code), "").lower()).strip()
            if name:
                table[chr(code)] = name.replace(" face with ", " ").removesuffix(" sign").removeprefix("squared ")
    return table | _EMOJI_NAMES | _FLAGS


_EMOJI = _emoji()
_EMOJI_RUN = re.compile("(" + "|".join(_FLAGS) + "|[" + "".join(key for key in _EMOJI if len(key) == 1) + "])\\1*+")
_EMOJI_HINT = re.compile("[\u231a-\u2b55\U0001f18e-\U0001faff]")  # one range is far quicker than the exact set
_INDICATORS = re.compile("[\U0001f1e6-\U0001f1ff]+")

_LEET = str.maketrans("0345789@$!6€", "oeastbgasige")
# Where a digit or a sign may well be itself ("4ss", "web3", "no!way"), only these words convince.
_DISGUISED = frozenset(
    """
    ass asses asshat asshole bastard bitch bomb cocaine crap cunt damn dick die drug dumb dyke evil fag faggot fat freak
    fuck gay hate hell heroin hoe homo idiot jew kill kys lame lesbian loser meth moron murder muslim nazi piss porn
    pussy queer rape retard scum sex sexy shit slut stupid suck suicide trash tranny ugly weed whore
    """.split()  # noqa: SIM905 (sixty quoted words would hide the list)
)
_STEMS = tuple(sorted(word for word in _DISGUISED if len(word) >= 4))
_PROTECTED = re.compile(r"h\d+n\d+|l10n|a11y|[a-z]\d[a-z]|md5\w*|mp[34]\w*|html5\w*|\d+\w|w3c\w*|(?:ipv?|v)\d\w*")


def _masks() -> dict[str, str]:
    """Every listed word with inner letters starred out; where two words share a mask, the first in order is meant."""
    masks: dict[str, str] = {}
    for word in sorted(_DISGUISED - {"suck", "slut", "dick", "homo", "hoe"}):
        for start in range(1, len(word) - 1):
            for end in range(start + 1, min(start + 3, len(word) - 1) + 1):
                masks.setdefault(word[:start] + "*" * (end - start) + word[end:], word)
    return masks


_MASKS = _masks()


def _digest() -> str:
    tables = (
        _INVISIBLE.pattern,
        _TWINS,
        _COUSINS,
        _SHAPED,
        _EMOJI,
        _LEET,
        sorted(_DISGUISED),
        _PROTECTED.pattern,
        READINGS,
        list(WORDS),
    )
    return hashlib.sha256(repr((VERSION, tables)).encode("utf-8", "backslashreplace")).hexdigest()[:16]


DIGEST = _digest()
"""Identifies the tables: a checkpoint stores it, because a model must read text as it was trained to."""


def _strip_invisible(text: str) -> Iterator[Edit]:
    """Zero-width, bidirectional and control characters, variation selectors, and halves of surrogate pairs."""
    if text.isascii() and text.isprintable():
        return
    for match in _INVISIBLE.finditer(text):
        # Selectors and joiners beside emoji are how those are spelt; elsewhere an invisible character hides something.
        before = text[match.start() - 1 : match.start()]
        yield Edit(match.start(), match.end(), "", disguise=before.isascii() and match[0] not in "\ufeff\ufe0f")


def _compose(text: str) -> Iterator[Edit]:
    """NFKC, cluster by cluster, which keeps the offsets.

    Thai and Lao vowels, the numero sign and ligatures of whole phrases are spelling: they stay.
    """
    if unicodedata.is_normalized("NFKC", text):
        return
    for start, end in _clusters(text):
        old = text[start:end]
        if old.isascii() or old == "№":
            continue
        thai = "\u0e00" <= old[0] <= "\u0eff"
        new = unicodedata.normalize("NFC", old) if thai else unicodedata.normalize("NFKC", old)
        if new != old and len(new) <= 4 * len(old):
            styled = new.isascii() and new.isalnum() and unicodedata.normalize("NFC", old) == old
            yield Edit(start, end, new, disguise=styled)


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Spans of a character with its marks; bounded, because reordering marks takes quadratic time."""
    start = 0
    for index in range(1, len(text)):
        char = text[index]
        joins = unicodedata.combining(char) or "\u1160" <= char <= "\u11ff"
        if not joins or index - start >= 32:
            yield start, index
            start = index
    if text:
        yield start, len(text)


def _strip_marks(text: str) -> Iterator[Edit]:
    """Stacked and overlaid marks. One accent on a letter of another script is spelling, and stays."""
    for match in _MARKS.finditer(text):
        before = text[match.start() - 1 : match.start()]
        foreign = before.isalpha() and before not in _ACCENTED and not before.isascii()
        keep = 1 if foreign and match[0][0] not in _OVERLAYS else 0
        if len(match[0]) > keep:
            yield Edit(match.start() + keep, match.end(), "", disguise=True)


def _name_emoji(text: str) -> Iterator[Edit]:
    """Emoji as ``:alias:`` words, at most two of a kind in a row."""
    if not _EMOJI_HINT.search(text):
        return
    for match in _EMOJI_RUN.finditer(text):
        alias = f" :{_EMOJI[match[1]]}: "
        yield Edit(match.start(), match.end(), alias * min(2, len(match[0]) // len(match[1])), disguise=False)


def _name_flags(text: str) -> Iterator[Edit]:
    """Regional indicators: flags come in pairs, anything else spells a word."""
    for match in _INDICATORS.finditer(text):
        letters = "".join(chr(ord(char) - 0x1F1E6 + 97) for char in match[0])
        if len(letters) % 2:
            yield Edit(match.start(), match.end(), letters, disguise=True)
            continue
        for index in range(0, len(letters), 2):
            start = match.start() + index
            yield Edit(start, start + 2, f" :flag {letters[index : index + 2]}: ", disguise=False)


_LINK = re.compile(
    r"(?:(?<![A-Za-z])(?:https?|hxxps?|ftp)://|(?<![\w.])www\.)[^\s<>\"']*[^\s<>\"'.,;:!?)\]}]", re.IGNORECASE
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+")
_USER = re.compile(r"(?<![\w@$.])@(?!ss(?:es|hat|hole|holes|wipe)?\b)\w{2,}")


def _name_links(text: str) -> Iterator[Edit]:
    return (Edit(match.start(), match.end(), "url", disguise=False) for match in _LINK.finditer(text))


def _name_emails(text: str) -> Iterator[Edit]:
    return (Edit(match.start(), match.end(), "email", disguise=False) for match in _EMAIL.finditer(text))


def _name_users(text: str) -> Iterator[Edit]:
    for match in _USER.finditer(text):
        if read_leet(match[0].lower()) is None:
            yield Edit(match.start(), match.end(), "user", disguise=False)


_SPACED_HINT = re.compile(r"[ .\-_*~|·•][^\W_][ .\-_*~|·•]")
_SPACED = re.compile(r"(?<![^\W_])[^\W_](?=([ .\-_*~|·•]))(?:\1(?:[^\W_](?![^\W_])|[@$!](?=\1[^\W_])))++")


def _join_spaced(text: str) -> Iterator[Edit]:
    """Letters set apart by one repeated separator. One-letter words of other scripts are not a disguise."""
    if not _SPACED_HINT.search(text):
        return
    for match in _SPACED.finditer(text):
        signs = match[0][::2]
        letters = [char for char in signs if char.isalpha()]
        spelt = len(signs) >= (3 if len(letters) == len(signs) else 4) and len(letters) >= 0.4 * len(signs)
        if not spelt or len({char.lower() for char in letters}) < 2 or not any(char.isascii() for char in letters):
            continue
        acronym = match[1] == "." and match[0].isupper()
        word = "".join(signs).lower().translate(_LEET)
        # "a b i t c h" is two words, "a s s h o l e" is one.
        article = word[0] in "ai" and word[1:].startswith(_STEMS) and not word.startswith(_STEMS)
        for index in range(match.start() + (3 if article else 1), match.end(), 2):
            yield Edit(index, index + 1, "", disguise=not acronym)


_WORD = re.compile(r"\w+")


def _fold_words(text: str) -> Iterator[Edit]:
    """Look-alike and accented letters in words that mean to be read as Latin."""
    if text.isascii():
        return
    others = [char for char in set(text) if char.isalpha() and not char.isascii() and char not in _ACCENTED]
    # A letter without a Latin twin shows that the text really is in another script; so does the absence of Latin.
    genuine = any(char not in _TWINS and char not in _SHAPED for char in others) or not re.search("[A-Za-z]", text)
    for match in _WORD.finditer(text):
        if not match[0].isascii():
            yield from _fold_word(match[0], match.start(), genuine=genuine)


def _fold_word(word: str, start: int, *, genuine: bool) -> Iterator[Edit]:
    plain = sum(char.isascii() and char.isalpha() for char in word)
    latin = sum(char in _ACCENTED for char in word)
    shaped = sum(char in _SHAPED for char in word)
    alike = sum(char in _COUSINS for char in word)
    foreign = sum(char.isalpha() for char in word) - plain - latin - shaped
    if plain + latin + shaped:
        fold = foreign == alike or plain + latin + shaped >= foreign
    else:
        fold = not genuine and len(word) > 1 and all(char in _TWINS or not char.isalpha() for char in word)
    heavy = len(word) > 3 and latin * 2 > len(word)
    for index, char in enumerate(word, start):
        if char in _ACCENTED:
            yield Edit(index, index + 1, _ACCENTED[char], disguise=heavy)
        elif char in _SHAPED:
            yield Edit(index, index + 1, _SHAPED[char], disguise=char not in "øØłŁđĐæÆœŒı")
        elif fold and char in _COUSINS:
            yield Edit(index, index + 1, _COUSINS[char], disguise=True)


def _fold_styled(text: str) -> Iterator[Edit]:
    """Letters in boxes and circles, which count as symbols and so belong to no word."""
    return (Edit(match.start(), match.end(), _SHAPED[match[0]], disguise=True) for match in _STYLED.finditer(text))


_QUOTES = re.compile(r"(?<=[A-Za-z0-9.,!?])[‘’ʼ`´“”]|[‘’“”](?=[A-Za-z0-9])")


def _straighten(text: str) -> Iterator[Edit]:
    """Typographic quotation marks beside Latin letters."""
    if not text.isascii():
        for match in _QUOTES.finditer(text):
            yield Edit(match.start(), match.end(), '"' if match[0] in "“”" else "'", disguise=False)


_MIXED = re.compile(rf"[A-Za-z{SIGNS}]++")
_LEET_SIGN = re.compile(rf"[{SIGNS}][A-Za-z]|[A-Za-z][0-9$@€|+(#^]")
_PLAIN_LEET = re.compile(r"[A-Za-z0-9@$!€]+")
_STARRED = re.compile(r"(?<![A-Za-z*])[A-Za-z]++\*{1,3}[A-Za-z]++(?![A-Za-z*])")


def _decode_leet(text: str) -> Iterator[Edit]:
    """Digits and signs that stand for letters, only inside words that mix both."""
    if not _LEET_SIGN.search(text):
        return
    for match in _MIXED.finditer(text):
        seen = read_leet(match[0].lower())
        if seen is not None:
            yield from _letters(match[0], _recase(match[0], seen), match.start())
            continue
        # Punctuation at the edge of a word is itself.
        start = match.start() + len(match[0]) - len(match[0].lstrip(EDGES))
        word = match[0].strip(EDGES)
        if 2 < len(word) <= _LONGEST_WORD and _PLAIN_LEET.fullmatch(word) and _LEET_SIGN.search(word):
            yield from _letters(word, _decoded(word), start)


def _letters(word: str, read: str, start: int) -> Iterator[Edit]:
    for index, (old, new) in enumerate(zip(word, read, strict=True), start):
        if old != new:
            yield Edit(index, index + 1, new, disguise=True)


def _decoded(word: str) -> str:
    """The word that a disguise shows to a reader; the word itself where it need not be one."""
    lower = word.lower()
    sign = next(index for index, char in enumerate(lower) if not char.isalpha())
    read = lower.translate(_LEET)
    for option in (read.replace("1", "i"), read.replace("1", "l"), read := _resolve_ones(read)):
        # A word that shows without its signs is not hidden: "hello!How" keeps its exclamation mark.
        if option in _DISGUISED or (option.startswith(_STEMS) and not lower[:sign].startswith(_STEMS)):
            return _recase(word, option)
    return _recase(word, read) if _clearly_leet(lower) else word


def _resolve_ones(word: str) -> str:
    """``1`` as *l* where it meets a vowel or another 1, and as *i* elsewhere (s1ut, he11o, k1ng)."""
    chars = list(word)
    for index, char in enumerate(chars):
        if char == "1":
            before = chars[index - 1] if index else ""
            after = chars[index + 1] if index + 1 < len(chars) else ""
            chars[index] = "l" if (after and after in "aeou1") or (before and before in "eoiul") else "i"
    return "".join(chars)


def _clearly_leet(word: str) -> bool:
    letters = sum(char.isalpha() for char in word)
    if len(word) < 4 or letters * 2 < len(word) or not word[0].isalpha() or word[-1] in "$@":
        return False
    if set(word) & set("!2689"):
        return False
    inner = re.findall(r"(?<=[a-z])[^a-z]+(?=[a-z])", word)
    if not inner or ("$" in word and re.search(r"\$\d|\d\$", word)) or _PROTECTED.fullmatch(word):
        return False
    # "log4j", "gpt4o": one digit before a last letter is a name, unless it is the zero of "idi0t" or the one of "he1p".
    return len(inner) > 1 or not re.fullmatch(r"[a-z]+[3-9][a-z]", word)


def _recase(word: str, read: str) -> str:
    """``read`` in the case of ``word``; characters that were letters keep exactly what they were."""
    shout = word.upper() == word
    decoded = (new.upper() if shout else new for new in read)
    return "".join(old if old.isalpha() else new for old, new in zip(word, decoded, strict=True))


def _uncover_stars(text: str) -> Iterator[Edit]:
    """Starred-out letters of the listed words."""
    for match in _STARRED.finditer(text):
        word = _MASKS.get(match[0].lower())
        if word:
            for index, (old, new) in enumerate(zip(match[0], word, strict=True), match.start()):
                if old == "*":
                    yield Edit(index, index + 1, new.upper() if match[0].isupper() else new, disguise=True)


_LONG_LETTER = re.compile(r"([A-Za-z])\1{2,}")
_LONG_SIGN = re.compile(r"([^\w\s])\1{3,}")
_NUMERAL = re.compile(r"\b(?:[XVI]*III|AAA|XXX|WWW)\b")
_SPACE = re.compile(r"\s+")


def _squeeze_letters(text: str) -> Iterator[Edit]:
    """Runs of a letter to two, except in numerals and ``AAA``."""
    spared = {match.end() for match in _NUMERAL.finditer(text)}
    for match in _LONG_LETTER.finditer(text):
        if match.end() not in spared:
            yield Edit(match.start() + 2, match.end(), "", disguise=False)


def _squeeze_signs(text: str) -> Iterator[Edit]:
    return (Edit(match.start() + 3, match.end(), "", disguise=False) for match in _LONG_SIGN.finditer(text))


def _collapse_spaces(text: str) -> Iterator[Edit]:
    for match in _SPACE.finditer(text):
        new = " " if match.start() > 0 and match.end() < len(text) else ""
        if match[0] != new:
            yield Edit(match.start(), match.end(), new, disguise=False)


_UNICODE_STEPS: tuple[Callable[[str], Iterable[Edit]], ...] = (
    _compose,
    _strip_marks,
    _fold_styled,
    _name_emoji,
    _name_flags,
    _straighten,
)
_STEPS: tuple[Callable[[str], Iterable[Edit]], ...] = (
    _name_links,
    _name_emails,
    _name_users,
    _join_spaced,  # before spaces collapse: a wider gap is where a spaced-out word ends
    _fold_words,
    _decode_leet,
    _uncover_stars,
    _squeeze_letters,
    _squeeze_signs,
    _collapse_spaces,
)

_SUSPECT = re.compile(
    r"[A-Za-z][0-9$*]|[0-9$!][A-Za-z]|([A-Za-z])\1\1|([^\w\s])\2{3}"
    r"|(?<![A-Za-z0-9])[A-Za-z0-9][ .\-_*~|][A-Za-z0-9@$!][ .\-_*~|][A-Za-z0-9@$!]"
)


def _is_plain(text: str) -> bool:
    """Whether no step can change the text. May say no too often, never yes."""
    return (
        text.isascii()
        and text.isprintable()
        and "@" not in text
        and "  " not in text
        and "//" not in text
        and "www." not in text.lower()
        and text[:1] != " "
        and text[-1:] != " "
        and not _SUSPECT.search(text)
    )


def normalise(text: str) -> Normalised:
    """The text without disguises, with the map back to the original. Applying it twice changes nothing more."""
    offsets: list[int] | range = range(len(text))
    length, hidden = max(len(text), 1), 0
    for _ in range(_PASSES):
        if _is_plain(text):
            break
        before = text
        for step in (_strip_invisible, *(() if text.isascii() else _UNICODE_STEPS), *_STEPS):
            text, offsets, found = _apply(text, offsets, step(text))
            hidden += found
        if text == before:
            break
    return Normalised(text=text, offsets=tuple(offsets), obfuscation=min(1.0, hidden / length))


def normalise_all(texts: Iterable[str]) -> list[str]:
    """The texts alone, for training and serving."""
    return [text if _is_plain(text) else normalise(text).text for text in texts]


def _apply(text: str, offsets: list[int] | range, edits: Iterable[Edit]) -> tuple[str, list[int] | range, int]:
    """The edited text, its offsets, and how many characters were disguised. Edits come in order and do not overlap."""
    pieces: list[str] = []
    moved: list[int] = []
    last = hidden = 0
    for start, end, new, disguise in edits:
        pieces += (text[last:start], new)
        moved += offsets[last:start]
        moved += [offsets[start]] * len(new)
        last = end
        hidden += (end - start) * disguise
    if not pieces:
        return text, offsets, 0
    pieces.append(text[last:])
    moved += offsets[last:]
    return "".join(pieces), moved, hidden
