"""Long texts: overlapping windows over word pieces, so that harm at the end counts, and how their scores become one.

- A text that fits is one window. Otherwise windows start three quarters of a window apart, at words.
- An exchange is windowed over its response; each window keeps the prompt's end, as the featuriser cuts it.
- Harm anywhere is harm: categories and ``harmful_response`` take the maximum. A refusal stands at the start of an
  answer: ``refusal`` is read from the first window. A preference is of the whole answer: the mean over windows,
  weighted by word pieces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safety_classifier.features import Encoded, Featuriser
from safety_classifier.labels import Head, Labels
from safety_classifier.normalise import normalise_all

Logits = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_Piece = tuple[str, range | list[int]]

FROM_THE_START = frozenset({"refusal"})
"""Response heads that the first window decides."""

_LONG = 8
"""Texts of more characters a token than this are windowed without a try to fit them whole."""
_LONGEST_WORD = 100
"""WordPiece reads a longer word as one unknown token; it is broken up instead."""
_UNBROKEN = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")


@dataclass(frozen=True)
class Windows:
    """Texts as rows for the model."""

    encoded: Encoded
    owner: Ints
    """(rows,) the text that each row is a part of, ascending."""
    texts: list[str]
    """(rows,) what the text branch and the n-grams read."""
    places: list[range | list[int]]
    """For every character of a row's text and its end, the character of the normalised text."""
    weight: npt.NDArray[np.float32]
    """(rows,) word pieces of the text in each row, with the special ones."""


def windows(featuriser: Featuriser, clean: Sequence[str], contexts: Sequence[str] | None) -> Windows:
    """Encode normalised texts, the long ones in windows.

    Args:
        featuriser: as in training.
        clean: normalised texts.
        contexts: prompts as they came, or None.
    """
    prompts = _shortened(featuriser, contexts)
    brief = [row for row, text in enumerate(clean) if len(text) <= _LONG * featuriser.max_tokens and not _has_run(text)]
    given = None if prompts is None else [prompts[row] for row in brief]
    whole = featuriser.encode([clean[row] for row in brief], given, normalised=True)
    fits = {row: place for place, row in enumerate(brief) if not _may_be_cut(featuriser, whole, place)}
    if len(fits) == len(clean):
        return _gathered(whole, np.arange(len(clean)), list(clean), [range(len(text) + 1) for text in clean])
    parts: list[_Piece] = []
    owner: list[int] = []
    for row in range(len(clean)):
        if row in fits:
            continue
        pieces = _cut(featuriser, clean[row], prompts[row] if prompts is not None else "")
        parts += pieces
        owner += [row] * len(pieces)
    given = None if prompts is None else [prompts[row] for row in owner]
    cut = featuriser.encode([text for text, _ in parts], given, normalised=True)
    return _sorted(whole, fits, cut, parts, owner, clean)


def combine(labels: Labels, logits: Logits, found: Windows, count: int) -> tuple[Logits, Ints]:
    """One row of logits a text, and the window that decided each.

    Args:
        labels: the schema.
        logits: (rows, heads), one row a window.
        found: the windows.
        count: texts.

    Returns:
        float32 (count, heads); row numbers of ``found`` (count, heads), of the longest window where the mean decides.
    """
    if len(found.owner) == count:
        return logits, np.repeat(np.arange(count)[:, None], logits.shape[1], axis=1)
    starts = np.searchsorted(found.owner, np.arange(count))
    ends = np.append(starts[1:], len(found.owner))
    scores, decided = logits[starts].copy(), np.repeat(starts[:, None], logits.shape[1], axis=1)
    for text in np.flatnonzero(ends - starts > 1):
        part = slice(int(starts[text]), int(ends[text]))
        shares = window_shares(labels, logits[part], found.weight[part])
        scores[text] = np.sum(shares * logits[part], axis=0)
        decided[text] = starts[text] + np.argmax(shares, axis=0)
    return scores, decided


def window_shares(labels: Labels, logits: Logits, weight: npt.NDArray[np.float32]) -> Logits:
    """How much each window of one text counts for each head: (windows, heads); every column sums to 1.

    Args:
        labels: the schema.
        logits: (windows, heads).
        weight: (windows,) word pieces.
    """
    shares = np.zeros_like(logits)
    for column, head in enumerate(labels.heads):
        if head.kind == "preference":
            shares[:, column] = weight / weight.sum()
        else:
            shares[_deciding(head, logits[:, column]), column] = 1.0
    return shares


def _deciding(head: Head, logits: Logits) -> int:
    return 0 if head.name in FROM_THE_START else int(np.argmax(logits))


