"""Small pure functions on text: words, sentences, refusals, role markers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inference.records import CURLY, normalise
from inference.records import TERMINAL as TERMINAL

WORD = re.compile(r"\w+(?:'\w+)*")
CLOSING = f"\"'\u201d{CURLY})\\]"
"""What may follow the full stop of a sentence, for a character class."""

ROLE_MARKER = re.compile(
    r"<\|\w+\|>"  # <|im_start|>, <|endoftext|> …
    r"|</?(?:start_of_turn|end_of_turn|s|bos|eos)>"
    r"|\[/?INST\]"
    r"|^\s*#{2,}\s*(?:instruction|response|input|human|assistant)\b"
    r"|(?:^|\n)\s*\**(?:human|user|assistant|system|ai|bot|message|reply|(?:critique|revision)(?: request)?)\**\s*:"
    r"|\b(?:Human|Assistant):\s",
    re.IGNORECASE,
)

_SORRY = r"(?:i'm|i am|we're|we are)?\s*(?:really |very |so |truly )?sorry"
_CANNOT = (
    r"(?:i|we) (?:really |simply |just |also )?(?:can't|cannot|can not|won't|will not|couldn't|could not|must decline|"
    r"refuse|decline|don't feel comfortable|do not feel comfortable|don't want to|do not want to)"
)
_NOT_ABLE = (
    r"(?:i'm|i am|we're|we are) (?:not (?:able|comfortable|willing|going|allowed|permitted)|unable|afraid (?:i|that))"
)
REFUSAL = re.compile(
    rf"^(?:(?:no[,.] )?{_SORRY}[,.]? (?:but|i can|i won|i am not|i'm not|i'm unable|i am unable)\b"
    rf"|(?:no|sorry|unfortunately)?[,.:]?\s*(?:{_CANNOT}|{_NOT_ABLE})\b"
    r"|as an? (?:ai|assistant|language model)\b"
    r"|(?:i apologi[sz]e|my apologies),? (?:but|i can|i'm|i am)"
    r"|(?:this|that|it) is (?:not (?:something|appropriate|okay|ok|ethical|right|legal)|illegal|wrong)"
    r"|that is a \w+ (?:that )?i(?:'m| am) not"
    r"|it(?:'s| is) not (?:appropriate|okay|ok|ethical|right|legal)"
    r"|please (?:don't|do not)\b)",
)


def straight(text: str) -> str:
    """``text`` with plain apostrophes."""
    return text.replace(CURLY, "'")


def words(text: str) -> list[str]:
    """The words of a text, normalised: case, width and spacing do not matter."""
    return WORD.findall(straight(normalise(text)))


def ngrams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All runs of ``size`` tokens, in order."""
    return [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]


def refuses(text: str) -> bool:
    """Whether the text opens as a refusal. A list of openers: it misses refusals that come later or in other words."""
    opener = re.sub(r"\s+", " ", straight(text)).strip().casefold()
    return REFUSAL.match(opener) is not None


def opening(text: str, limit: int | None) -> str:
    """The first ``limit`` words of a text, up to the last whole sentence among them; all of it if it has no more."""
    found = list(re.finditer(r"\S+", text))
    if limit is None or len(found) <= limit:
        return text.strip()
    return whole_sentences(text[: found[limit - 1].end()].strip())


def distinct_sentences(text: str) -> str:
    """``text`` without the sentences that it said before, and without a cut one at its end.

    Small models loop ("It is not helpful. It is not helpful."), and a loop in a prompt is taken up in the answer.
    """
    seen: dict[str, str] = {}
    for sentence in re.split(r"(?<=[.!?…])\s+", whole_sentences(text)):
        seen.setdefault(normalise(sentence), sentence.strip())
    return " ".join(seen.values()).strip()


def whole_sentences(text: str) -> str:
    """``text`` up to its last finished sentence; unchanged if it has none."""
    text = text.rstrip()
    if text.endswith(TERMINAL):
        return text
    ends = [match.end() for match in re.finditer(rf"(?<!\b\d)[.!?…][{CLOSING}]*(?=\s)", text)]
    return text[: ends[-1]] if ends else text
