"""One server process: bind, serve, and on SIGTERM finish what was begun."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from runs.console import Reporter, plain
from runs.errors import UserError
from safety_classifier.judge import WarmJudge
from safety_classifier.serving.app import Service, create_app
from safety_classifier.serving.keys import KeyRing
from safety_classifier.serving.settings import ServeSettings

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(judge: WarmJudge, settings: ServeSettings, keys: KeyRing, *, reporter: Reporter) -> None:
    """Answer until SIGTERM or SIGINT; then take no more connections, finish what is in flight, and return.

    Raises:
        UserError: the address cannot be bound.
    """
    import uvicorn

    stop: list[uvicorn.Server] = []

    def on_failure() -> None:
        stop[0].should_exit = True

    service = Service(judge, settings, on_failure)
    config = uvicorn.Config(
        create_app(service, keys),
        log_level="warning",
        access_log=False,  # /metrics counts; a line for each request would only slow the server down
        server_header=False,
        timeout_keep_alive=settings.limits.keep_alive_s,
        timeout_graceful_shutdown=settings.limits.shutdown_s,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    stop.append(server)
    with _listening(settings.host, settings.port) as sock, _signals_are_no_failure():
        port = sock.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        who = "with a key" if keys else "without a key"
        reporter.say(f"Listening on [bold]http://{plain(host)}:{port}[/] {who}. /readyz says when the model is warm.")
        server.run(sockets=[sock])
    if service.failure is not None:
        raise service.failure
    reporter.say("Stopped; everything that was begun has been answered.")


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. Raises `UserError` when there can be none."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"Cannot listen on {host}:{port}.",
            why=f"{error.strerror}.",
            mend="Choose another with --host and --port; --port 0 takes a free one.",
        ) from error
    with sock:
        yield sock


@contextmanager
def _signals_are_no_failure() -> Iterator[None]:
    """Uvicorn raises the signal that stopped it once more at its end; here it must not kill: stopping is success."""
    held = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
