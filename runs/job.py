"""What a Kubernetes Job tells its processes: which of them this is, and when to stop.

An Indexed Job sets ``JOB_COMPLETION_INDEX`` in every Pod. Kubernetes does not say how many there are; the manifests of
this project copy ``spec.completions`` into ``JOB_COMPLETIONS``. Preemption, eviction and deletion arrive as SIGTERM.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from runs.config import StrictModel
from runs.errors import Preempted, UsageError

INDEX = "JOB_COMPLETION_INDEX"
COUNT = "JOB_COMPLETIONS"
T = TypeVar("T")


class Shard(StrictModel):
    """One of ``count`` disjoint parts that together are the whole."""

    index: int
    """From 0."""
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, batches: Sequence[T]) -> list[T]:
        """This shard's ones of ``batches``: every ``count``-th, so that long and short ones are spread evenly.

        Raises:
            UsageError: there are fewer batches than shards.
        """
        if len(batches) < self.count:
            raise UsageError(
                f"{len(batches)} batches cannot be shared by {self.count} shards.",
                why="Prompts that are decoded together stay together: only so do shards give the bytes of one machine.",
                mend=f"Use at most {len(batches)} shards, or a smaller batch size.",
            )
        return list(batches[self.index :: self.count])


def parse_shard(text: str) -> Shard:
    """``"2/8"``; ``"auto/8"`` takes the index, and ``"auto"`` both numbers, from the Job's environment.

    Raises:
        UsageError: it is none of these, the environment does not say, or the index is not below the count.
    """
    words = re.fullmatch(r"(\d+)/(\d+)|auto(?:/(\d+))?", text)
    if words is None:
        raise UsageError(
            f"'{text}' is no shard.", mend="Write INDEX/COUNT with the index from 0, or auto/COUNT, or auto."
        )
    index = int(words[1]) if words[1] else _environment(INDEX)
    count = int(words[2] or words[3] or _environment(COUNT))
    if index >= count:
        raise UsageError(f"Shard {index}/{count} does not exist.", mend="The index starts at 0 and is below the count.")
    return Shard(index=index, count=count)


def _environment(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdigit():
        raise UsageError(
            f"--shard auto reads {name}, which is {'not set' if not value else repr(value)}.",
            mend="An Indexed Job sets it (see docs/kubernetes.md); elsewhere write INDEX/COUNT.",
        )
    return int(value)


@contextmanager
def stop_flag() -> Iterator[list[bool]]:
    """Turn SIGTERM into a flag for a loop that saves before it leaves; the list holds True once it came."""
    stopped: list[bool] = []

    def note(number: int, frame: FrameType | None) -> None:
        stopped.append(True)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def preemptible() -> Iterator[None]:
    """Leave with `Preempted` at SIGTERM: for work whose every finished unit is on disk already."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Preempted("Asked to stop; what was finished is kept.", mend="The same command goes on from there.")

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
