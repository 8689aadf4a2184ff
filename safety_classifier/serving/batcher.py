"""Dynamic batching: rows of many requests become few calls of the model, in one worker thread.

A call takes the row that is due first and fills up with rows of similar length, since the model pads a call's rows to
common lengths. Row *i* of a request stands in the queue as if it had arrived when the rows before it were computed
(start-time fair queueing, Goyal et al. 1996): a large request cannot keep a small one waiting, and is not starved by
many small ones.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from safety_classifier.api import Classification
from safety_classifier.judge import Judge
from safety_classifier.serving.metrics import Metrics
from safety_classifier.serving.settings import BatchSection

log = logging.getLogger(__name__)
Result = TypeVar("Result")

FIRST_RATE = 5_000.0
"""Tokens per second assumed until the first call is measured."""
LONGEST_RETRY_S = 60


class QueueFull(Exception):
    """There is no room for the request."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the queue is full")
        self.retry_after_s = retry_after_s


class Stopping(Exception):
    """The server is shutting down."""


@dataclass(eq=False)
class _Request:
    """Rows that are answered together."""

    texts: Sequence[str]
    contexts: Sequence[str]
    done: asyncio.Future[list[Classification]]
    results: dict[int, Classification] = field(default_factory=dict)
    waiting_rows: int = 0
    waiting_tokens: int = 0


@dataclass(order=True)
class _Row:
    due: float
    serial: int
    tokens: int = field(compare=False)
    position: int = field(compare=False)
    request: _Request = field(compare=False)


def estimated_tokens(text: str, context: str) -> int:
    """Tokens of a row, near enough to balance calls: four bytes a token, and the two marks around it."""
    return 2 + (len(text.encode("utf-8", "replace")) + len(context.encode("utf-8", "replace"))) // 4


class Batcher:
    """The queue before one model.

    Args:
        judge: called from one thread only.
        settings: window, sizes and bounds.
        metrics: told of each call.
        clock: seconds, monotonic.
    """

    def __init__(
        self, judge: Judge, settings: BatchSection, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._judge, self._settings, self._metrics, self._clock = judge, settings, metrics, clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._queues: dict[int, list[_Row]] = {}
        self._serial = itertools.count()
        self._rate = FIRST_RATE
        self._wake = asyncio.Event()
        self._closing = False
        self._runner: asyncio.Task[None] | None = None
        self.queued_rows = 0
        self.queued_tokens = 0

    @property
    def alive(self) -> bool:
        """Whether rows that are submitted will be computed."""
        return self._runner is not None and not self._runner.done()

    def start(self) -> None:
        """Begin to take rows from the queue."""
        self._runner = asyncio.create_task(self._run(), name="batcher")

    async def close(self) -> None:
        """Take no more requests, finish those that wait, and end the worker."""
        self._closing = True
        self._wake.set()
        if self._runner is not None:
            await self._runner
        self._executor.shutdown(wait=True)

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run ``function`` in the worker thread (to warm the model there)."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def submit(self, texts: Sequence[str], contexts: Sequence[str]) -> list[Classification]:
        """Judge the rows of one request. Cancelling the wait takes its rows out of the queue.

        Raises:
            QueueFull: too much waits already.
            Stopping: the server is shutting down.
        """
        if self._closing:
            raise Stopping
        if not texts:
            return []
        tokens = [estimated_tokens(text, context) for text, context in zip(texts, contexts, strict=True)]
        self._admit(len(texts), sum(tokens))
        request = _Request(texts, contexts, asyncio.get_running_loop().create_future())
        before, now = 0, self._clock()
        for position, size in enumerate(tokens):
            row = _Row(now + before / self._rate, next(self._serial), size, position, request)
            heapq.heappush(self._queues.setdefault(_length_class(size), []), row)
            before += size
        self._count(request, len(texts), sum(tokens))
        self._wake.set()
        try:
            return await request.done
        finally:
            self._count(request, -request.waiting_rows, -request.waiting_tokens)

    def _admit(self, rows: int, tokens: int) -> None:
        limit = self._settings
        full = self.queued_rows + rows > limit.max_queue_rows
        full |= self.queued_rows > 0 and self.queued_tokens + tokens > limit.max_queue_tokens
        if full:
            raise QueueFull(min(LONGEST_RETRY_S, max(1, math.ceil(self.queued_tokens / self._rate))))

    def _count(self, request: _Request, rows: int, tokens: int) -> None:
        request.waiting_rows += rows
        request.waiting_tokens += tokens
        self.queued_rows += rows
        self.queued_tokens += tokens

    async def _run(self) -> None:
        while self.queued_rows or not self._closing:
            if not self.queued_rows:
                self._wake.clear()
                await self._wake.wait()
                # Rows that gathered while the model was busy have had their wait; only the first after a rest gets one.
                if not self._closing and self.queued_rows < self._settings.max_rows:
                    await asyncio.sleep(self._settings.window_ms / 1000)
            batch = self._take()
            if batch:
                await self._compute(batch)

    def _take(self) -> list[_Row]:
        """The rows of the next call: the one that is due first, and company of similar length."""
        for queue in self._queues.values():
            while queue and queue[0].request.done.done():  # its request was cancelled
                heapq.heappop(queue)
        heads = {size: queue[0] for size, queue in self._queues.items() if queue}
        if not heads:
            return []
        first = min(heads, key=lambda size: heads[size])
        batch: list[_Row] = []
        room = self._settings.max_tokens
        for size in sorted(heads, key=lambda size: (abs(size - first), size)):
            queue = self._queues[size]
            while queue and len(batch) < self._settings.max_rows and (not batch or queue[0].tokens <= room):
                row = heapq.heappop(queue)
                if row.request.done.done():
                    continue
                self._count(row.request, -1, -row.tokens)
                room -= row.tokens
                batch.append(row)
        return batch

    async def _compute(self, batch: list[_Row]) -> None:
        """One call; if it fails, one a request, so that a request which the model cannot take fails alone."""
        failure = await self._call(batch)
        if failure is None:
            return
        requests = list(dict.fromkeys(row.request for row in batch))
        for request in requests:
            rows = [row for row in batch if row.request is request]
            alone = failure if len(requests) == 1 else await self._call(rows)
            if alone is not None and not request.done.done():
                log.error("the model failed on a request of %d rows", len(request.texts), exc_info=alone)
                request.done.set_exception(alone)

    async def _call(self, batch: list[_Row]) -> BaseException | None:
        texts = [row.request.texts[row.position] for row in batch]
        contexts = [row.request.contexts[row.position] for row in batch]
        given = contexts if any(contexts) else None
        started = self._clock()
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._executor, lambda: self._judge.classify(texts, given))
        await asyncio.wait({job})
        failure = job.exception()
        if failure is not None:
            return failure
        seconds, tokens = self._clock() - started, sum(row.tokens for row in batch)
        self._rate += 0.1 * (tokens / max(seconds, 1e-6) - self._rate)
        self._metrics.call(len(batch), tokens, seconds)
        for row, result in zip(batch, job.result(), strict=True):
            self._settle(row, result)
        return None

    def _settle(self, row: _Row, result: Classification) -> None:
        request = row.request
        request.results[row.position] = result
        if len(request.results) == len(request.texts) and not request.done.done():
            request.done.set_result([request.results[position] for position in range(len(request.texts))])


def _length_class(tokens: int) -> int:
    """The power of two that holds so many tokens."""
    return max(4, (tokens - 1).bit_length())
