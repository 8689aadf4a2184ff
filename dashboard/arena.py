"""The polling booth: hands out blind ballots, takes votes, and says what came of them. No user interface here."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from pydantic import BaseModel

from critique_revision.constitution import PrinciplesConstitution, load_principles
from dashboard.pairing import next_ballot
from dashboard.ratings import (
    Agreement,
    AxisRatings,
    Corrected,
    Source,
    agreement,
    axis_ratings,
    corrected,
    counts,
    labels,
    preference_pairs,
)
from dashboard.store import Store
from dashboard.votes import AXES, MAX_NAME, Axis, Ballot, VoteLog, cast, read_axis
from evaluation.report.data import RunData
from inference.records import Prompt
from runs.errors import UsageError, UserError, unknown_name
from runs.records import to_line

MAX_OPEN = 5_000
"""Ballots that may be out at once; the oldest is forgotten first."""
KEPT = 4
"""Runs whose answers are kept at hand."""
EXPORTS = ("pairs", "labels", "votes")
"""What can be taken out: training pairs, labels of answers, the votes themselves."""


@dataclass(frozen=True)
class Asked:
    """A ballot as a voter sees it: nothing in it tells the models."""

    token: str
    """Stands for the ballot; drawn, so that nothing can be read from it."""
    axis: Axis
    prompt: Prompt
    first: str
    """The answer that is shown as A."""
    second: str
    number: int
    """Ballots that the voter had before."""


@dataclass(frozen=True)
class Revealed:
    """After the vote: which model was which."""

    counted: bool
    """False: this ballot was voted on before."""
    first: str
    second: str
    votes: dict[Axis, int]
    """Of everybody, on this run."""


@dataclass(frozen=True)
class Standings:
    """What all votes on a run say."""

    run: str
    models: tuple[str, ...]
    axes: tuple[AxisRatings, ...]
    agreement: Agreement
    corrected: tuple[Corrected, ...]
    labelled: int
    """Answers with a label."""
    pairs: int
    """Preference pairs that an export would hold."""


@dataclass(frozen=True)
class _Open:
    run: str
    ballot: Ballot
    since: float


class Booth:
    """Ballots and votes on the runs of a store. One instance serves the whole app.

    Args:
        store: where the runs are; votes go into its folder for annotations.
        seed: of every draw.
    """

    def __init__(self, store: Store, *, seed: int = 0) -> None:
        self._store, self._seed = store, seed
        self._lock = Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._sources: OrderedDict[str, Source] = OrderedDict()
        self._logs: dict[str, VoteLog] = {}

    def runs(self) -> list[str]:
        """Names of the runs that can be voted on."""
        return [entry.name for entry in self._store.finished if len(entry.models) > 1]

    def principles(self, run: str) -> PrinciplesConstitution:
        """The constitution that the run's prompts name: the reasons to choose from. Raises as `Store.load`."""
        return load_principles(self._store.load(run).constitution)

    def ask(self, run: str, axis: str, voter: str) -> Asked | None:
        """The next ballot for a voter; None when there is nothing left to ask.

        Args:
            run: name of a run.
            axis: ``helpful`` or ``harmless``.
            voter: a name, or a session's; the same voter is never asked the same twice, but for repeats.

        Raises:
            UsageError: no such run or axis, or no name.
            UserError: the run cannot be read.
        """
        question = read_axis(axis)
        name = voter.strip()
        if not 0 < len(name) <= MAX_NAME:
            raise UsageError(f"A voter needs a name of 1 to {MAX_NAME} characters.")
        source = self._source(run)
        ballot = next_ballot(source.arena, self._log(source).read(), question, name)
        if ballot is None:
            return None
        token = secrets.token_urlsafe(12)
        with self._lock:
            self._open[token] = _Open(run, ballot, time.monotonic())
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        first, second = (
            source.samples[ballot.prompt_id, ballot.sample, model] for model in (ballot.first, ballot.second)
        )
        return Asked(token, question, first.prompt, first.response, second.response, ballot.number)

    def vote(
        self,
        token: str,
        choice: str,
        *,
        reason: str = "",
        first_label: str | None = None,
        second_label: str | None = None,
    ) -> Revealed:
        """Count a vote and say which model was which.

        Raises:
            UsageError: a ballot that is not out, or a choice, reason or label that there is not.
            UserError: the vote cannot be written; the ballot stays out.
        """
        with self._lock:
            held = self._open.get(token)
        if held is None:
            raise UsageError(
                "This ballot is not out.",
                why="It was voted on, or the server was restarted.",
                mend="Take the next one.",
            )
        if reason:
            known = [principle.id for principle in self.principles(held.run).principles]
            if reason not in known:
                raise unknown_name("principle", reason, known)
        seconds = time.monotonic() - held.since
        vote = cast(
            held.ballot, choice, reason=reason, first_label=first_label, second_label=second_label, seconds=seconds
        )
        log = self._log(self._source(held.run))
        counted = log.append(vote)
        with self._lock:
            self._open.pop(token, None)
        return Revealed(counted, held.ballot.first, held.ballot.second, counts(log.read()))

    def standings(self, run: str) -> Standings:
        """Ratings on both axes, agreement, corrected rates. The first call compiles, which takes seconds."""
        source = self._source(run)
        votes = self._log(source).read()
        return Standings(
            run=run,
            models=source.arena.models,
            axes=tuple(axis_ratings(source, votes, axis) for axis in AXES),
            agreement=agreement(votes),
            corrected=tuple(corrected(source, votes)),
            labelled=len(labels(votes)),
            pairs=len(preference_pairs(source, votes)),
        )

    def export(self, run: str, kind: str) -> bytes:
        """JSON lines of training pairs, of labels, or of the votes themselves.

        Raises:
            UsageError: another kind.
            UserError: there is nothing to export yet.
        """
        if kind not in EXPORTS:
            raise unknown_name("export", kind, EXPORTS)
        source = self._source(run)
        votes = self._log(source).read()
        rows: Sequence[BaseModel] = votes
        if kind == "pairs":
            rows = preference_pairs(source, votes)
        elif kind == "labels":
            rows = labels(votes)
        lines = [to_line(row.model_dump(mode="json", exclude_none=True)) for row in rows]
        if not lines:
            raise UserError(f"There are no {kind} yet.", mend="Vote first; labels are set beside the answers.")
        return b"".join(lines)

    def _source(self, run: str) -> Source:
        data: RunData = self._store.load(run)
        key = data.manifest.run_id
        with self._lock:
            if key not in self._sources:
                self._sources[key] = Source.of(data, seed=self._seed)
            self._sources.move_to_end(key)
            while len(self._sources) > KEPT:
                self._sources.popitem(last=False)
            return self._sources[key]

    def _log(self, source: Source) -> VoteLog:
        key = source.arena.run_id
        with self._lock:
            return self._logs.setdefault(key, VoteLog(votes_path(self._store.annotations, key)))


def votes_path(annotations: Path, run_id: str) -> Path:
    """The file that holds a run's votes."""
    return annotations / "votes" / f"{run_id[:16]}.jsonl"
