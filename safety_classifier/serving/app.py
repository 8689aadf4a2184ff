"""The routes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST

from safety_classifier.api import Classification
from safety_classifier.judge import WarmJudge
from safety_classifier.serving import errors, schema
from safety_classifier.serving.batcher import Batcher, QueueFull, Stopping
from safety_classifier.serving.errors import ErrorBody, Refusal
from safety_classifier.serving.gate import Gate, Measured
from safety_classifier.serving.keys import KeyRing
from safety_classifier.serving.metrics import Metrics
from safety_classifier.serving.settings import ServeSettings

OPEN_PATHS = ("/healthz", "/readyz", "/openapi.json")
DESCRIPTION = """Calibrated probabilities of harm for texts, and for responses in the context of their prompts.

English only. A first-stage judge: what it marks with `escalate` should go to a stronger one."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The body is not JSON in UTF-8."},
    401: {"model": ErrorBody, "description": "No valid key."},
    413: {"model": ErrorBody, "description": "Too many bytes, texts or characters."},
    415: {"model": ErrorBody, "description": "The body is not declared as JSON."},
    422: {"model": ErrorBody, "description": "A field is missing, unknown or of the wrong type; the message names it."},
    429: {"model": ErrorBody, "description": "The queue is full; Retry-After says when to come again."},
    500: {"model": ErrorBody, "description": "A fault of the server."},
    503: {"model": ErrorBody, "description": "Not ready, shutting down, or past the deadline."},
}


