"""Votes of people on pairs of answers: an append-only file that several processes may write to at once.

A vote is one JSON line, written by one system call under a lock on the file and forced to the disk. What a writer that
died left half-written is cut off by the next one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Literal, get_args

from pydantic import Field, ValidationError

from runs.atomic import make_folder, write_error
from runs.config import StrictModel
from runs.errors import IntegrityError, UsageError, unknown_name
from runs.identity import digest
from runs.paths import shown
from runs.records import to_line

Axis = Literal["helpful", "harmless"]
"""What is judged: which answer is more helpful, or which is less harmful (Bai et al. 2022 rate them apart)."""
Choice = Literal["first", "second", "tie", "both_bad"]
Label = Literal["answers", "refuses", "harmful", "unusable"]
"""What an answer does: gives what was asked for; declines or evades; gives it and does harm; cannot be read."""
AXES: tuple[Axis, ...] = get_args(Axis)
CHOICES: tuple[Choice, ...] = get_args(Choice)
LABELS: tuple[Label, ...] = get_args(Label)
MAX_NAME = 200
"""Characters of a voter's, principle's or model's name."""


class Ballot(StrictModel):
    """What a voter is asked: two answers to one prompt, in the order in which they are shown."""

    id: str
    """Digest of everything below: a ballot is voted on once."""
    run_id: str
    axis: Axis
    voter: str
    """A name that a person gave, or their session's."""
    number: int
    """How many ballots the voter had before this one, in this run and on this axis."""
    prompt_id: str
    sample: int = 0
    first: str
    """The model whose answer is shown as A."""
    second: str
    repeat_of: str = ""
    """The ballot that this one asks again, to see whether its voter agrees with himself; empty: none."""

    @classmethod
    def make(
        cls,
        *,
        run_id: str,
        axis: Axis,
        voter: str,
        number: int,
        prompt_id: str,
        sample: int,
        first: str,
        second: str,
        repeat_of: str = "",
    ) -> Ballot:
        """A ballot with its id."""
        held: list[str | int] = [run_id, axis, voter, number, prompt_id, sample, first, second, repeat_of]
        return cls(
            id=digest(held)[:24],
            run_id=run_id,
            axis=axis,
            voter=voter,
            number=number,
            prompt_id=prompt_id,
            sample=sample,
            first=first,
            second=second,
            repeat_of=repeat_of,
        )


class Vote(StrictModel):
    """A ballot with its answer: one line of the file."""

    schema_version: Literal[1] = 1
    ballot: Ballot
    choice: Choice
    reason: str = Field(default="", max_length=MAX_NAME)
    """The id of the principle that decided; empty: none was named."""
    first_label: Label | None = None
    """What the first answer does, if the voter said so."""
    second_label: Label | None = None
    seconds: float | None = Field(default=None, ge=0)
    """From showing the answers to the vote."""
    time: str
    """UTC, ISO 8601."""

    @property
    def winner(self) -> str | None:
        """The model that was preferred; None for a tie."""
        return {"first": self.ballot.first, "second": self.ballot.second}.get(self.choice)


def read_choice(choice: str) -> Choice:
    """One of `CHOICES`. Raises `UsageError` with the nearest."""
    for one in CHOICES:
        if one == choice:
            return one
    raise unknown_name("choice", choice, CHOICES)


def read_axis(axis: str) -> Axis:
    """One of `AXES`. Raises `UsageError` with the nearest."""
    for one in AXES:
        if one == axis:
            return one
    raise unknown_name("question", axis, AXES)


def read_label(label: str | None) -> Label | None:
    """One of `LABELS`, or None where nothing was said. Raises `UsageError` with the nearest."""
    if not label:
        return None
    for one in LABELS:
        if one == label:
            return one
    raise unknown_name("label", label, LABELS)


def cast(
    ballot: Ballot,
    choice: str,
    *,
    reason: str = "",
    first_label: str | None = None,
    second_label: str | None = None,
    seconds: float | None = None,
) -> Vote:
    """A vote of now.

    Raises:
        UsageError: a choice or label that there is not.
    """
    if len(reason) > MAX_NAME:
        raise UsageError(f"A reason is the id of a principle, of at most {MAX_NAME} characters.")
    return Vote(
        ballot=ballot,
        choice=read_choice(choice),
        reason=reason,
        first_label=read_label(first_label),
        second_label=read_label(second_label),
        seconds=None if seconds is None else round(max(0.0, seconds), 1),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class VoteLog:
    """The votes of one run.

    Args:
        path: the file; it and its folder are made with the first vote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._end = 0
        self._votes: dict[str, Vote] = {}
        """Ballot id → vote, as far as the file was read."""

    def read(self) -> tuple[Vote, ...]:
        """All votes, in the order of the file; only what is new since the last call is read from the disk.

        Raises:
            IntegrityError: a line is not a vote; file and line are named.
        """
        with self._lock:
            if not self.path.exists():
                self._end, self._votes = 0, {}
                return ()
            with self.path.open("rb") as handle:
                self._catch_up(handle.fileno())
            return tuple(self._votes.values())

    def append(self, vote: Vote) -> bool:
        """Add a vote; False, and nothing is written, if its ballot was voted on before (a second click, say).

        Raises:
            UserError: the disk is full, or the file cannot be written.
            IntegrityError: as `read`.
        """
        make_folder(self.path.parent)
        with self._lock, _locked(self.path) as descriptor:
            self._catch_up(descriptor)
            if vote.ballot.id in self._votes:
                return False
            try:
                os.ftruncate(descriptor, self._end)  # what a writer that died left after the last whole line
                line = to_line(vote)
                if os.pwrite(descriptor, line, self._end) < len(line):
                    os.ftruncate(descriptor, self._end)
                    raise OSError(28, os.strerror(28))
                os.fsync(descriptor)
            except OSError as error:
                raise write_error(self.path, error) from error
            self._end += len(line)
            self._votes[vote.ballot.id] = vote
        return True

    def _catch_up(self, descriptor: int) -> None:
        """Read the whole lines that were added since the last time."""
        size = os.fstat(descriptor).st_size
        if size < self._end:  # somebody replaced the file
            self._end, self._votes = 0, {}
        data = os.pread(descriptor, size - self._end, self._end)
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                vote = Vote.model_validate_json(line)
            except ValidationError as error:
                raise IntegrityError(
                    f"{shown(self.path)}, line {len(self._votes) + 1}: not a vote.",
                    why=str(error.errors()[0]["msg"]),
                    mend="The file was edited or damaged; move it away, or remove that line.",
                ) from error
            self._votes.setdefault(vote.ballot.id, vote)
        self._end += len(whole)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """A descriptor of the file that no other process or thread holds; the kernel frees it if we die."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
