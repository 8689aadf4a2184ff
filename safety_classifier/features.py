"""Text to arrays: word pieces for the deep branch, hashed character n-grams for the wide branch.

Both branches read the same normalised text (`safety_classifier.normalise`). A response that is judged in the context
of its prompt becomes ``[CLS] prompt [SEP] response [SEP]`` with token types 0 and 1, as BERT was trained on sentence
pairs (Devlin et al. 2019, section 3); the wide branch reads the response alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safety_classifier.normalise import normalise_all

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IntArray = NDArray[np.int32]

NGRAM_SIZES = (2, 3, 4, 5)
GRAMS_PER_TOKEN = 14
"""Room for distinct n-grams per word piece: the mean is about 9 and the 99th percentile 13; what exceeds it is
dropped by hash order."""
_BASE = np.uint32(0x01000193)
_WORD_SALT, _PAIR_SALT = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B)
_SPACE = np.uint32(ord(" "))
_POWERS = np.cumprod(np.concatenate([[1], np.full(4095, _BASE)]).astype(np.uint32), dtype=np.uint32)
_CHUNK = 2048


@dataclass(frozen=True)
class Encoded:
    """Features of a list of texts, not yet padded."""

    ids: list[list[int]]
    """Word-piece ids with the special ones, at most ``max_tokens`` each."""
    second: list[int]
    """Where the second segment starts; the row's length when there is no context."""
    grams: list[IntArray]
    """Distinct n-gram buckets of each text."""

    def __len__(self) -> int:
        return len(self.ids)

    def length(self, row: int) -> int:
        """Tokens of one row."""
        return len(self.ids[row])