class Service:
    """The classifier behind its queue, and whether it can be asked.

    Args:
        judge: the classifier, loaded.
        settings: the server's.
        on_failure: called when the classifier cannot be warmed; the server should stop.
    """

    def __init__(
        self, judge: WarmJudge, settings: ServeSettings, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self.judge, self.settings, self.metrics = judge, settings, Metrics()
        self.batcher = Batcher(judge, settings.batching, self.metrics)
        self.ready, self.stopping = False, False
        self.failure: BaseException | None = None
        self.example: list[Classification] = []
        self._on_failure = on_failure
        self.metrics.model(judge.identity)
        self.metrics.watch(
            lambda: self.batcher.queued_rows,
            lambda: self.batcher.queued_tokens,
            lambda: self.ready and not self.stopping,
        )

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Warm in the background, so that /healthz answers meanwhile; at the end finish what is queued."""
        self.batcher.start()
        warming = asyncio.create_task(self._warm(), name="warm")
        yield
        self.ready, self.stopping = False, True
        await warming
        await self.batcher.close()

    async def _warm(self) -> None:
        job = asyncio.ensure_future(self.batcher.call(self._prepare))
        await asyncio.wait({job})
        failure = job.exception()
        if failure is None:
            self.ready = not self.stopping
        elif not isinstance(failure, Stopping):
            self.failure = failure
            self._on_failure()

    def _prepare(self) -> None:
        if self.settings.warm:
            self.judge.warm(progress=self._pause)
        self.example = list(
            self.judge.classify([schema.EXAMPLE_TEXT, schema.EXAMPLE_RESPONSE], ["", schema.EXAMPLE_CONTEXT])
        )

    def _pause(self, done: int, total: int) -> None:
        """Between two compilations: give up when the server is to stop.

        Raises:
            Stopping: it is.
        """
        if self.stopping:
            raise Stopping

    async def judgements(self, inputs: Sequence[schema.Input]) -> list[Classification]:
        """Judge the rows of one request.

        Raises:
            Refusal: 413, 429 or 503.
        """
        self._check(inputs)
        if not self.ready:
            state = "shutting down" if self.stopping else "not ready yet"
            raise Refusal(503, "not_ready", f"The server is {state}.", {"Retry-After": "2"})
        deadline = self.settings.limits.deadline_s
        try:
            async with asyncio.timeout(deadline):
                found = await self.batcher.submit([one.text for one in inputs], [one.context for one in inputs])
        except QueueFull as error:
            seconds = str(error.retry_after_s)
            raise Refusal(429, "queue_full", "Too much is waiting.", {"Retry-After": seconds}) from error
        except Stopping as error:
            raise Refusal(503, "not_ready", "The server is shutting down.", {"Retry-After": "2"}) from error
        except TimeoutError as error:
            raise Refusal(503, "deadline", f"No answer within {deadline:g} s.", {"Retry-After": "2"}) from error
        self.metrics.judged(found)
        return found

    def _check(self, inputs: Sequence[schema.Input]) -> None:
        limits = self.settings.limits
        if len(inputs) > limits.max_rows:
            raise Refusal(413, "too_large", f"A request has at most {limits.max_rows} texts; this has {len(inputs)}.")
        most = limits.max_characters
        for position, one in enumerate(inputs):
            for name, text in (("text", one.text), ("context", one.context)):
                if len(text) > most:
                    why = f"The {name} of input {position} has {len(text)} characters; {most} are allowed."
                    raise Refusal(413, "too_large", why)


def create_app(service: Service, keys: KeyRing) -> FastAPI:
    """The application: ``service`` answers those whom ``keys`` admits."""
    app = FastAPI(
        title="Safety classifier",
        description=DESCRIPTION,
        version=metadata.version("constitutional-ai"),
        lifespan=service.lifespan,
        docs_url=None,  # both pages of FastAPI load scripts from a CDN; /openapi.json is the document
        redoc_url=None,
    )
    errors.install(app)
    _operations(app, service)
    _judging(app, service, keys)
    routes = {path for route in app.routes if isinstance(path := getattr(route, "path", None), str)}
    open_paths = OPEN_PATHS if service.settings.auth.protect_metrics else (*OPEN_PATHS, "/metrics")
    app.add_middleware(Gate, keys=keys, limits=service.settings.limits, open_paths=open_paths)
    app.add_middleware(Measured, metrics=service.metrics, routes=routes)
    _with_real_examples(app, service)
    return app


def _operations(app: FastAPI, service: Service) -> None:
    """What operators ask."""

    @app.get("/healthz", tags=["operations"], responses={503: REFUSALS[503]})
    async def healthz() -> schema.Status:
        """Whether the process is up and its queue moves."""
        if not service.batcher.alive:
            raise Refusal(503, "broken", "The queue has stopped; the server must be started again.")
        return schema.Status(status="ok")

    @app.get("/readyz", tags=["operations"], responses={503: REFUSALS[503]})
    async def readyz() -> schema.Status:
        """Whether the model is loaded and warmed."""
        if not service.ready:
            state = "shutting down" if service.stopping else "loading"
            raise Refusal(503, "not_ready", f"The server is {state}.", {"Retry-After": "2"})
        return schema.Status(status="ready")

    @app.get("/metrics", tags=["operations"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counters and histograms for Prometheus."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _judging(app: FastAPI, service: Service, keys: KeyRing) -> None:
    """What clients ask."""
    # The gate has checked the key; this only writes the scheme into the OpenAPI document.
    documented = [Depends(HTTPBearer(auto_error=False, description="A key of this server."))] if keys else []
    identity = service.judge.identity

    @app.post("/v1/classify", tags=["judging"], responses=REFUSALS, dependencies=documented)
    async def classify(body: Annotated[schema.ClassifyBody, Body(openapi_examples=CLASSIFY_EXAMPLES)]) -> schema.Answer:
        """Judge one text, or several."""
        inputs = body.inputs if isinstance(body, schema.Batch) else [body]
        return schema.Answer(model=identity, results=await service.judgements(inputs))

    @app.post("/v1/moderations", tags=["judging"], responses=REFUSALS, dependencies=documented)
    async def moderations(
        body: Annotated[schema.ModerationBody, Body(openapi_examples=MODERATION_EXAMPLES)],
    ) -> schema.ModerationAnswer:
        """Judge texts in OpenAI's moderation format."""
        found = await service.judgements([schema.Input(text=text) for text in body.texts()])
        return schema.ModerationAnswer(
            id=f"modr-{uuid.uuid4().hex}",
            model=f"safety-classifier-{identity[:12]}",
            results=[schema.moderation(one, service.judge.labels) for one in found],
        )

    @app.get("/v1/model", tags=["judging"], responses={401: REFUSALS[401]}, dependencies=documented)
    async def model() -> schema.ModelInfo:
        """What the heads mean, where their thresholds stand, and what a request may hold."""
        limits, thresholds = service.settings.limits, service.judge.thresholds
        return schema.ModelInfo(
            model=identity,
            heads=[
                schema.HeadInfo(**head.model_dump(exclude={"headline"}), threshold=thresholds.get(head.name))
                for head in service.judge.labels.heads
            ],
            max_rows=limits.max_rows,
            max_characters=limits.max_characters,
            max_body_bytes=limits.max_body_bytes,
        )


CLASSIFY_EXAMPLES: dict[str, Any] = {
    "single": {"summary": "One text", "value": {"text": schema.EXAMPLE_TEXT}},
    "response": {
        "summary": "A response to a prompt",
        "value": {"text": schema.EXAMPLE_RESPONSE, "context": schema.EXAMPLE_CONTEXT},
    },
    "batch": {
        "summary": "Several",
        "value": {
            "inputs": [
                {"text": schema.EXAMPLE_TEXT},
                {"text": schema.EXAMPLE_RESPONSE, "context": schema.EXAMPLE_CONTEXT},
            ]
        },
    },
}
MODERATION_EXAMPLES: dict[str, Any] = {
    "single": {"summary": "One text", "value": {"input": schema.EXAMPLE_TEXT}},
    "batch": {"summary": "Several", "value": {"input": [schema.EXAMPLE_TEXT, schema.EXAMPLE_RESPONSE]}},
}


def _with_real_examples(app: FastAPI, service: Service) -> None:
    """Show in the OpenAPI document what this very model answers to the example requests."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        if service.example:
            content = document["paths"]["/v1/classify"]["post"]["responses"]["200"]["content"]["application/json"]
            results = [one.model_dump(mode="json") for one in service.example]
            content["examples"] = {
                name: {"value": {"model": service.judge.identity, "results": chosen}}
                for name, chosen in (("single", results[:1]), ("response", results[1:]), ("batch", results))
            }
        return document

    app.openapi = openapi  # type: ignore[method-assign]
