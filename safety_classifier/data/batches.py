"""Which rows go into which batch: rows of like length together, every batch of one shape per bucket.

Padding is what a batch computes for nothing. Rows are sorted into buckets by their number of tokens; a batch holds as
many rows of one bucket as fit into a fixed number of tokens, so that every step costs about the same and compiles once
per bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runs.errors import UsageError
from safety_classifier.labels import LABELS
from safety_classifier.normalise import normalise_all

if TYPE_CHECKING:
    import pandas

Batch = dict[str, NDArray[Any]]
Rows = NDArray[np.int64]

ENCODE_ROWS = 4096
"""Rows that are tokenised together: enough for the tokeniser's threads, little enough for the memory."""


class Featuriser(Protocol):
    """What the pipeline asks of `safety_classifier.features.Featuriser`."""

    @property
    def max_tokens(self) -> int:
        """Rows are cut to this many tokens."""
        ...

    def pieces(self, texts: Sequence[str], /) -> list[list[int]]:
        """Word-piece ids of normalised texts, without special tokens."""
        ...

    def encode(self, texts: Sequence[str], contexts: Sequence[str] | None = None, /) -> Any:
        """Features of raw texts with their contexts, not yet padded."""
        ...

    def pad(self, encoded: Any, rows: Sequence[int], bucket: int, count: int | None = None, /) -> dict[str, Any]:
        """Arrays of ``count`` rows, padded to ``bucket`` tokens; rows beyond ``rows`` are empty."""
        ...


@dataclass(frozen=True)
class Columns:
    """A frame as arrays, so that taking rows is quick and needs no lock."""

    text: NDArray[np.object_]
    context: NDArray[np.object_]
    weight: NDArray[np.float32]
    labels: NDArray[np.float32]
    """Shape (rows, heads); NaN where unknown."""
    pair: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True)
class PlannedBatch:
    """One batch before its arrays exist."""

    bucket: int
    """Tokens per row."""
    size: int
    """Rows of the batch, on all hosts together."""
    rows: Rows
    """Row numbers: whole pairs first, chosen before rejected, then single rows; at most ``size``."""


def columns_of(frame: pandas.DataFrame) -> Columns:
    """The arrays of prepared rows.

    Raises:
        UsageError: the two rows of a preference pair are not adjacent.
    """
    pair = frame["pair"].to_numpy(np.int64)
    first = np.flatnonzero((pair >= 0) & (pair != np.concatenate([[-1], pair[:-1]])))
    if len(first) * 2 != int((pair >= 0).sum()) or (pair[first] != pair[np.minimum(first + 1, len(pair) - 1)]).any():
        raise UsageError(
            "A preference pair has not its two rows side by side.", mend="Keep or drop both rows of a pair."
        )
    return Columns(
        text=frame["text"].to_numpy(object),
        context=frame["context"].to_numpy(object),
        weight=frame["weight"].to_numpy(np.float32),
        labels=frame[list(LABELS.names)].to_numpy(np.float32),
        pair=pair,
    )


def token_lengths(featuriser: Featuriser, texts: Sequence[str], contexts: Sequence[str]) -> NDArray[np.int32]:
    """Tokens of each row as it will be encoded, shape (rows,).

    Counts word pieces and special tokens only: the n-grams, which cost the most, do not matter for it.
    """

    def count(raw: Sequence[str]) -> dict[str, int]:
        distinct = list(dict.fromkeys(raw))
        return {text: len(ids) for text, ids in zip(distinct, featuriser.pieces(normalise_all(distinct)), strict=True)}

    lengths = np.empty(len(texts), np.int32)
    for start in range(0, len(texts), ENCODE_ROWS):
        part, prompts = texts[start : start + ENCODE_ROWS], contexts[start : start + ENCODE_ROWS]
        of_text, of_prompt = count(part), count(prompts)
        for place, (text, prompt) in enumerate(zip(part, prompts, strict=True), start):
            # [CLS] text [SEP], or [CLS] prompt [SEP] text [SEP]
            lengths[place] = of_text[text] + 2 + (of_prompt[prompt] + 1 if of_prompt[prompt] else 0)
    return np.minimum(lengths, featuriser.max_tokens)


