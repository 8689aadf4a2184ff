"""What every engine does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from inference.records import Completion, Request, Sampling


class Engine(Protocol):
    """Yields completions as they finish, in any order; a request's ``key`` says whose they are."""

    @property
    def identity(self) -> dict[str, str]:
        """Everything about the engine and its model that could change an answer, as digests and names."""
        ...

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, skip: frozenset[str] = frozenset()
    ) -> Iterator[Completion]:
        """Answer ``requests``.

        Args:
            requests: all requests of the job. Batches are cut from the whole list, so that a resumed job has
                the same batches, and so the same bytes, as an uninterrupted one.
            sampling: decoding settings, the same for all.
            skip: keys that are already answered; a batch whose keys are all in it is not computed.
        """
        ...
