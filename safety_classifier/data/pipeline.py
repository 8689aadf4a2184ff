"""The stream of training batches: deterministic, resumable to the batch, the same on every host, cut by host.

An epoch is planned first (which rows, perturbed how, in which batch); the plan is the source of a grain dataset, which
shuffles it, builds the arrays in threads ahead of the training, and keeps the place. Grain: github.com/google/grain.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runs.errors import IntegrityError, UsageError
from runs.identity import canonical_json, text_digest
from safety_classifier.data.augment import AugmentConfig, perturb, perturbed_rows
from safety_classifier.data.batches import (
    Batch,
    Featuriser,
    PlannedBatch,
    assemble,
    batch_sizes,
    columns_of,
    padding_share,
    plan_batches,
    token_lengths,
    units,
)
from safety_classifier.data.dedup import digests

if TYPE_CHECKING:
    import pandas

THREADS, PREFETCH = 2, 8
"""Threads that build batches, and batches built ahead: a batch takes a few milliseconds, a step on a CPU far longer."""


@dataclass(frozen=True)
class EpochPlan:
    """One epoch: its batches, not yet shuffled, and which rows are perturbed."""

    batches: list[PlannedBatch]
    perturbed: NDArray[np.bool_]
    """Shape (rows,)."""
    padding: float
    """Share of the tokens that are padding."""


class TrainStream:
    """Batches of several epochs. Iterate it, or take `iterator` to save and restore the place.

    Args:
        frame: prepared training rows.
        featuriser: turns texts into arrays; what `Featuriser` asks.
        buckets: padded lengths, ascending; the last is the featuriser's ``max_tokens``.
        tokens_per_batch: padded tokens of a batch, on all hosts together.
        seed: of order and perturbation.
        epochs: passes over the rows; the last may be partial.
        augment: how rows are perturbed; None leaves them as they are.
        host_index: this host, from 0; it gets its part of every batch.
        host_count: hosts that train together.
        devices: devices of each host; batches divide evenly among all devices, in whole pairs.
        threads: threads that build batches; 0 builds them in the caller's.

    Raises:
        UsageError: the buckets do not fit the featuriser, there are no rows, or a pair is torn.
    """

    def __init__(
        self,
        frame: pandas.DataFrame,
        featuriser: Featuriser,
        *,
        buckets: Sequence[int],
        tokens_per_batch: int,
        seed: int,
        epochs: float = 1.0,
        augment: AugmentConfig | None = None,
        host_index: int = 0,
        host_count: int = 1,
        devices: int = 1,
        threads: int = THREADS,
    ) -> None:
        if len(frame) == 0:
            raise UsageError("There are no rows to train on.")
        if not buckets or buckets[-1] != featuriser.max_tokens:
            raise UsageError(
                f"The last bucket must be the longest row ({featuriser.max_tokens} tokens), not {list(buckets)}."
            )
        if not 0 <= host_index < host_count:
            raise UsageError(f"Host {host_index} is not one of {host_count} hosts.")
        self.columns, self.featuriser = columns_of(frame), featuriser
        self.sizes = batch_sizes(buckets, tokens_per_batch, 2 * host_count * devices)
        self.seed, self.epochs, self.augment = seed, epochs, augment
        self.host_index, self.host_count, self.threads = host_index, host_count, threads
        self.lengths = token_lengths(featuriser, self.columns.text.tolist(), self.columns.context.tolist())
        self._plans: dict[int, EpochPlan] = {}

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of one epoch; every row is in it once."""
        if epoch not in self._plans:
            perturbed = self._perturbed(epoch)
            lengths = self.lengths.copy()
            rows = np.flatnonzero(perturbed)
            contexts = self.columns.context[rows].tolist()
            lengths[rows] = token_lengths(self.featuriser, self._texts(rows, perturbed, epoch), contexts)
            order = np.random.default_rng([self.seed, 1, epoch]).permutation(units(self.columns.pair))
            batches = plan_batches(order, lengths, self.columns.pair, self.sizes)
            self._plans[epoch] = EpochPlan(batches, perturbed, padding_share(batches, lengths))
        return self._plans[epoch]

    def steps(self, epoch: int) -> int:
        """Batches that this run reads of one epoch."""
        share = min(1.0, self.epochs - epoch)
        return max(1, math.floor(share * len(self.plan(epoch).batches))) if share > 0 else 0

    def __len__(self) -> int:
        """Batches of the whole run. Plans every epoch: a few seconds each."""
        return sum(self.steps(epoch) for epoch in range(math.ceil(self.epochs)))

    def __iter__(self) -> Iterator[Batch]:
        return self.iterator()

    def iterator(self) -> StreamIterator:
        """A new iterator, at the first batch."""
        return StreamIterator(self)

    def dataset(self, epoch: int) -> Any:
        """One epoch as a grain ``MapDataset`` of this host's batches."""
        plan = self.plan(epoch)

        def build(planned: PlannedBatch) -> Batch:
            part = planned.size // self.host_count
            shard = slice(self.host_index * part, (self.host_index + 1) * part)
            texts = self._texts(planned.rows[shard], plan.perturbed, epoch)
            return assemble(planned, self.columns, self.featuriser, texts, shard)

        order_seed = int(np.random.default_rng([self.seed, 2, epoch]).integers(1 << 31))
        return _grain().MapDataset.source(plan.batches).shuffle(seed=order_seed).map(build)

    def fingerprint(self) -> str:
        """Digest of what fixes the order and content of the batches: rows, shapes, seed and perturbation."""
        rows = digests(self.columns.text.tolist()), digests(self.columns.context.tolist()), self.lengths
        settings = {
            "sizes": sorted(self.sizes.items()),
            "seed": self.seed,
            "augment": None if self.augment is None else self.augment.model_dump(),
            "rows": [text_digest(column.tobytes().hex()) for column in rows],
        }
        return text_digest(canonical_json(settings))

    def _perturbed(self, epoch: int) -> NDArray[np.bool_]:
        if self.augment is None:
            return np.zeros(len(self.columns), bool)
        # People compared the answers of a pair as they are written: those stay.
        return perturbed_rows(self.augment, self.seed, epoch, len(self.columns)) & (self.columns.pair < 0)

    def _texts(self, rows: NDArray[np.int64], perturbed: NDArray[np.bool_], epoch: int) -> list[str]:
        if self.augment is None:
            return list(self.columns.text[rows])
        return [
            perturb(self.columns.text[row], self.augment, self.seed, epoch, int(row))
            if perturbed[row]
            else self.columns.text[row]
            for row in rows
        ]


