"""Serving the page: uvicorn on one socket, in a thread of its own. No tunnel, and no other machine unasked."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from dashboard import theme
from runs.errors import UserError

FIRST_PORT, PORTS = 7860, 100
"""Where a free port is looked for, and how many are tried."""
LARGEST_UPLOAD = "5mb"
_LOCAL = ("127.0.0.1", "localhost")
_START = 600.0
"""Seconds after which a server that does not come up is given up: a machine under load takes its time."""


@contextmanager
def serve(
    page: gr.Blocks,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: Sequence[tuple[str, str]] | None = None,
) -> Iterator[str]:
    """Serve ``page`` while the block runs, which gets its address.

    On this machine alone, only requests that name it as their host are answered, so that a web page elsewhere cannot
    reach the dashboard under a name of its own (DNS rebinding).

    Args:
        page: what `dashboard.app.build_app` made.
        host: address that is listened on.
        port: None takes the first free one from `FIRST_PORT` on.
        auth: names and passwords; None lets everybody in who reaches the address.

    Raises:
        UserError: the address or the port cannot be had.
    """
    listener = _listen(host, port)
    bound = int(listener.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(_application(page, host, bound, auth), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="dashboard", daemon=True)
    thread.start()
    try:
        _wait(server, thread)
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{bound}/"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def _application(page: gr.Blocks, host: str, port: int, auth: Sequence[tuple[str, str]] | None) -> FastAPI:
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in _LOCAL:
        outer.add_middleware(TrustedHostMiddleware, allowed_hosts=list(_LOCAL))
    mounted: FastAPI = gr.mount_gradio_app(
        outer,
        page,
        path="/",
        server_name=host,
        server_port=port,
        auth=list(auth) if auth else None,
        footer_links=["api", "settings"],
        run_history=False,
        show_error=False,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        theme=theme.theme(),
        css=theme.style(),
        head=theme.head(),
    )
    return mounted


def _listen(host: str, port: int | None) -> socket.socket:
    """A listening socket; with no port asked for, on the first free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            raise UserError(
                f"The dashboard cannot listen on {host}:{candidate}.",
                why=f"{error.strerror or error}.",
                mend="Choose another --port, or leave it out; or another --host.",
            ) from error
        return listener
    raise UserError(
        f"No port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free.", mend="End another dashboard, or give --port."
    )


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    until = time.monotonic() + _START
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until:
            raise UserError("The dashboard's server did not start.", mend="Its log above says why.")
        time.sleep(0.02)
