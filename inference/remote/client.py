"""Many requests at once to one server, each attempted until it is answered, given up, or the run must stop.

The requests run in an event loop in a thread of its own, so that the caller's thread can take each reply as it comes
and can be stopped at any time. httpx carries them; the retries are ours, because each failed attempt goes into the
ledger and is booked before the next, which a library's own retries would hide.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from queue import SimpleQueue
from typing import Any

import httpx

from inference.records import Messages
from inference.remote.budget import Budget
from inference.remote.faults import FATAL, LATER, Fault, ServerStopped, status_fault, transport_fault
from inference.remote.journal import Journal, Reply, billed
from inference.remote.server import Server
from inference.remote.wire import read_reply
from runs.errors import UserError
from runs.identity import row_seed

GIVE_UP = 3
"""So many requests in a row, each given up after all its attempts, mean that the server is not there."""


@dataclass(frozen=True)
class Call:
    """One request to make."""

    request: str
    """The caller's key."""
    key: str
    """The journal's key: what is asked of whom."""
    messages: Messages
    max_new_tokens: int
    body: dict[str, Any]
    labels: bool = False
    """Whether the first token's log-probabilities are wanted."""


@dataclass(frozen=True)
class Answered:
    """A call and its reply."""

    call: Call
    reply: Reply


class Client:
    """The way to one server.

    Args:
        server: where, which model, how patiently.
        name: what the run calls the server.
        key: the API key; None sends none.
        journal: takes replies and failures.
        budget: takes their costs.
    """

    def __init__(self, server: Server, name: str, key: str | None, journal: Journal, budget: Budget) -> None:
        self.server, self.name, self.api_key = server, name, key
        self.journal, self.budget = journal, budget
        self.url = f"{server.base_url}/chat/completions"
        self._not_before = 0.0
        """No request starts before this moment of `time.monotonic`: the server asked for a pause."""
        self._in_a_row = 0
        """Requests given up since the last answer, because the server was not there."""
        self._rejected = 0
        """Requests that the server rejected since this process began, while it answered none."""

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    @property
    def timeout(self) -> httpx.Timeout:
        """Of every connection."""
        limits = self.server.timeouts
        return httpx.Timeout(limits.read_s, connect=limits.connect_s, pool=None)

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """The certificates that are trusted: reading them takes longer than a request, so it is done once."""
        return httpx.create_ssl_context()

    def ask_all(self, calls: Sequence[Call]) -> Iterator[Answered]:
        """Yield replies as they come. Calls that were given up are left out; the ledger has them.

        Every reply is on record before it is yielded. Once the run must stop, nothing new is sent; what is in flight
        is waited for and yielded first.

        Raises:
            ServerStopped: the server can no longer be used.
            UserError: a reply could not be put on record.
        """
        batch = _Batch(self, calls)
        with _loop() as loop:
            working: Future[None] = asyncio.run_coroutine_threadsafe(batch.run(), loop)
            working.add_done_callback(lambda _: batch.out.put(None))
            while (answered := batch.out.get()) is not None:
                yield answered
            working.result()
        if batch.stopped is not None:
            raise batch.stopped

    def pause(self, fault: Fault, request: str, attempt: int) -> float:
        """Seconds until the next attempt: doubling, at least half and at most all of it, or what the server asks for.

        Where in that range is a hash of request and attempt: it spreads the attempts of many requests as chance
        would, and needs no generator of its own.
        """
        retries = self.server.retries
        full = min(retries.longest_wait_s, retries.first_wait_s * 2.0 ** (attempt - 1))
        share = (row_seed(0, request, attempt) % 1024) / 1023
        wait = full * (0.5 + share / 2)
        if fault.retry_after_s is None:
            return wait
        # Everyone waits as long as the server asks; the jitter keeps them from coming back in one moment.
        self._not_before = max(self._not_before, time.monotonic() + fault.retry_after_s)
        return fault.retry_after_s + min(wait, retries.first_wait_s)

    def until_open(self) -> float:
        """Seconds until the pause that the server asked for is over."""
        return max(0.0, self._not_before - time.monotonic())

    def failed(self, call: Call, fault: Fault, *, attempt: int, reserved: float) -> UserError | None:
        """Book and record a failed attempt; gives the error that ends the run, if this does."""
        final = not fault.retry or attempt >= self.server.retries.attempts
        cost = self.budget.fail(reserved, fault.reason, billed=billed(fault))
        self.journal.fail(call.request, fault, attempt=attempt, final=final, cost_usd=cost)
        if fault.reason in FATAL:
            what, mend = FATAL[fault.reason]
            return ServerStopped(
                f"{what} (server '{self.name}': {self.server.model})",
                why=f"{fault}. {fault.detail}".strip(),
                mend=mend.format(api_key_env=self.server.api_key_env or "(none is named: set 'api_key_env')"),
            )
        asked = fault.retry_after_s or 0.0
        if asked > self.server.retries.longest_retry_after_s:
            return ServerStopped(
                f"Server '{self.name}' asks to be left alone for {asked:.0f} s.",
                why=str(fault),
                mend="What was answered is kept. Run the same command again then, or raise "
                "retries.longest_retry_after_s.",
            )
        if final and fault.reason in LATER:
            self._in_a_row += 1
            if self._in_a_row >= GIVE_UP:
                return ServerStopped(
                    f"Server '{self.name}' at {self.server.base_url} does not answer.",
                    why=f"{self._in_a_row} requests in a row were given up after {attempt} attempts each; "
                    f"the last one: {fault}.",
                    mend="What was answered is kept. See that the server runs, then run the same command again.",
                )
        if fault.reason == "rejected" and not self.budget.tokens["requests"]:
            self._rejected += 1
            if self._rejected >= GIVE_UP:
                return ServerStopped(
                    f"Server '{self.name}' rejects every request.",
                    why=f"{fault}. {fault.detail}".strip(),
                    mend="Check 'model', 'dialect' and 'extra_body' in the server's section of the config.",
                )
        return None

    def answered(self, call: Call, payload: Any, reserved: float) -> Reply:
        """Read, book and record a reply. Raises `Fault` where there is no answer in it."""
        reply = read_reply(payload, call.key, labels=call.labels, api_key=self.api_key)
        return self.keep(reply, reserved)

    def keep(self, reply: Reply, reserved: float) -> Reply:
        """Book and record a reply."""
        cost = self.budget.settle(reserved, reply.prompt_tokens, reply.completion_tokens)
        reply = reply.model_copy(update={"cost_usd": cost})
        self.journal.add(reply)
        self._in_a_row = 0
        return reply

    def check_status(self, response: httpx.Response) -> None:
        """Raise `Fault` unless the reply's status is 200; its body must have been read."""
        if response.status_code != httpx.codes.OK:
            raise status_fault(response, self.api_key)


