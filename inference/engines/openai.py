"""The engine for models behind an OpenAI-compatible server (vLLM, ``transformers serve``, OpenRouter, Together).

Every reply is on disk before the caller sees it, under a key made from the request itself. A killed run therefore
resumes with the same call: what is on record is read, what is not is asked for, and nothing is paid for twice but what
was in flight. Failed attempts go into a ledger and never into the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from inference.records import Completion, LabelScores, Messages, Partial, Request, Sampling, prompt_id
from inference.remote.budget import Budget
from inference.remote.client import Call, Client
from inference.remote.journal import Journal, Reply
from inference.remote.labels import read_labels
from inference.remote.server import Server
from inference.remote.streaming import ask_streaming
from inference.remote.wire import chat_body, check_sampling, label_body
from runs.identity import digest, row_seed

REPLIES = ".replies"
"""The folder in a run's folder that keeps servers' replies."""
FAILURES = "failures-"
"""How the names of the ledgers in a run's folder begin."""
SEEDS = 2**31
"""Seeds on the wire are below this: some servers read 32-bit integers, and JSON readers lose digits above 53 bits."""


class OpenAIEngine:
    """One model behind one server.

    Args:
        server: where it is, which dialect it speaks, how patient to be, what it costs.
        name: what the run calls it; names its files.
        folder: the run's folder: replies go to ``.replies/NAME.jsonl`` in it, failed attempts to
            ``failures-NAME.jsonl``. None keeps neither; then the spending limit holds for this process alone.

    Raises:
        UsageError: the environment variable of the API key is not set.
    """

    def __init__(self, server: Server, name: str = "server", folder: Path | None = None) -> None:
        self.server, self.name = server, name
        self._journal = Journal(
            folder / REPLIES / f"{name}.jsonl" if folder else None,
            folder / f"{FAILURES}{name}.jsonl" if folder else None,
        )
        self._budget = Budget(server, name)
        self._client = Client(server, name, server.api_key(), self._journal, self._budget)
        self._opened = False

    @property
    def identity(self) -> dict[str, str]:
        """Model, server and dialect. Neither key, port, price nor patience: they change no answer."""
        return self.server.identity

    @property
    def usage(self) -> dict[str, Any]:
        """Requests, tokens and faults of this process; ``spent_usd`` of the whole run, None without prices."""
        return self._budget.summary()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, skip: frozenset[str] = frozenset()
    ) -> Iterator[Completion]:
        """Yield completions as they finish; see `inference.engines.base.Engine.generate`.

        A request that was given up is left out: its attempts are in the ledger, and the next run asks again.

        Raises:
            UsageError: a decoding setting that the server does not know.
            ServerStopped: wrong key, no credit, spending limit, or a server that does not answer; what was in flight
                has been yielded before.
        """
        check_sampling(self.server, sampling)
        self._open()
        wanted = [request for request in requests if request.key not in skip]
        seeds = {request.key: _seed(request, sampling) for request in wanted}
        calls = [
            self._call(
                request,
                sampling.max_new_tokens,
                chat_body(self.server, request.messages, sampling, seeds[request.key]),
            )
            for request in wanted
        ]
        for answered in self._client.ask_all(calls):
            key = answered.call.request
            yield _completion(key, answered.reply, seeds[key])

    def batches(self, requests: Sequence[Request]) -> list[list[str]]:
        """Each request by itself: no answer depends on its company, as far as a client can know."""
        return [[request.key] for request in requests]

    def stream(
        self, request: Request, sampling: Sampling, *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Partial]:
        """Write one answer piece by piece; see `inference.engines.base.StreamingEngine.stream`.

        Until the end, ``tokens`` counts pieces, which most servers make one token long.

        Raises:
            UsageError, ServerStopped: as `generate`; also for a stream that was cut.
        """
        check_sampling(self.server, sampling)
        self._open()
        seed = _seed(request, sampling)
        body = chat_body(self.server, request.messages, sampling, seed)
        call = self._call(request, sampling.max_new_tokens, body)
        known = self._journal.get(call.key)
        pieces = 0
        for part in [known] if known is not None else ask_streaming(self._client, call, stopped):
            if isinstance(part, str):
                pieces += 1
                yield Partial(key=request.key, text=part, tokens=pieces)
            else:
                done = _completion(request.key, part, seed)
                yield Partial(key=request.key, text=done.text, tokens=done.completion_tokens, completion=done)

    def label_logprobs(
        self, requests: Sequence[Request], labels: Sequence[str], *, skip: frozenset[str] = frozenset()
    ) -> Iterator[LabelScores]:
        """Log-probabilities of one-token answers; see `inference.engines.base.LabellingEngine.label_logprobs`.

        Raises:
            ServerStopped: as `generate`; also where the server gives no log-probabilities.
        """
        self._open()
        calls = [
            self._call(request, 1, label_body(self.server, request.messages), labels=True)
            for request in requests
            if request.key not in skip
        ]
        for answered in self._client.ask_all(calls):
            reply = answered.reply
            assert reply.top is not None
            yield LabelScores(
                key=answered.call.request,
                logprobs=read_labels(reply.top, labels),
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
            )

    def _open(self) -> None:
        if not self._opened:
            self._journal.open()
            self._budget.spent = self._journal.spent
            self._opened = True

    def _call(self, request: Request, max_new_tokens: int, body: dict[str, Any], *, labels: bool = False) -> Call:
        messages: Messages = request.messages
        return Call(request.key, digest([self.identity, body]), messages, max_new_tokens, body, labels)


def _seed(request: Request, sampling: Sampling) -> int:
    return row_seed(sampling.seed, prompt_id(request.messages), request.sample) % SEEDS


def _completion(key: str, reply: Reply, seed: int) -> Completion:
    return Completion(
        key=key,
        text=reply.text,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        seed=seed,
    )
