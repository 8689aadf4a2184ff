"""A real OpenAI-compatible server on loopback: a tiny model in this process answers over HTTP, with faults on demand.

`transformers serve` is the server that the slow tests speak to; it has no log-probabilities, and it cannot be told to
fail. This one can: each entry of `faults` is what becomes of the next request.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from inference.engines.transformers import TransformersEngine
from inference.records import Message, Sampling
from inference.records import Request as Asked
from runs.identity import digest

MODEL = "tiny-llama"


class Loopback:
    """What the server does and what it has done.

    Args:
        engine: answers.
        key: the API key that is asked for; None takes everyone.
    """

    def __init__(self, engine: TransformersEngine, key: str | None = None) -> None:
        self.engine, self.key = engine, key
        self.url = ""
        self.faults: deque[str] = deque()
        """``429``, ``429:SECONDS``, ``429@DATE``, ``401``, ``402``, ``404``, ``400``, ``500``, ``hang``, ``cut``,
        ``broken``, ``error200``, ``filter``, ``no_usage``, ``no_logprobs`` or ``ok``."""
        self.delay = 0.0
        """Seconds before each answer."""
        self.arrived: list[float] = []
        """When each request came, by `time.monotonic`."""
        self.answered: list[str] = []
        """Digests of the requests that were answered in full."""
        self.bodies: list[dict[str, Any]] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            body = await request.json()
            self.arrived.append(time.monotonic())
            self.bodies.append(body)
            if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
                told = f"Incorrect API key provided: {request.headers.get('authorization', '')[7:]}."
                return _error(401, told, "invalid_api_key")
            if body["model"] != MODEL:
                return _error(404, f"The model `{body['model']}` does not exist.", "model_not_found")
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            try:
                return await self._reply(body)
            finally:
                self._now -= 1

        return app

    async def _reply(self, body: dict[str, Any]) -> Response:
        fault = self.faults.popleft() if self.faults else "ok"
        await asyncio.sleep(self.delay)
        if fault[:3] == "429":
            header = {"retry-after": fault[4:]} if len(fault) > 3 else {}
            return _error(429, "Slow down, please.", "rate_limit_exceeded", header)
        if fault.isdigit():
            return _error(int(fault), "Something is wrong with sk-secret-of-the-test.", None)
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "error200":
            return JSONResponse({"error": {"code": 502, "message": "Upstream failed."}})
        if fault == "broken":
            return PlainTextResponse('{"choices": [{"message": {"content": "half of an', media_type="application/json")
        payload = await run_in_threadpool(self._answer, body)
        if fault == "filter":
            payload["choices"][0]["finish_reason"] = "content_filter"
        if fault == "no_usage":
            del payload["usage"]
        if fault == "no_logprobs":
            payload["choices"][0].pop("logprobs", None)
        if body.get("stream"):
            return StreamingResponse(_events(payload, cut=fault == "cut"), media_type="text/event-stream")
        if fault == "cut":
            return _CutResponse(json.dumps(payload).encode())
        self.answered.append(digest(body))
        return JSONResponse(payload)

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = tuple(Message(**turn) for turn in body["messages"])
        sampling = Sampling(
            max_new_tokens=body.get("max_tokens", body.get("max_completion_tokens")),
            temperature=body["temperature"],
            top_p=body.get("top_p", 1.0),
            repetition_penalty=body.get("repetition_penalty", 1.0),
            seed=body.get("seed", 0),
        )
        asked = Asked(key="k", messages=messages)
        with self._lock:
            (done,) = self.engine.generate([asked], sampling)
            choice: dict[str, Any] = {
                "index": 0,
                "message": {"role": "assistant", "content": done.text},
                "finish_reason": done.finish_reason,
            }
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [{"top_logprobs": self._top(asked, body["top_logprobs"])}]}
        return {
            "id": "x",
            "object": "chat.completion",
            "model": MODEL,
            "choices": [choice],
            "usage": {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.completion_tokens},
        }

    def _top(self, asked: Asked, count: int) -> list[dict[str, Any]]:
        letters = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
        (scores,) = self.engine.label_logprobs([asked], letters)
        known = {label: value for label, value in scores.logprobs.items() if value is not None}
        likely = sorted(known, key=lambda label: -known[label])[: count // 2]
        # Two spellings of each, as vocabularies have them: together they have the label's probability.
        return [
            {"token": token, "logprob": known[label] + math.log(share)}
            for label in likely
            for token, share in ((label, 0.75), (f" {label}", 0.25))
        ]


def _error(status: int, message: str, code: str | None, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "code": code}}, status, headers)


class _CutResponse(Response):
    """Promises more bytes than it sends; uvicorn then closes the connection."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content[: len(content) // 2], media_type="application/json")
        self.headers["content-length"] = str(len(content))


async def _events(payload: dict[str, Any], *, cut: bool) -> Any:
    choice = payload["choices"][0]
    for number, word in enumerate(choice["message"]["content"].split(" ")):
        if cut and number == 2:
            raise ConnectionResetError("cut on purpose")
        delta = {"content": word if number == 0 else f" {word}"}
        yield f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': None}]})}\n\n"
        await asyncio.sleep(0.01)
    yield f"data: {json.dumps({'choices': [{'delta': {}, 'finish_reason': choice['finish_reason']}]})}\n\n"
    yield f"data: {json.dumps({'choices': [], 'usage': payload['usage']})}\n\n"
    yield "data: [DONE]\n\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(loopback: Loopback) -> Iterator[Loopback]:
    """Serve in a thread until the block ends."""
    port = free_port()
    config = uvicorn.Config(
        loopback.app(), host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    loopback.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield loopback
    finally:
        server.should_exit = True
        thread.join()
