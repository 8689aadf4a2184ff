"""What people think of preference pairs: blind votes, appended to a file, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Literal

from dashboard.pairs import PairView
from evaluation.statistics.proportions import tango
from runs.atomic import make_folder
from runs.config import StrictModel
from runs.errors import unknown_name
from runs.identity import row_seed
from runs.records import RecordLog

Vote = Literal["chosen", "rejected", "tie", "both_bad"]
Button = Literal["a", "b", "tie", "both_bad"]
BUTTONS: tuple[Button, ...] = ("a", "b", "tie", "both_bad")
FILE = "pair_rankings.jsonl"


class Ranking(StrictModel):
    """One person's view of one pair."""

    schema_version: int = 1
    key: str
    """``rater:pair:number``."""
    pair: str
    """`PairView.key`."""
    source: str
    """The folder that the pair was read from."""
    principle_id: str
    rater: str
    """A random name of the visit; it says nothing of the person."""
    shown_first: Literal["chosen", "rejected"]
    """Which side stood on the left."""
    vote: Vote
    created: str
    """UTC, ISO 8601."""


@dataclass(frozen=True)
class Agreement:
    """How people's votes lie with the pairs' own order."""

    chosen: int
    rejected: int
    tie: int
    both_bad: int
    interval: tuple[float, float] | None
    """95 % interval of (chosen - rejected) / votes (Tango's); None without votes."""

    @property
    def votes(self) -> int:
        """The denominator."""
        return self.chosen + self.rejected + self.tie + self.both_bad


class Rankings:
    """The votes in ``folder``; the file is made with the first vote.

    Args:
        folder: where `FILE` is appended to.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = Lock()

    def add(self, view: PairView, source: str, rater: str, button: str) -> Ranking:
        """Append a vote and give it back.

        Raises:
            UsageError: there is no such button.
            UserError: the file cannot be written.
        """
        if button not in BUTTONS:
            raise unknown_name("vote", button[:40], BUTTONS)
        first = first_side(view, rater)
        sides: dict[str, Vote] = {
            "a": first, "b": "rejected" if first == "chosen" else "chosen", "tie": "tie", "both_bad": "both_bad",
        }  # fmt: skip
        with self._lock:
            make_folder(self.path.parent)
            with RecordLog(self.path, Ranking) as log:
                before = sum(one.pair == view.key and one.rater == rater for one in log)
                made = Ranking(
                    key=f"{rater}:{view.key}:{before}",
                    pair=view.key,
                    source=source,
                    principle_id=view.principle_id,
                    rater=rater,
                    shown_first=first,
                    vote=sides[button],
                    created=datetime.now(UTC).isoformat(timespec="seconds"),
                )
                log.append(made)
        return made

    def read(self) -> list[Ranking]:
        """All votes, in the order in which they were cast. Raises `IntegrityError` where a line is damaged."""
        with self._lock:
            if not self.path.is_file():
                return []
            with RecordLog(self.path, Ranking) as log:
                return list(log)


def first_side(view: PairView, rater: str) -> Literal["chosen", "rejected"]:
    """Which side of a pair a rater sees on the left: drawn by a seed, the same every time."""
    return "chosen" if row_seed(0, rater, view.key) % 2 else "rejected"


def next_pair(found: Sequence[PairView], rankings: Sequence[Ranking], rater: str) -> PairView | None:
    """The accepted pair with the fewest votes that ``rater`` has not seen; None when there is none left."""
    mine = {one.pair for one in rankings if one.rater == rater}
    votes: dict[str, int] = {}
    for one in rankings:
        votes[one.pair] = votes.get(one.pair, 0) + 1
    due = {view.key: view for view in found if view.accepted and view.key not in mine}
    return min(due.values(), key=lambda view: (votes.get(view.key, 0), row_seed(1, rater, view.key)), default=None)


def agreement(rankings: Sequence[Ranking]) -> Agreement:
    """Counts of the votes, with the interval of how much more often people take the chosen side."""
    counts = {name: sum(one.vote == name for one in rankings) for name in ("chosen", "rejected", "tie", "both_bad")}
    total = len(rankings)
    interval = tango(counts["chosen"], counts["rejected"], total) if total else None
    return Agreement(**counts, interval=interval)