class _Batch:
    """The calls of one `Client.ask_all`, shared by ``concurrency`` workers; all of it but ``out`` is the loop's."""

    def __init__(self, client: Client, calls: Sequence[Call]) -> None:
        self.client, self._todo, self._count = client, iter(calls), len(calls)
        self.out: SimpleQueue[Answered | None] = SimpleQueue()
        self.stopped: UserError | None = None
        self._stop = asyncio.Event()
        self._freed = asyncio.Event()
        """An attempt has ended, and what was set aside for it is free."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.client.server.concurrency, self._count)):
                group.create_task(self._work())

    async def _work(self) -> None:
        # A connection for each worker: a pool of them looks through all of them at every request.
        client = self.client
        async with httpx.AsyncClient(headers=client.headers, timeout=client.timeout, verify=client.trust) as http:
            await self._take(http)

    async def _take(self, http: httpx.AsyncClient) -> None:
        for call in self._todo:  # one iterator for all workers: each call is taken once
            if self._stop.is_set():
                return
            try:
                reply = self.client.journal.get(call.key) or await self._ask(http, call)
            except UserError as error:
                self.stopped = self.stopped or error
                self._stop.set()
                return
            if reply is not None:
                self.out.put(Answered(call, reply))

    async def _ask(self, http: httpx.AsyncClient, call: Call) -> Reply | None:
        """Attempt a call until it is answered; None when it was given up or the run stops."""
        client = self.client
        for attempt in range(1, client.server.retries.attempts + 1):
            while (wait := client.until_open()) > 0:
                if await self._stopped_within(wait):
                    return None
            reserved = await self._reserve(call)
            if reserved is None:
                return None
            try:
                return client.answered(call, await self._attempt(http, call), reserved)
            except Fault as fault:
                stop = client.failed(call, fault, attempt=attempt, reserved=reserved)
                if stop is not None:
                    raise stop from None
                if not fault.retry or attempt == client.server.retries.attempts:
                    return None
                wait = client.pause(fault, call.key, attempt)
            except asyncio.CancelledError:
                client.budget.abandon(reserved)
                raise
            finally:
                self._freed.set()
            if await self._stopped_within(wait):
                return None
        return None

    async def _reserve(self, call: Call) -> float | None:
        """Set aside what a call can cost, if need be when others have ended and cost less; None: the run stops."""
        budget = self.client.budget
        while not self._stop.is_set():
            try:
                return budget.reserve(call.messages, call.max_new_tokens)
            except ServerStopped:
                if not budget.in_flight:
                    raise
            self._freed.clear()
            await self._freed.wait()
        return None

    async def _attempt(self, http: httpx.AsyncClient, call: Call) -> Any:
        """The JSON of one reply. Raises `Fault`."""
        limits = self.client.server.timeouts
        try:
            async with asyncio.timeout(limits.connect_s + limits.read_s):
                response = await http.post(self.client.url, json=call.body)
        except (httpx.RequestError, TimeoutError) as error:
            raise transport_fault(error) from None
        self.client.check_status(response)
        try:
            return response.json()
        except ValueError:
            raise Fault("malformed", response.status_code, "the reply is not JSON") from None

    async def _stopped_within(self, seconds: float) -> bool:
        """Sleep, but no longer than until the run stops."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread; leaving cancels what is still going on in it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="requests", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    """Cancel every other task of the loop and wait until it has ended."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
