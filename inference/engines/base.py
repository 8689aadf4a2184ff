"""What every engine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from inference.records import Completion, LabelScores, Partial, Request, Sampling


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

    def batches(self, requests: Sequence[Request]) -> list[list[str]]:
        """The keys of ``requests``, those that `generate` decodes together in one list, in its order.

        A job that is shared by several machines is cut between batches: then every answer has the company, and so
        the bytes, that it has on one machine.
        """
        ...


class StreamingEngine(Engine, Protocol):
    """An engine that shows an answer while it is written."""

    def stream(
        self, request: Request, sampling: Sampling, *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Partial]:
        """Write one answer token by token; its end is what `generate` gives for the request by itself.

        Args:
            request: what to answer.
            sampling: decoding settings.
            stopped: asked before every token; once it says yes, nothing more is computed and the stream ends.
        """
        ...


class LabellingEngine(Engine, Protocol):
    """An engine that shows how likely an answer is, without writing it."""

    def label_logprobs(
        self, requests: Sequence[Request], labels: Sequence[str], *, skip: frozenset[str] = frozenset()
    ) -> Iterator[LabelScores]:
        """Score ``labels`` as the first token of each answer (Bai et al. 2022, section 4.1).

        Args:
            requests: questions that ask for one of the labels and nothing else.
            labels: the possible answers; each must be one token, with or without a space before it.
            skip: keys that are already scored.

        Raises:
            UserError: the model or its server gives no log-probabilities.
        """
        ...