def _grain() -> Any:
    """The grain package, which ships no types; loaded late, for it takes a second."""
    return importlib.import_module("grain")


class StreamIterator(Iterator[Batch]):
    """Walks a `TrainStream`; its state is a small dict that fits into JSON."""

    def __init__(self, stream: TrainStream) -> None:
        self.stream = stream
        self._inner: Any = None
        self._fingerprint = stream.fingerprint()
        self._open(0)

    def __next__(self) -> Batch:
        while self._taken >= self.stream.steps(self._epoch):
            if self._epoch + 1 >= self.stream.epochs:
                raise StopIteration
            self._open(self._epoch + 1)
        batch: Batch = next(self._inner)
        self._taken += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The place: the batches so far are those before it."""
        return {
            "data": self._fingerprint,
            "epoch": self._epoch,
            "taken": self._taken,
            "grain": self._inner.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a place that `get_state` gave, also of another process.

        Raises:
            IntegrityError: the state belongs to other rows or settings.
        """
        if state["data"] != self._fingerprint:
            raise IntegrityError(
                "The checkpoint was trained on other data or with other batch settings.",
                mend="Resume with the same data, seed, buckets and tokens_per_batch, or start a new run.",
            )
        self._open(state["epoch"])
        self._inner.set_state(state["grain"])
        self._taken = state["taken"]

    def _open(self, epoch: int) -> None:
        options = _grain().ReadOptions(
            num_threads=self.stream.threads, prefetch_buffer_size=PREFETCH if self.stream.threads else 0
        )
        self._epoch, self._taken = epoch, 0
        self._inner = iter(self.stream.dataset(epoch).to_iter_dataset(options))
