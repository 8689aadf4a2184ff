"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from safety_classifier.api import Classification

PREFIX = "safety_classifier"
SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of their own: two servers in one process do not mix."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._latency = Histogram(
            f"{PREFIX}_request_seconds",
            "Time from the request's head to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(f"{PREFIX}_requests_in_flight", "Requests being answered.", registry=registry)
        self._call_rows = Histogram(f"{PREFIX}_batch_rows", "Rows of a model call.", buckets=ROWS, registry=registry)
        self._call_seconds = Histogram(
            f"{PREFIX}_batch_seconds", "Time of a model call.", buckets=SECONDS, registry=registry
        )
        self._rows = Counter(f"{PREFIX}_rows", "Texts judged.", registry=registry)
        self._tokens = Counter(f"{PREFIX}_tokens", "Estimated tokens judged.", registry=registry)
        self._flagged = Counter(f"{PREFIX}_flagged", "Texts flagged, by head.", ["head"], registry=registry)
        self._escalated = Counter(f"{PREFIX}_escalated", "Texts that a stronger judge should see.", registry=registry)
        self._queue_rows = Gauge(f"{PREFIX}_queue_rows", "Rows that wait.", registry=registry)
        self._queue_tokens = Gauge(f"{PREFIX}_queue_tokens", "Estimated tokens that wait.", registry=registry)
        self._ready = Gauge(f"{PREFIX}_ready", "1 when the model is loaded and warmed.", registry=registry)
        self._info = Gauge(f"{PREFIX}_info", "The classifier that answers.", ["identity"], registry=registry)

    def watch(self, rows: Callable[[], float], tokens: Callable[[], float], ready: Callable[[], bool]) -> None:
        """Read the gauges from these whenever metrics are asked for."""
        self._queue_rows.set_function(rows)
        self._queue_tokens.set_function(tokens)
        self._ready.set_function(lambda: float(ready()))

    def model(self, identity: str) -> None:
        """Name the classifier."""
        self._info.labels(identity).set(1)

    def begin(self) -> None:
        """A request has arrived."""
        self._in_flight.inc()

    def end(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._in_flight.dec()
        self._requests.labels(route, method, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def call(self, rows: int, tokens: int, seconds: float) -> None:
        """The model was called."""
        self._call_rows.observe(rows)
        self._call_seconds.observe(seconds)
        self._rows.inc(rows)
        self._tokens.inc(tokens)

    def judged(self, judgements: Iterable[Classification]) -> None:
        """Texts were answered."""
        for judgement in judgements:
            for head, flagged in judgement.flagged.items():
                if flagged:
                    self._flagged.labels(head).inc()
            if any(judgement.escalate.values()):
                self._escalated.inc()

    def render(self) -> bytes:
        """The text format."""
        return generate_latest(self._registry)
