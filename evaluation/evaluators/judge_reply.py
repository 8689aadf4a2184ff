"""Reading a judge's reply: a number on its last line, or a reason why there is none. Nothing is guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from evaluation.evaluators.response_mode import response_mode
from evaluation.scores import Judgement

Reason = Literal["judge_refused", "judge_unparsed", "judge_out_of_range", "judge_truncated", "judge_error"]
_NUMBER = re.compile(r"\**\s*rating\s*:\s*(-?\d+(?:\.\d+)?)\s*(?:/\s*\d+)?\s*\.?\**", re.IGNORECASE)
_CHOICE = re.compile(r"\**\s*choice\s*:\s*\**\(?(a|b|tie)\)?\s*\.?\**", re.IGNORECASE)


class Reply(NamedTuple):
    """What a judge said."""

    value: float | str | None
    """The rating, or the choice; None where `reason` says why."""
    reason: Reason | None


def read_rating(text: str, low: float, high: float) -> Reply:
    """The number of the last line ``Rating: N``; a number anywhere else is not one."""
    match = _last_line(text, _NUMBER)
    if match is None:
        return Reply(None, _why(text))
    value = float(match[1])
    return Reply(value, None) if low <= value <= high else Reply(None, "judge_out_of_range")


def read_choice(text: str) -> Reply:
    """``A``, ``B`` or ``TIE`` of the last line ``Choice: …``."""
    match = _last_line(text, _CHOICE)
    return Reply(match[1].upper(), None) if match else Reply(None, _why(text))


def _last_line(text: str, pattern: re.Pattern[str]) -> re.Match[str] | None:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return pattern.fullmatch(lines[-1]) if lines else None


def _why(text: str) -> Reason:
    """A judge that declines must not be read as one that rambles: refusals fall on the worst answers."""
    return "judge_refused" if response_mode("Rate this answer.", text).kind == "decline" else "judge_unparsed"


class FailureRow(NamedTuple):
    """How a judge fared on the answers of one class."""

    mode: str
    """Response mode of the answers, as `response_mode` reads it."""
    scored: int
    unscored: dict[str, int]
    """Reason → answers."""

    @property
    def rate(self) -> float:
        """Share of the answers without a value."""
        failed = sum(self.unscored.values())
        return failed / (failed + self.scored) if failed + self.scored else 0.0


class Failures(NamedTuple):
    """Where a judge fails."""

    rows: list[FailureRow]
    p_value: float
    """Fisher's exact test that failures are spread alike over the class with the highest rate and the others."""
    worst: str
    """The class with the highest rate of failure; empty without a failure."""

    @property
    def skewed(self) -> bool:
        """Whether failures gather in one class (p < 0.01): then the mean of what was scored means little."""
        return bool(self.worst) and self.p_value < 0.01


def failures(judged: Iterable[tuple[str, Judgement]]) -> Failures:
    """Count a judge's failures by the class of the answers.

    Args:
        judged: (response mode, the judge's judgement) of each answer.
    """
    import numpy as np
    from scipy.stats import fisher_exact

    scored: Counter[str] = Counter()
    unscored: dict[str, Counter[str]] = {}
    for mode, judgement in judged:
        if judgement.unscored is None:
            scored[mode] += 1
        else:
            unscored.setdefault(mode, Counter())[judgement.unscored.split(":")[0]] += 1
    modes = sorted({*scored, *unscored})
    rows = [FailureRow(mode, scored[mode], dict(unscored.get(mode, {}))) for mode in modes]
    failing = [row for row in rows if row.unscored]
    if not failing:
        return Failures(rows, 1.0, "")
    worst = max(failing, key=lambda row: (row.rate, sum(row.unscored.values())))
    others = [row for row in rows if row is not worst]
    table = np.array(
        [
            [sum(worst.unscored.values()), worst.scored],
            [sum(sum(row.unscored.values()) for row in others), sum(row.scored for row in others)],
        ]
    )
    return Failures(rows, float(fisher_exact(table, alternative="greater").pvalue), worst.mode)
