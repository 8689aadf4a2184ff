"""What the command lines have in common: spelling of flags, lists, the default command, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from typer.core import TyperGroup

from runs.console import guard
from runs.environment import prepare_process
from runs.errors import ExitCode, UsageError


def make_app(text: str) -> typer.Typer:
    """A Typer application in the house style; ``text`` is its one-paragraph help."""
    return typer.Typer(
        help=text,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def normalise_arguments(
    arguments: Sequence[str], *, lists: Sequence[str] = (), commands: Sequence[str] = (), default: str | None = None
) -> list[str]:
    """Rewrite a command line to the form that Typer reads.

    * ``--batch_size`` becomes ``--batch-size``;
    * for each flag in ``lists``, ``--models a b,c`` becomes ``--models a,b,c``;
    * when the first word is not one of ``commands`` (and not a call for help), ``default`` is put before it.
    """
    rewritten: list[str] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if word.startswith("--"):
            name, separator, value = word.partition("=")
            word = name.replace("_", "-") + separator + value
            if word in lists:
                values = []
                while position < len(arguments) and not arguments[position].startswith("-"):
                    values += [part for part in arguments[position].split(",") if part]
                    position += 1
                rewritten += [word, ",".join(values)]
                continue
        rewritten.append(word)
    if default and not (rewritten and rewritten[0] in {*commands, "-h", "--help"}):
        rewritten.insert(0, default)
    return rewritten


def run_app(
    app: typer.Typer, *, lists: Sequence[str] = (), default: str | None = None, bare: Sequence[str] = ("--help",)
) -> None:
    """Run ``app`` on ``sys.argv`` and exit with the code that the errors of `runs.errors` carry.

    Arguments are those of `normalise_arguments`; an empty command line means ``bare``.
    """
    prepare_process()
    command = typer.main.get_command(app)
    names = list(command.commands) if isinstance(command, TyperGroup) else []
    arguments = normalise_arguments(sys.argv[1:] or bare, lists=lists, commands=names, default=default)

    def action() -> int:
        try:
            outcome = command.main(args=arguments, standalone_mode=False)
        except typer.TyperException as error:
            raise UsageError(error.format_message(), mend="Add --help to see what there is.") from error
        except typer.Abort as error:
            raise KeyboardInterrupt from error
        return outcome if isinstance(outcome, int) else int(ExitCode.DONE)

    sys.exit(guard(action))


def split_names(value: str) -> list[str]:
    """``"a,b, c"`` as ``["a", "b", "c"]``."""
    return [part.strip() for part in value.split(",") if part.strip()]