def batch_sizes(buckets: Sequence[int], tokens_per_batch: int, multiple: int) -> dict[int, int]:
    """Rows of a batch of each bucket: as many as fit into ``tokens_per_batch``, a multiple, at least one.

    Raises:
        UsageError: the buckets are not ascending.
    """
    if list(buckets) != sorted(set(buckets)) or not buckets or buckets[0] < 1:
        raise UsageError(f"Buckets must be ascending lengths, not {list(buckets)}.")
    return {bucket: max(1, tokens_per_batch // bucket // multiple) * multiple for bucket in buckets}


def plan_batches(
    order: Rows, lengths: NDArray[np.int32], pair: NDArray[np.int64], sizes: dict[int, int]
) -> list[PlannedBatch]:
    """Sort rows into buckets and cut each bucket into batches, in the order given. Every row is in exactly one batch.

    Args:
        order: the rows to use, each single row or the first row of each pair, in the order to read them.
        lengths: tokens of every row of the frame, shape (rows,).
        pair: pair number of every row of the frame, -1 for single rows, shape (rows,).
        sizes: rows of a batch by bucket, even numbers.

    Returns:
        Batches, by rising bucket. What does not fill a batch moves up to the next bucket, where it costs a little
        padding instead of empty rows; only the last batch may be partly empty.
    """
    second = np.minimum(order + 1, len(lengths) - 1)
    longest = np.where(pair[order] >= 0, np.maximum(lengths[order], lengths[second]), lengths[order])
    place = np.minimum(np.searchsorted(list(sizes), longest), len(sizes) - 1)
    planned: list[PlannedBatch] = []
    left = order[:0]
    for index, (bucket, size) in enumerate(sizes.items()):
        found = np.concatenate([left, order[place == index]])
        width = np.where(pair[found] >= 0, 2, 1)
        cuts = _cuts(width, size)
        left = found[:0]
        if cuts and width[cuts[-1]].sum() < size - 1 and index + 1 < len(sizes):
            left = found[cuts.pop()]
        planned += [PlannedBatch(bucket, size, _rows(found[cut], pair)) for cut in cuts]
    return planned


def assemble(
    planned: PlannedBatch, columns: Columns, featuriser: Featuriser, texts: Sequence[str], shard: slice
) -> Batch:
    """The arrays of one host's part of a batch.

    Args:
        planned: the batch.
        columns: the frame's arrays.
        featuriser: turns texts to arrays.
        texts: the texts of the rows in ``shard``, perturbed or not.
        shard: this host's rows of the batch.

    Returns:
        The featuriser's arrays and, for B rows and H heads, float32: ``targets`` (B, H), 0 where unknown; ``mask``
        (B, H), 1 where a label is known and the head is no preference; ``weight`` (B,), 0 for empty rows; ``pair``
        (B, H), 1 at the chosen row and the head of a preference pair, whose rejected row is the next; and ``row`` int64
        (B,), the row of the frame, -1 for empty rows.
    """
    rows = planned.rows[shard]
    size = shard.stop - shard.start
    encoded = featuriser.encode(texts, columns.context[rows].tolist()) if len(rows) else featuriser.encode([""], [""])
    batch: Batch = dict(featuriser.pad(encoded, range(len(rows)), planned.bucket, size))
    heads = len(LABELS.names)
    is_preference = np.isin(np.arange(heads), LABELS.columns(LABELS.of("preference")))
    labels = np.full((size, heads), np.nan, np.float32)
    labels[: len(rows)] = columns.labels[rows]
    known = ~np.isnan(labels)
    batch["targets"] = np.where(known, labels, np.float32(0.0))
    batch["mask"] = (known & ~is_preference).astype(np.float32)
    batch["pair"] = (known & is_preference & (labels == 1.0)).astype(np.float32)
    batch["weight"] = np.zeros(size, np.float32)
    batch["weight"][: len(rows)] = columns.weight[rows]
    batch["row"] = np.full(size, -1, np.int64)
    batch["row"][: len(rows)] = rows
    return batch


def ordered_batches(
    frame: pandas.DataFrame, featuriser: Featuriser, buckets: Sequence[int], tokens_per_batch: int, multiple: int = 2
) -> Iterator[Batch]:
    """The batches that read every row of ``frame`` once, unperturbed, by rising length: for evaluation.

    Args:
        frame: prepared rows.
        featuriser: turns texts into arrays.
        buckets: padded lengths, ascending.
        tokens_per_batch: padded tokens of a batch.
        multiple: batches hold a multiple of this many rows: an even number, at least two for each device.
    """
    columns = columns_of(frame)
    lengths = token_lengths(featuriser, columns.text.tolist(), columns.context.tolist())
    order = units(columns.pair)
    order = order[np.argsort(lengths[order], kind="stable")]
    for planned in plan_batches(order, lengths, columns.pair, batch_sizes(buckets, tokens_per_batch, multiple)):
        yield assemble(planned, columns, featuriser, columns.text[planned.rows].tolist(), slice(0, planned.size))


def units(pair: NDArray[np.int64]) -> Rows:
    """Single rows and the first rows of pairs."""
    return np.flatnonzero((pair < 0) | (pair != np.concatenate([[-1], pair[:-1]])))


def padding_share(planned: Sequence[PlannedBatch], lengths: NDArray[np.int32]) -> float:
    """The share of the batches' tokens that are padding, empty rows included."""
    slots = sum(batch.bucket * batch.size for batch in planned)
    used = sum(int(np.minimum(lengths[batch.rows], batch.bucket).sum()) for batch in planned)
    return 1.0 - used / slots if slots else 0.0


def _cuts(width: NDArray[np.int64], size: int) -> list[slice]:
    """Consecutive units whose rows fill a batch; a pair that does not fit any more leaves one row free."""
    ends = np.cumsum(width)
    cuts, start, used = [], 0, 0
    while start < len(width):
        stop = int(np.searchsorted(ends, used + size, side="right"))
        cuts.append(slice(start, stop))
        start, used = stop, int(ends[stop - 1])
    return cuts


def _rows(chosen: Rows, pair: NDArray[np.int64]) -> Rows:
    """The rows of units: pairs first, so that each begins at an even place and no shard of even size parts one."""
    pairs = chosen[pair[chosen] >= 0]
    return np.concatenate([np.stack([pairs, pairs + 1], axis=1).ravel(), chosen[pair[chosen] < 0]])