class Featuriser:
    """The one way from text to the model's inputs.

    Args:
        tokenizer: word-piece tokenizer with ``[CLS]``, ``[SEP]`` and ``[PAD]``.
        max_tokens: longer rows are cut: the context from its left down to a third of the room, then the text from its
            right.
        gram_bits: the wide branch has ``2 ** gram_bits`` buckets.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int = 128, gram_bits: int = 18) -> None:
        self.tokenizer, self.max_tokens, self.gram_bits = tokenizer, max_tokens, gram_bits
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.cls, self.sep, self.pad_id = (_special(tokenizer, token) for token in ("[CLS]", "[SEP]", "[PAD]"))

    def encode(
        self, texts: Sequence[str], contexts: Sequence[str] | None = None, *, normalised: bool = False
    ) -> Encoded:
        """Normalise and tokenise. ``contexts`` may hold empty strings: those texts stand alone."""
        clean = list(texts) if normalised else normalise_all(texts)
        ids, second = [], []
        pieces = self.pieces(clean)
        prompts = self._prompt_pieces(contexts, len(clean))
        for text, prompt in zip(pieces, prompts, strict=True):
            row, start = self._join(text, prompt)
            ids.append(row)
            second.append(start)
        return Encoded(ids, second, ngrams(clean, self.gram_bits))

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Word-piece ids without special tokens."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def pad(self, encoded: Encoded, rows: Sequence[int], bucket: int, count: int | None = None) -> dict[str, Any]:
        """Arrays of ``count`` rows (default ``len(rows)``), padded to ``bucket`` tokens.

        Returns:
            ``ids`` and ``types`` int32 (count, bucket), ``length`` int32 (count,), ``grams`` int32 (count, 14 *
            bucket) with -1 where there is none. Rows beyond ``len(rows)`` are empty, of length 0.
        """
        count = len(rows) if count is None else count
        room = GRAMS_PER_TOKEN * bucket
        ids = np.full((count, bucket), self.pad_id, np.int32)
        types = np.zeros((count, bucket), np.int32)
        length = np.zeros(count, np.int32)
        grams = np.full((count, room), -1, np.int32)
        for position, row in enumerate(rows):
            tokens = encoded.ids[row][:bucket]
            ids[position, : len(tokens)] = tokens
            types[position, encoded.second[row] : len(tokens)] = 1
            length[position] = len(tokens)
            kept = encoded.grams[row]
            if len(kept) > room:
                kept = kept[np.linspace(0, len(kept) - 1, room).astype(np.int64)]
            grams[position, : len(kept)] = kept
        return {"ids": ids, "types": types, "length": length, "grams": grams}

    def _prompt_pieces(self, contexts: Sequence[str] | None, count: int) -> list[list[int]]:
        if contexts is None or not any(contexts):
            return [[]] * count
        return self.pieces(normalise_all(contexts))

    def _join(self, text: list[int], prompt: list[int]) -> tuple[list[int], int]:
        if not prompt:
            row = [self.cls, *text[: self.max_tokens - 2], self.sep]
            return row, len(row)
        room = self.max_tokens - 3
        share = max(room // 3, room - len(text))
        prompt = prompt[-share:]
        head = [self.cls, *prompt, self.sep]
        return [*head, *text[: room - len(prompt)], self.sep], len(head)


def ngrams(texts: Sequence[str], bits: int) -> list[IntArray]:
    """Distinct hashed features of each text: character 2- to 5-grams within words, words, and pairs of words.

    Args:
        texts: normalised texts; lower-cased here.
        bits: features fall into ``2 ** bits`` buckets.

    Returns:
        One sorted array of distinct buckets per text.
    """
    found: list[IntArray] = []
    for start in range(0, len(texts), _CHUNK):
        found += _ngrams_of_chunk(texts[start : start + _CHUNK], bits)
    return found


@dataclass(frozen=True)
class Spans:
    """N-grams of one text with the place where each stands."""

    buckets: IntArray
    start: IntArray
    end: IntArray


def ngram_spans(text: str, bits: int) -> Spans:
    """Every n-gram of ``text`` (not only the distinct ones) with its character range, for explanations."""
    hashes, _, start, end = _hashes(*_codepoints([text]))
    start, end = start - 1, end - 1  # the text is padded by one space
    return Spans(
        _bucket(hashes, bits).astype(np.int32),
        np.clip(start, 0, len(text)).astype(np.int32),
        np.clip(end, 0, len(text)).astype(np.int32),
    )


def _ngrams_of_chunk(texts: Sequence[str], bits: int) -> list[IntArray]:
    hashes, document, _, _ = _hashes(*_codepoints(texts))
    key = (document.astype(np.int64) << bits) | _bucket(hashes, bits)
    key.sort()
    key = key[np.append(True, key[1:] != key[:-1])[: len(key)]]  # np.unique hashes first: twenty times as slow here
    cuts = np.searchsorted(key, np.arange(1, len(texts)).astype(np.int64) << bits)
    return [part.astype(np.int32) for part in np.split(key & ((1 << bits) - 1), cuts)]


def _codepoints(texts: Sequence[str]) -> tuple[NDArray[np.uint32], IntArray]:
    """Code points of all texts, each between spaces, and the number of the text that each belongs to."""
    padded = [f" {text.lower()} " if len(text.lower()) == len(text) else f" {text} " for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", errors="replace"), np.uint32)
    document = np.repeat(np.arange(len(padded), dtype=np.int32), [len(text) for text in padded])
    return np.where(points == 10, _SPACE, points), document


def _hashes(
    points: NDArray[np.uint32], document: IntArray
) -> tuple[NDArray[np.uint32], IntArray, NDArray[np.int64], NDArray[np.int64]]:
    """Hash, text number, start and end of every n-gram. A character n-gram may touch a space only at its edges."""
    space = points == _SPACE
    parts = [_words(points, document, space)]
    for size in NGRAM_SIZES:
        count = len(points) - size + 1
        if count <= 0:
            continue
        value = np.zeros(count, np.uint32)
        valid = document[:count] == document[size - 1 :]
        for offset in range(size):
            value = value * _BASE + points[offset : offset + count]
            if 0 < offset < size - 1:
                valid &= ~space[offset : offset + count]
        valid &= ~(space[:count] & space[size - 1 :])
        start = np.flatnonzero(valid)
        parts.append((value[start] + np.uint32(size), document[start], start, start + size))
    hashes, documents, starts, ends = (np.concatenate(column) for column in zip(*parts, strict=True))
    return hashes, documents, starts, ends


def _words(
    points: NDArray[np.uint32], document: IntArray, space: NDArray[np.bool_]
) -> tuple[NDArray[np.uint32], IntArray, NDArray[np.int64], NDArray[np.int64]]:
    """Words and pairs of neighbouring words."""
    before = np.concatenate([[True], space[:-1]])
    start = np.flatnonzero(~space & before)
    if not len(start):
        empty = np.zeros(0, np.int64)
        return empty.astype(np.uint32), empty.astype(np.int32), empty, empty
    after = np.concatenate([space[1:], [True]])
    end = np.flatnonzero(~space & after) + 1
    anchor = np.zeros(len(points), np.int64)
    anchor[start] = start
    place = np.arange(len(points)) - np.maximum.accumulate(anchor)
    powered = np.where(space, np.uint32(0), points * _POWERS[np.minimum(place, len(_POWERS) - 1)])
    word = np.add.reduceat(powered, start, dtype=np.uint32) + _WORD_SALT
    pair_ok = document[start[:-1]] == document[start[1:]]
    pair = (word[:-1] * _PAIR_SALT + word[1:])[pair_ok]
    return (
        np.concatenate([word, pair]),
        np.concatenate([document[start], document[start[:-1]][pair_ok]]),
        np.concatenate([start, start[:-1][pair_ok]]),
        np.concatenate([end, end[1:][pair_ok]]),
    )


def _bucket(hashes: NDArray[np.uint32], bits: int) -> NDArray[np.int64]:
    """Mix the bits (the finaliser of MurmurHash3) and keep ``bits`` of them."""
    mixed = hashes ^ (hashes >> np.uint32(16))
    mixed = mixed * np.uint32(0x85EBCA6B)
    mixed = mixed ^ (mixed >> np.uint32(13))
    mixed = mixed * np.uint32(0xC2B2AE35)
    mixed = mixed ^ (mixed >> np.uint32(16))
    buckets: NDArray[np.int64] = (mixed >> np.uint32(32 - bits)).astype(np.int64)
    return buckets


def _special(tokenizer: Tokenizer, token: str) -> int:
    index: int | None = tokenizer.token_to_id(token)
    if index is None:
        raise ValueError(f"the tokenizer has no {token}")
    return index


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))
