"""Tokens a second, line by line, in a file of its own: the log must be the same bytes however a run was interrupted.

``train_speed.jsonl`` has a line for every training line of ``train_log.jsonl``: the tokens that the model read since
the line before, over the seconds of those steps alone (no evaluation, no saving).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runs.atomic import write_text

SPEED_LOG = "train_speed.jsonl"


@dataclass
class Clock:
    """Seconds and tokens of a run's steps, over all the processes that worked on it; a checkpoint carries it."""

    seconds: float = 0.0
    """Of the steps since the last line."""
    tokens: int = 0
    """Read by the time of the last line."""
    total_seconds: float = 0.0
    """Of all steps by the time of the last line."""

    def step(self, seconds: float) -> None:
        """Count one optimiser step."""
        self.seconds += seconds

    def line(self, tokens: int) -> float:
        """Tokens a second since the last line, which ends here.

        Args:
            tokens: read since the start of the run.
        """
        rate = (tokens - self.tokens) / self.seconds if self.seconds > 0 else 0.0
        self.total_seconds += self.seconds
        self.seconds, self.tokens = 0.0, tokens
        return rate

    def mean(self) -> float | None:
        """Tokens a second over the run; None before any step was counted."""
        return self.tokens / self.total_seconds if self.total_seconds > 0 else None

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)


def rows_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The file's lines up to ``step``; what a killed process wrote beyond its last checkpoint is left out.

    ``path`` is replaced as a whole with every line, so that none is torn.
    """
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["step"] <= step]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace the file."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
