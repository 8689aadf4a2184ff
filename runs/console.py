"""The only place that prints: rich on stderr for people, plain results on stdout for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from runs.errors import ExitCode, UserError


class Reporter:
    """What a command says while it works.

    Args:
        json_output: results go to stdout as one JSON object, everything else to stderr.
        quiet: only errors and the result are shown.
    """

    def __init__(self, *, json_output: bool = False, quiet: bool = False) -> None:
        self.json_output, self.quiet = json_output, quiet
        self._out = Console(stderr=json_output, highlight=False)
        self._err = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """One line of progress. ``text`` is rich markup: escape what comes from outside with `plain`."""
        if not self.quiet:
            self._out.print(text)

    def warn(self, text: str) -> None:
        """Something that the user should know and that does not stop the work."""
        self._err.print(f"[yellow]warning[/] {text}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> None:
        """A table: first column left, the others right. Shown also under ``quiet``: it is the result."""
        if self.json_output:
            return
        table = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._out.print(table)

    def result(self, value: dict[str, Any], lines: Sequence[str]) -> None:
        """The command's result: ``value`` under ``--json``, else ``lines`` for people."""
        if self.json_output:
            sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        else:
            for line in lines:
                self._out.print(line)

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        """A progress bar; the block gets ``advance(steps=1, note="")``."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with Progress(*columns, console=self._out, disable=self.quiet) as bar:
            task = bar.add_task(description, total=total, completed=done, note="")

            def advance(steps: int = 1, note: str = "") -> None:
                bar.update(task, advance=steps, note=escape(note))

            yield advance


def plain(text: object) -> str:
    """``text`` with rich's markup escaped."""
    return escape(str(text))


def guard(action: Callable[[], int | None]) -> int:
    """Run a command; turn a `UserError` into a panel and its exit code, and Ctrl-C into 130.

    Anything else is a fault of ours and keeps its traceback.
    """
    errors = Console(stderr=True, highlight=False)
    try:
        return action() or int(ExitCode.DONE)
    except UserError as error:
        body = f"[bold]{escape(error.what)}[/]"
        if error.why:
            body += f"\n{escape(error.why)}"
        if error.mend:
            body += f"\n[green]{escape(error.mend)}[/]"
        errors.print(Panel(body, title="[red]error[/]", title_align="left", border_style="red"))
        return int(error.exit_code)
    except KeyboardInterrupt:
        errors.print("[yellow]Interrupted.[/] What was finished is kept; the same command goes on from there.")
        return int(ExitCode.INTERRUPTED)
