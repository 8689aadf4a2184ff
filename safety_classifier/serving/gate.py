"""What happens to a request before any route sees it: authentication, size, media type, and its line in the metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safety_classifier.serving.errors import Refusal
from safety_classifier.serving.keys import KeyRing
from safety_classifier.serving.metrics import Metrics
from safety_classifier.serving.settings import LimitSection

DISCARDED = 1 << 24
"""Of a body that is refused, so many bytes are read and dropped first: a client that is still sending would see its
connection reset instead of the answer."""


class Measured:
    """Counts every request and its time.

    Paths that are no route share one label, so that a scan of made-up paths cannot fill the memory.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: Collection[str]) -> None:
        self._app, self._metrics, self._routes = app, metrics, frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.begin()
        try:
            await self._app(scope, receive, observed)
        finally:
            known = scope["path"] in self._routes
            route, method = (scope["path"], scope["method"]) if known else ("other", "other")
            self._metrics.end(route, method, status, time.perf_counter() - started)


class Gate:
    """Turns away who has no key (401), what is no JSON (415), too large (413) or too slow (408); bodies arrive whole.

    Args:
        app: what is behind the gate.
        keys: who may pass.
        limits: sizes and times.
        open_paths: answered without a key.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing, limits: LimitSection, open_paths: Collection[str]) -> None:
        self._app, self._keys, self._limits, self._open = app, keys, limits, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        body: bytes | None = None
        if refusal is None and scope["method"] in ("POST", "PUT", "PATCH"):
            try:
                async with asyncio.timeout(self._limits.body_s):
                    body = await self._body(receive)
            except TimeoutError:
                refusal = Refusal(408, "timeout", f"The body did not arrive within {self._limits.body_s:g} s.")
            except Refusal as error:
                refusal = error
        elif refusal is not None:
            await self._discard(headers, receive)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, receive if body is None else _replay(body, receive), send)

    def _refusal(self, scope: Scope, headers: Headers) -> Refusal | None:
        """What can be said before the body has come."""
        if scope["path"] not in self._open and not self._keys.admits(headers.get("authorization")):
            message = "Send a valid key: 'Authorization: Bearer KEY'."
            return Refusal(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return None
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.max_body_bytes:
            return self._too_large()
        if headers.get("content-encoding", "identity") != "identity":
            return Refusal(415, "unsupported_media_type", "Send the body without a content encoding.")
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            return Refusal(415, "unsupported_media_type", "Send JSON, with 'Content-Type: application/json'.")
        return None

    def _too_large(self) -> Refusal:
        return Refusal(413, "too_large", f"A body has at most {self._limits.max_body_bytes} bytes.")

    async def _body(self, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            Refusal: it is too large, or the client went away.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "invalid_body", "The body ended early.")
            part = message.get("body", b"")
            size += len(part)
            if size <= self._limits.max_body_bytes:
                parts.append(part)
            elif size > DISCARDED:
                raise self._too_large()
            if not message.get("more_body", False):
                if size > self._limits.max_body_bytes:
                    raise self._too_large()
                return b"".join(parts)

    async def _discard(self, headers: Headers, receive: Receive) -> None:
        """Read the body of a refused request to its end, unless that is far away."""
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > DISCARDED:
            return
        size, more = 0, "content-length" in headers or "transfer-encoding" in headers
        try:
            async with asyncio.timeout(self._limits.body_s):
                while more and size <= DISCARDED:
                    message = await receive()
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            return


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives ``body`` once, and after it what the server says (that the client went away)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
