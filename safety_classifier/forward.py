"""Compiled forward passes: rows sorted by length into buckets, about 1,024 padded tokens a call.

A call holds no more tokens than the second-level cache likes: larger batches are slower on CPU. Shapes come from a
small set, so that each is compiled once and kept in JAX's persistent cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from runs.errors import UsageError
from runs.paths import cache_dir
from safety_classifier.features import GRAMS_PER_TOKEN, Encoded, Featuriser
from safety_classifier.model import WideAndDeep
from safety_classifier.precision import Precision
from safety_classifier.quantisation import compiled

Logits = npt.NDArray[np.float32]

BUCKETS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Padded lengths; those up to the model's longest window are used."""
TOKENS_PER_CALL = 1024
"""Padded tokens that a call should hold."""
CALL_COST = 96
"""What a call costs beside its tokens, in tokens: fewer calls are worth some padding."""

Call = tuple[npt.NDArray[np.intp], jax.Array]


def remember_compilations() -> None:
    """Switch on JAX's persistent compilation cache, in the project's cache unless the user set one."""
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is None:
        settings.update("jax_compilation_cache_dir", str(cache_dir() / "jax"))
    settings.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    settings.update("jax_persistent_cache_min_entry_size_bytes", -1)


@functools.cache
def call_sizes(bucket: int) -> tuple[int, ...]:
    """Row counts of the calls of a bucket: powers of two up to `TOKENS_PER_CALL`."""
    top = max(TOKENS_PER_CALL // bucket, 1).bit_length()
    return tuple(1 << power for power in range(top))


class Forward:
    """Logits of encoded rows.

    Args:
        model: as stored or in float32.
        featuriser: pads the rows.
        precision: of the encoder's products.
    """

    def __init__(self, model: WideAndDeep, featuriser: Featuriser, precision: Precision) -> None:
        self.featuriser, self.precision = featuriser, precision
        longest = featuriser.max_tokens
        self.buckets = (*(bucket for bucket in BUCKETS if bucket < longest), longest)
        self._leaves, self._forward = compiled(model, precision)

    def __call__(self, encoded: Encoded) -> Logits:
        """Logits (rows, heads), in the order of ``encoded``, which is not empty."""
        return self.finish(self.start(encoded), len(encoded))

    def start(self, encoded: Encoded) -> list[Call]:
        """Hand all rows to the device; returns before it is done."""
        lengths = np.array([len(row) for row in encoded.ids])
        encoded = self._with_own_room(encoded, lengths)
        return [
            (rows, self._forward(self._leaves, self.featuriser.pad(encoded, rows.tolist(), bucket, size)))
            for rows, bucket, size in plan(lengths, self.buckets)
        ]

    def compiled_shapes(self) -> int:
        """How many (bucket, row count) shapes are compiled."""
        function: Any = self._forward
        return int(function._cache_size())

    def _with_own_room(self, encoded: Encoded, lengths: npt.NDArray[Any]) -> Encoded:
        """Cut n-grams to the room of each row's own bucket: a row scores the same in a call with longer ones."""
        own = np.searchsorted(self.buckets, np.minimum(lengths, self.buckets[-1]))
        room = GRAMS_PER_TOKEN * np.asarray(self.buckets)[own]
        full = np.flatnonzero(np.array([len(grams) for grams in encoded.grams]) > room)
        if not len(full):
            return encoded
        grams = list(encoded.grams)
        for row in full:
            grams[row] = grams[row][np.linspace(0, len(grams[row]) - 1, room[row]).astype(np.int64)]
        return Encoded(encoded.ids, encoded.second, grams)

    @staticmethod
    def finish(calls: Sequence[Call], count: int) -> Logits:
        """Wait for the calls of `start` and put their logits in order: (count, heads)."""
        logits = np.empty((count, calls[0][1].shape[1]), np.float32)
        for rows, found in calls:
            logits[rows] = np.asarray(found)[: len(rows)]
        return logits

    def warm(
        self,
        buckets: Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compile before the first request.

        Args:
            buckets: padded lengths; all by default.
            rows: row counts, of those that `call_sizes` has; all by default.
            progress: called with the number of shapes that are ready and their total.

        Raises:
            UsageError: a bucket that the model does not use.
        """
        chosen = self.buckets if buckets is None else tuple(buckets)
        odd = [bucket for bucket in chosen if bucket not in self.buckets]
        if odd:
            raise UsageError(f"There is no bucket {odd[0]}.", mend=f"Known: {', '.join(map(str, self.buckets))}.")
        shapes = [(bucket, size) for bucket in chosen for size in call_sizes(bucket) if rows is None or size in rows]
        nothing = Encoded([], [], [])
        for done, (bucket, size) in enumerate(shapes, 1):
            self._forward(self._leaves, self.featuriser.pad(nothing, [], bucket, size)).block_until_ready()
            if progress is not None:
                progress(done, len(shapes))


def plan(lengths: npt.NDArray[Any], buckets: Sequence[int]) -> Iterator[tuple[npt.NDArray[np.intp], int, int]]:
    """The calls that score rows of these lengths: (rows, bucket, row count of the call).

    Full calls first; what is left of a bucket goes up into the next one when its padding costs less than another call.
    """
    order = np.argsort(lengths, kind="stable")
    ends = np.searchsorted(lengths[order], np.asarray(buckets), side="right")
    ends[-1] = len(order)  # the featuriser cuts rows at the last bucket
    start = 0
    for number, (bucket, end) in enumerate(zip(buckets, ends.tolist(), strict=True)):
        if start == end:
            continue
        largest = call_sizes(bucket)[-1]
        while end - start >= largest:
            yield order[start : start + largest], bucket, largest
            start += largest
        left = end - start
        if not left:
            continue
        higher = [size for size, stop in zip(buckets[number + 1 :], ends[number + 1 :], strict=True) if stop > end]
        if higher and left * (higher[0] - bucket) <= CALL_COST:
            continue
        for size in _parts(left, bucket):
            yield order[start : min(start + size, end)], bucket, size
            start = min(start + size, end)


def _parts(rows: int, bucket: int) -> list[int]:
    """Powers of two that hold ``rows``: one call, or two where the padding of one costs more than a call."""
    whole = _power(rows)
    half = whole // 2
    if rows == whole or (half - _power(rows - half)) * bucket <= CALL_COST:
        return [whole]
    return [half, *_parts(rows - half, bucket)]


def _power(rows: int) -> int:
    """The least power of two that is not less."""
    return 1 << (rows - 1).bit_length()