def _sorted(
    whole: Encoded, fits: dict[int, int], cut: Encoded, parts: list[_Piece], owner: list[int], clean: Sequence[str]
) -> Windows:
    """Rows that fit and windows of those that do not, in the order of the texts."""
    kept = list(fits)
    owners = np.array(kept + owner)
    order = np.argsort(owners, kind="stable").tolist()

    def both(short: Sequence[Any], long: Sequence[Any]) -> list[Any]:
        column = [short[fits[row]] for row in kept] + list(long)
        return [column[row] for row in order]

    encoded = Encoded(both(whole.ids, cut.ids), both(whole.second, cut.second), both(whole.grams, cut.grams))
    pieces = [(clean[row], range(len(clean[row]) + 1)) for row in kept] + parts
    return _gathered(encoded, owners[order], [pieces[row][0] for row in order], [pieces[row][1] for row in order])


def _gathered(encoded: Encoded, owner: Ints, texts: list[str], places: list[range | list[int]]) -> Windows:
    alone = [
        len(row) if second == len(row) else len(row) - second
        for row, second in zip(encoded.ids, encoded.second, strict=True)
    ]
    return Windows(encoded, owner, texts, places, np.array(alone, np.float32))


def _may_be_cut(featuriser: Featuriser, encoded: Encoded, row: int) -> bool:
    """Whether the featuriser may have dropped some of the text: the row is full and the prompt down to its third."""
    length, second = encoded.length(row), encoded.second[row]
    if length < featuriser.max_tokens:
        return False
    return second == length or second - 2 <= (featuriser.max_tokens - 3) // 3


def _cut(featuriser: Featuriser, text: str, prompt: str) -> list[_Piece]:
    """The windows of one text."""
    broken, origin = _breakable(text)
    places = range(len(text) + 1) if origin is None else origin
    encoding = featuriser.tokenizer.encode(broken, add_special_tokens=False)
    words, offsets, count = encoding.word_ids, encoding.offsets, len(encoding.ids)
    size = _text_room(featuriser, prompt, count)
    if count <= size:
        return [(broken, places)]
    found: list[_Piece] = []
    for first, last in _ranges(words, size):
        start = 0 if first == 0 else offsets[first][0]
        end = len(broken) if last == count else offsets[last - 1][1]
        found.append((broken[start:end], places[start : end + 1]))
    return found


def _ranges(words: Sequence[int | None], size: int) -> list[tuple[int, int]]:
    """Ranges of at most ``size`` tokens that cover all tokens; they begin and end at words where these allow it."""
    count, found, first = len(words), [], 0
    while True:
        last = min(first + size, count)
        if last < count:
            edge = last
            while edge > first + size // 2 and words[edge] == words[edge - 1]:
                edge -= 1
            last = edge if edge > first + size // 2 else last
        found.append((first, last))
        if last == count:
            return found
        # The last window is moved back until it is full: an end that stands alone would lose its context.
        following = max(min(first + 3 * size // 4, count - size), first + 1)
        following = min(following, last)
        while following < last and words[following] == words[following - 1]:
            following += 1
        first = following


def _text_room(featuriser: Featuriser, prompt: str, count: int) -> int:
    """Word pieces of the text that fit beside the prompt, as the featuriser shares the room."""
    if not prompt:
        return featuriser.max_tokens - 2
    room = featuriser.max_tokens - 3
    pieces = len(featuriser.pieces(normalise_all([prompt]))[0])
    return room - min(pieces, max(room // 3, room - count))


def _shortened(featuriser: Featuriser, contexts: Sequence[str] | None) -> list[str] | None:
    """Contexts with what no window can hold taken from their left: each window tokenises its prompt again."""
    if contexts is None or not any(contexts):
        return None
    limit = _LONG * featuriser.max_tokens
    return [text if len(text) <= limit else _tail(featuriser, text) for text in contexts]


def _tail(featuriser: Featuriser, context: str) -> str:
    clean = normalise_all([context])[0]
    encoding = featuriser.tokenizer.encode(clean, add_special_tokens=False)
    if len(encoding.ids) <= featuriser.max_tokens:
        return clean
    return clean[encoding.offsets[-featuriser.max_tokens][0] :]


def _has_run(text: str) -> bool:
    return len(text) > _LONGEST_WORD and _UNBROKEN.search(text) is not None


def _breakable(text: str) -> tuple[str, list[int] | None]:
    """``text`` with spaces in runs that no word is as long as, and the origin of each character if that changed it."""
    cuts = [
        place
        for run in _UNBROKEN.finditer(text)
        for place in range(run.start() + _LONGEST_WORD, run.end(), _LONGEST_WORD)
    ]
    if not cuts:
        return text, None
    pieces, origin, last = [], [], 0
    for cut in (*cuts, len(text)):
        pieces.append(text[last:cut])
        origin += [*range(last, cut), cut]  # the space stands for the place of the cut
        last = cut
    return " ".join(pieces), origin
