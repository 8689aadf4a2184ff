"""One answer while it is written: a stream of server-sent events, of which only a whole one is an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx

from inference.records import FinishReason
from inference.remote.client import Call, Client
from inference.remote.faults import Fault, ServerStopped, transport_fault
from inference.remote.journal import Reply
from inference.remote.wire import read_event, stream_fields


def ask_streaming(client: Client, call: Call, stopped: Callable[[], bool]) -> Iterator[str | Reply]:
    """Yield the text so far, again and again, and last the reply; nothing last when it was stopped.

    A stream that breaks is asked for again as long as nothing of it was shown; after that it is an error, because
    two halves of two answers are no answer.

    Raises:
        ServerStopped: the server can no longer be used, or gave no whole answer.
    """
    for attempt in range(1, client.server.retries.attempts + 1):
        if not _wait(client.until_open(), stopped):
            return
        reserved, shown = client.budget.reserve(call.messages, call.max_new_tokens), False
        try:
            for text in _read(client, call, reserved, stopped):
                shown = True
                yield text
        except Fault as fault:
            error = client.failed(call, fault, attempt=attempt, reserved=reserved)
            if error is not None:
                raise error from None
            if shown or not fault.retry or attempt == client.server.retries.attempts:
                raise ServerStopped(
                    f"Server '{client.name}' gave no whole answer.",
                    why=f"{fault}. {fault.detail}".strip(),
                    mend="Ask again; if it stays so, look into the server's own log.",
                ) from None
            if not _wait(client.pause(fault, call.key, attempt), stopped):
                return
        else:
            return


def _read(client: Client, call: Call, reserved: float, stopped: Callable[[], bool]) -> Iterator[str | Reply]:
    """The events of one stream. Raises `Fault`."""
    text = ""
    finish: FinishReason | None = None
    usage: tuple[int, int] | None = None
    try:
        with (
            httpx.Client(headers=client.headers, timeout=client.timeout) as http,
            http.stream("POST", client.url, json=call.body | stream_fields(client.server)) as response,
        ):
            if response.status_code != httpx.codes.OK:
                response.read()
            client.check_status(response)
            for line in response.iter_lines():
                if stopped():
                    client.budget.abandon(reserved)
                    return
                piece = read_event(line, client.api_key)
                if piece is None:
                    continue
                finish, usage = piece.finish_reason or finish, piece.usage or usage
                if piece.text:
                    text += piece.text
                    yield text.lstrip()
    except GeneratorExit:
        client.budget.abandon(reserved)
        raise
    except httpx.RequestError as error:
        raise transport_fault(error) from None
    if finish is None:
        raise Fault("cut", 200, "the stream ended before the answer did")
    if usage is None:
        raise Fault("no_usage", 200)
    reply = Reply(
        key=call.key, text=text.strip(), finish_reason=finish, prompt_tokens=usage[0], completion_tokens=usage[1]
    )
    yield client.keep(reply, reserved)


def _wait(seconds: float, stopped: Callable[[], bool]) -> bool:
    """Sleep in short steps; False once it was stopped."""
    end = time.monotonic() + seconds
    while not stopped():
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, 0.1))
    return False
