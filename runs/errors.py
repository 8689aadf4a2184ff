"""Errors that a user can act on: each names the thing, why it failed, and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command (docs/architecture.md, "Commands")."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    GATE_FAILED = 3
    GATE_UNDECIDED = 4
    DATA = 64
    """Input that no second attempt will mend. Kubernetes fails a Job on this and on `USAGE`."""
    PREEMPTED = 75
    """Asked to stop, and everything is saved: the same command goes on. Kubernetes does not count it as a failure."""
    INTERRUPTED = 130


class UserError(Exception):
    """A failure whose cause is outside the code: input, environment, or usage.

    Args:
        what: the thing that failed, named so that the user can find it.
        why: the cause, if it is not plain from ``what``.
        mend: what to do about it, as a sentence or a command.
    """

    exit_code = ExitCode.ERROR

    def __init__(self, what: str, *, why: str = "", mend: str = "") -> None:
        self.what, self.why, self.mend = what, why, mend
        super().__init__("\n".join(part for part in (what, why, mend) if part))


class UsageError(UserError):
    """The command line or a config file asks for something that does not exist."""

    exit_code = ExitCode.USAGE


class DataError(UserError):
    """Input that is there and cannot be used; trying again will not mend it."""

    exit_code = ExitCode.DATA


class IntegrityError(DataError):
    """Stored bytes do not match what their manifest promises."""


class Preempted(UserError):
    """The process was asked to stop, and its work is saved."""

    exit_code = ExitCode.PREEMPTED


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that no registry holds, with the nearest one that it does."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    listed = ", ".join(options) if options else "none"
    return UsageError(f"Unknown {kind} '{name}'.", mend=f"{hint}Known: {listed}.")
