"""One row for one text: copies are merged, and a label on which copies disagree becomes unknown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from safety_classifier.data.minhash import Pairs, signatures, similar_pairs
from safety_classifier.labels import LABELS
from safety_classifier.normalise import normalise_all

if TYPE_CHECKING:
    import pandas

NORMAL = ("normal_text", "normal_context")
"""Columns of a table in the making: the texts in normal form."""

_NOISE = re.compile(r"^rt\b|\b(?:url|user|email)\b|[\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f]+")
"""The normaliser's names for links, mentions and addresses; ASCII punctuation and white space. Emoji, which can turn a
text's meaning, stand there as words and stay."""


@dataclass(frozen=True)
class Merged:
    """Rows after merging."""

    frame: pandas.DataFrame
    """The rows that stay, in order, with merged labels."""
    into: NDArray[np.int64]
    """For each input row, the number of the input row that it was merged into; itself if it stays. Shape (rows,)."""
    conflicts: dict[str, int]
    """For each head, the texts on which copies disagreed."""


def normal_forms(texts: Sequence[str]) -> list[str]:
    """What copies of a text have in common: no case, links, mentions, spacing or ASCII punctuation."""
    distinct = list(dict.fromkeys(texts))
    clean = (_NOISE.sub(" ", text.casefold()) for text in normalise_all(distinct))
    known = {raw: " ".join(text.split()) or raw for raw, text in zip(distinct, clean, strict=True)}
    return [known[text] for text in texts]


def digests(texts: Sequence[str]) -> NDArray[np.int64]:
    """A 64-bit digest of each text, shape (texts,)."""
    raw = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(raw, np.int64)


def merge_copies(frame: pandas.DataFrame, keys: NDArray[np.int64]) -> Merged:
    """Merge rows with equal keys: the first stays, with the labels on which all agree.

    Args:
        frame: rows with a float column for each head.
        keys: digests of (context, text), shape (rows,).
    """
    heads = list(LABELS.names)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    by_key = frame[heads].groupby(group, sort=True)
    low, high = by_key.min().to_numpy(np.float32), by_key.max().to_numpy(np.float32)
    differ = (low != high) & ~np.isnan(low)
    merged = np.where(differ, np.float32(np.nan), low)
    order = np.argsort(first)
    kept = frame.iloc[first[order]].copy()  # its index: positions in the input
    kept[heads] = merged[order]
    kept["test_row"] = frame["test_row"].groupby(group, sort=True).max().to_numpy()[order]
    conflicts = {head: int(count) for head, count in zip(heads, differ.sum(axis=0), strict=True) if count}
    return Merged(kept, first[group], conflicts)


def near_pairs(texts: Sequence[str], contexts: Sequence[str]) -> Pairs:
    """Pairs of rows whose texts are near-duplicates in the same context; both in normal form. Shape (pairs, 2)."""
    return similar_pairs(signatures(texts), digests(contexts))


def merge_near_copies(frame: pandas.DataFrame, pairs: Pairs) -> Merged:
    """Merge near-duplicates that agree; those that disagree both stay, for they may be a deliberate contrast.

    Args:
        frame: rows with a float column for each head and a bool column ``distinct`` (true: never merged away).
        pairs: positions (i, j), i < j, of near-duplicates.
    """
    heads = list(LABELS.names)
    labels = frame[heads].to_numpy(np.float32, copy=True)
    distinct = frame["distinct"].to_numpy(bool)
    into = np.arange(len(frame))
    conflicts = dict.fromkeys(heads, 0)
    for left, right in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]:
        keep = into[left]
        if distinct[right] or into[right] != right or keep == right:
            continue
        differ = (labels[keep] != labels[right]) & ~np.isnan(labels[keep]) & ~np.isnan(labels[right])
        if differ.any():
            for place in np.flatnonzero(differ):
                conflicts[heads[place]] += 1
            continue
        labels[keep] = np.where(np.isnan(labels[keep]), labels[right], labels[keep])
        into[right] = keep
    result = frame.copy()
    result[heads] = labels
    stays = into == np.arange(len(frame))
    # A row that stays takes over the test mark of those merged into it.
    result["test_row"] = frame["test_row"].groupby(into).transform("max").to_numpy()
    return Merged(result[stays], into, {head: count for head, count in conflicts.items() if count})
