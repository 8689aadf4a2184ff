"""Clocks: what the worker processes of the classifier's benchmark run and return."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from benchmarks.classifier_rows import Contestant, Setting, part, stream
from runs.config import StrictModel
from safety_classifier.features import Encoded

BATCHES = (1, 4, 8, 16, 32, 64)
"""Batch sizes of which a peer takes its fastest."""


class Sizes(StrictModel):
    """How much is measured in one turn."""

    latency_calls: int = Field(60, ge=1)
    """Calls with one text of 32 tokens, and as many with one text of real length."""
    texts: int = Field(1024, ge=8)
    """Texts of real length in the batch measurement."""
    full_tokens: int = Field(8192, ge=256)
    """Tokens of full rows, for the share of the peak."""
    training: tuple[tuple[int, int], ...] = ((128, 32), (32, 128))
    """Rows and length of the training batches."""
    training_steps: int = Field(2, ge=1)
    """Steps of each."""
    peak_seconds: float = Field(0.4, gt=0)
    """For each matrix product."""
    rounds: int = Field(5, ge=1)
    """Turns of each contestant; medians and ratios are over them."""


QUICK = Sizes(
    latency_calls=3, texts=24, full_tokens=512, training=((4, 16),), training_steps=1, peak_seconds=0.02, rounds=2
)


class Tasks:
    """The measurements of one worker. Every contestant of a setting gets the same rows.

    Args:
        setting: weights and tokenizer.
        sizes: how much.
    """

    def __init__(self, setting: Setting, sizes: Sizes) -> None:
        self.sizes, featuriser = sizes, setting.featuriser
        self.texts = stream(featuriser, sizes.texts)
        self.rows = featuriser.encode(self.texts)
        self.short, self.long = (full_rows(self.rows, length, sizes.full_tokens // length) for length in (32, 128))

    def agreement(self, contestant: Contestant) -> np.ndarray:
        """Logits of the stream's first rows."""
        return contestant.score(part(self.rows, 0, 256))

    def latency_short(self, contestant: Contestant) -> list[float]:
        """Seconds of each call with one text of 32 tokens."""
        row = part(self.short, 0, 1)
        return [seconds(lambda: contestant.score(row)) for _ in range(self.sizes.latency_calls)]

    def latency_stream(self, contestant: Contestant) -> list[float]:
        """Seconds of each call with one text of the stream."""
        rows = [part(self.rows, row, row + 1) for row in range(min(self.sizes.latency_calls, len(self.rows)))]
        return [seconds(lambda row=row: contestant.score(row)) for row in rows]  # type: ignore[misc]

    def batch_ids(self, contestant: Contestant) -> list[float]:
        """Seconds for the stream, from token ids."""
        return [seconds(lambda: contestant.score(self.rows))]

    def batch_texts(self, contestant: Contestant) -> list[float]:
        """Seconds for the stream, from strings."""
        return [seconds(lambda: contestant.score_texts(self.texts))]

    def full_short(self, contestant: Contestant) -> list[float]:
        """Seconds for full rows of 32 tokens, about 1,024 tokens a call."""
        return [full(contestant, self.short, 32)]

    def full_long(self, contestant: Contestant) -> list[float]:
        """The same with 128 tokens."""
        return [full(contestant, self.long, 8)]

    def training(self, contestant: Contestant, shape: int) -> list[float]:
        """Seconds of each step of one training shape."""
        rows, length = self.sizes.training[shape]
        return [seconds(lambda: contestant.step(rows, length)) for _ in range(self.sizes.training_steps)]

    def tune(self, contestant: Contestant) -> int | None:
        """Give a peer the batch size that it is fastest at, and return it."""
        if contestant.batch is None:
            return None
        best = (float("inf"), 0)
        sample = part(self.rows, 0, 512)
        for size in BATCHES:
            contestant.batch = size
            best = min(best, (min(seconds(lambda: contestant.score(sample)) for _ in range(3)), size))
        contestant.batch = best[1]
        return best[1]


def full_rows(rows: Encoded, length: int, count: int) -> Encoded:
    """``count`` rows of exactly ``length`` tokens, made of the stream's."""
    ids = [token for row in rows.ids for token in row[1:-1]]
    ids = ids * (1 + length * count // len(ids))
    grams = np.unique(np.concatenate(rows.grams))
    rng = np.random.default_rng(1)
    first, last = rows.ids[0][0], rows.ids[0][-1]
    made = [[first, *ids[place * (length - 2) :][: length - 2], last] for place in range(count)]
    own = [np.sort(rng.choice(grams, min(9 * length, len(grams)), replace=False)) for _ in range(count)]
    return Encoded(made, [length] * count, own)


def full(contestant: Contestant, rows: Encoded, size: int) -> float:
    """Seconds for full rows, ``size`` a call."""
    before = contestant.batch
    contestant.batch = None if before is None else size
    try:
        return seconds(lambda: contestant.score(rows))
    finally:
        contestant.batch = before


def seconds(run: Callable[[], object]) -> float:
    """Wall clock of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def rate(run: Callable[[], object], budget: float) -> float:
    """Calls a second over about ``budget`` seconds, after one that is not counted."""
    run()
    started, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < budget or not calls:
        run()
        calls += 1
    return calls / passed


def percentile(values: Sequence[float], share: float) -> float:
    """A percentile of seconds, in milliseconds."""
    return float(np.percentile(np.asarray(values), share)) * 1e3
