"""The command `dashboard`: a local page on finished runs."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from runs.cli import make_app, run_app
from runs.errors import UsageError
from runs.paths import shown

app = make_app("Show finished runs on a local page: verdicts, flips, live answers, blind votes, classifier, training.")
_LONGEST_AUTH = 1 << 16


@app.command()
def show(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN ...]", help="Folders, ids or 'last'; default: all runs.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("results"),
    artifacts: Annotated[
        Path | None, typer.Option(help="Folder of what training made; default: the project's.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on. Beyond this machine: needs --auth.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Default: the first free one from 7860 on.", min=1, max=65535)
    ] = None,
    auth: Annotated[
        Path | None, typer.Option(help="File with a line NAME:PASSWORD for everyone who may enter.")
    ] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="With --host beyond this machine: let everybody in.")
    ] = False,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show the address only.")] = False,
) -> None:
    """Serve the dashboard until Ctrl-C. It reads results; a model is loaded only when a page asks for one."""
    import gc
    import webbrowser
    from threading import Event, Thread

    from dashboard.gradio_import import prepare_gradio
    from dashboard.store import Store
    from runs.console import Reporter, plain
    from runs.paths import ARTIFACTS

    accounts = read_accounts(auth) if auth is not None else None
    check_host(host, protected=accounts is not None or anonymous)
    store = Store(results, names=runs or (), artifacts=artifacts or ARTIFACTS)
    reporter = Reporter(quiet=quiet)
    prepare_gradio()
    gc.disable()  # nothing of an import is garbage, and looking for some is a fifth of the start
    from dashboard.app import build_app
    from dashboard.server import serve

    with serve(build_app(store), host=host, port=port, auth=accounts) as address:
        gc.freeze()
        gc.enable()
        Thread(target=store.warm, daemon=True).start()
        counted = len(store.finished)
        reporter.say(
            f"{counted} finished run{'' if counted == 1 else 's'} under {plain(shown(store.root))}. Ctrl-C ends."
        )
        reporter.result({"url": address}, [f"[bold]{plain(address)}[/]"])
        if browser:
            webbrowser.open(address)
        Event().wait()


def check_host(host: str, *, protected: bool) -> None:
    """Refuse to serve other machines without a password, unless that was asked for.

    Raises:
        UsageError: ``host`` is not this machine alone, and nothing protects it.
    """
    if protected or host == "localhost":
        return
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise UsageError(
            f"--host {host} would show the runs to other machines without a password.",
            mend="Add --auth FILE with NAME:PASSWORD lines, or --anonymous if everybody may see and use it.",
        )


def read_accounts(path: Path) -> list[tuple[str, str]]:
    """Names and passwords, one ``NAME:PASSWORD`` a line; empty lines and lines that begin with # are skipped.

    Raises:
        UsageError: the file cannot be read, or a line is not of that form (its number is named, never its text).
    """
    try:
        text = path.read_bytes()[:_LONGEST_AUTH].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--auth {shown(path)} cannot be read.", why=type(error).__name__) from error
    accounts = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, separator, password = line.strip().partition(":")
        if not (name and separator and password):
            raise UsageError(f"--auth {shown(path)}, line {number}: expected NAME:PASSWORD.")
        accounts.append((name, password))
    if not accounts:
        raise UsageError(f"--auth {shown(path)} names nobody.", mend="Write a line NAME:PASSWORD into it.")
    return accounts


def main() -> None:
    """Entry point."""
    run_app(app, bare=())
