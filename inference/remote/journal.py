"""What a server answered, on disk the moment it arrives, and the ledger of the attempts that it did not answer.

A reply that is paid for is never asked for twice: the journal is keyed by the request's own content, so whoever asks
the same again, in this process or after a kill, gets the same reply. Failures have a file of their own.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from inference.records import FinishReason
from inference.remote.faults import PERHAPS_BILLED, Fault, Reason
from runs.atomic import make_folder
from runs.config import StrictModel
from runs.records import RecordLog


class Reply(StrictModel):
    """One answered request."""

    key: str
    """Digest of the server's identity and the request's body."""
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float = 0.0
    top: dict[str, float] | None = None
    """Candidates for the first token and their log-probabilities, where they were asked for."""


class Failure(StrictModel):
    """One attempt without an answer: a line of the ledger."""

    key: str
    """Unique: request, time and attempt."""
    request: str
    """The caller's key of the request."""
    reason: Reason
    status: int | None
    """The HTTP status, if there was a reply."""
    detail: str
    """The server's own words, one line of at most 200 characters, without the API key."""
    attempt: int
    """From 1."""
    final: bool
    """Whether it was the last attempt of this process for the request."""
    cost_usd: float
    """What the server may have charged for it."""
    at: str
    """UTC, ISO 8601."""


class Journal:
    """The replies and failures of one server in one run.

    Args:
        replies: the journal's file; None keeps replies in memory only.
        failures: the ledger's file; None keeps no ledger.

    Both are opened at the first use, so that an engine that is never asked leaves no file.
    """

    def __init__(self, replies: Path | None = None, failures: Path | None = None) -> None:
        self._paths = replies, failures
        self._replies: RecordLog[Reply] | None = None
        self._failures: RecordLog[Failure] | None = None
        self._lock = threading.Lock()
        self.spent: float = 0.0
        """Dollars that earlier processes of the run spent, by both files."""
        self._opened = False

    def open(self) -> None:
        """Read what earlier processes left. Later calls do nothing."""
        with self._lock:
            if self._opened:
                return
            replies, failures = self._paths
            if replies is not None:
                make_folder(replies.parent)
                self._replies = RecordLog(replies, Reply)
                self.spent += sum(reply.cost_usd for reply in self._replies)
            if failures is not None and failures.is_file():
                self._failures = RecordLog(failures, Failure)
                self.spent += sum(failure.cost_usd for failure in self._failures)
            self._opened = True

    def get(self, key: str) -> Reply | None:
        """The reply on record for a request, if there is one."""
        with self._lock:
            return self._replies[key] if self._replies is not None and key in self._replies else None

    def add(self, reply: Reply) -> None:
        """Put a reply on record. Raises `UserError` where the disk does not take it."""
        with self._lock:
            if self._replies is not None:
                self._replies.append(reply)

    def fail(self, request: str, fault: Fault, *, attempt: int, final: bool, cost_usd: float) -> None:
        """Put a failed attempt on record. Raises `UserError` where the disk does not take it."""
        with self._lock:
            if self._paths[1] is None:
                return
            if self._failures is None:
                self._failures = RecordLog(self._paths[1], Failure)
            self._failures.append(
                Failure(
                    key=f"{request[:12]}-{time.time_ns()}-{attempt}",
                    request=request,
                    reason=fault.reason,
                    status=fault.status,
                    detail=fault.detail,
                    attempt=attempt,
                    final=final,
                    cost_usd=cost_usd,
                    at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                )
            )


def billed(fault: Fault) -> bool:
    """Whether the server may have charged for the attempt."""
    return fault.reason in PERHAPS_BILLED
