"""What goes wrong between a client and a server, and what each fault means for the request and for the run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx

from runs.errors import UserError

Reason = Literal[
    "unreachable",
    "timeout",
    "cut",
    "malformed",
    "rate_limited",
    "server_error",
    "unauthorised",
    "out_of_credit",
    "not_found",
    "rejected",
    "content_filter",
    "no_answer",
    "no_usage",
    "no_logprobs",
]
"""The names under which failures are counted."""

FATAL: dict[Reason, tuple[str, str]] = {
    "unauthorised": ("The server does not accept the API key.", "Check the environment variable {api_key_env}."),
    "out_of_credit": ("The account at the server has no credit left.", "Top it up, then run the same command again."),
    "not_found": ("The server knows no such model or address.", "Check 'base_url' (it ends with /v1) and 'model'."),
    "no_usage": (
        "The server does not say how many tokens a reply has.",
        "Take a server that reports 'usage': nothing can be counted without it.",
    ),
    "no_logprobs": (
        "The server gives no log-probabilities, and this step reads them.",
        "Take a server that does (vLLM, OpenAI, Together), or a labeller that runs in this process ('engine: self').",
    ),
}
"""Faults that the next request would meet as well: what they mean, and the mend."""

LATER: frozenset[Reason] = frozenset({"unreachable", "timeout", "cut", "malformed", "rate_limited", "server_error"})
"""Faults that may be gone at the next attempt."""

PERHAPS_BILLED: frozenset[Reason] = frozenset(
    {"timeout", "cut", "malformed", "content_filter", "no_answer", "no_usage", "no_logprobs"}
)
"""Faults of requests that the server may have computed, and charged for."""

_DETAIL = 200
"""Characters of a server's own words that the ledger keeps."""


class ServerStopped(UserError):
    """A server can no longer be used in this run: wrong key, no credit, limit reached, or it does not answer."""


@dataclass
class Fault(Exception):
    """One attempt that gave no answer."""

    reason: Reason
    status: int | None = None
    """The HTTP status, if there was a reply."""
    detail: str = ""
    """The server's own words, shortened; never shown as an answer."""
    retry_after_s: float | None = None
    """How long the server asks to be left alone, in seconds."""

    @property
    def retry(self) -> bool:
        """Whether another attempt makes sense."""
        return self.reason in LATER

    def __str__(self) -> str:
        return f"{self.reason}{f' (HTTP {self.status})' if self.status else ''}"


def transport_fault(error: Exception) -> Fault:
    """The fault of a request that got no whole reply."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)):
        return Fault("unreachable", detail=type(error).__name__)
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return Fault("timeout", detail=type(error).__name__)
    return Fault("cut", detail=type(error).__name__)


def status_fault(response: httpx.Response, key: str | None) -> Fault:
    """The fault of a reply whose status is not 200; its body must have been read."""
    code, words = _server_words(response)
    reason = _reason(response.status_code, code)
    told = "" if reason == "unauthorised" else redacted(words, key)  # servers repeat parts of a wrong key
    return Fault(reason, response.status_code, told, retry_after(response.headers.get("retry-after")))


def error_fault(error: Any, key: str | None) -> Fault:
    """The fault in the body of a reply with status 200 (OpenRouter sends its upstream's errors so)."""
    code = error.get("code") if isinstance(error, dict) else None
    words = str(error.get("message", "")) if isinstance(error, dict) else str(error)
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    reason = _reason(status, str(code or "")) if status else "server_error"
    return Fault(reason, status, "" if reason == "unauthorised" else redacted(words, key))


def _reason(status: int, code: str) -> Reason:
    if status == 402 or code == "insufficient_quota":
        return "out_of_credit"
    if code in ("content_filter", "content_policy_violation"):
        return "content_filter"
    if status in (401, 403):
        return "unauthorised"
    if status == 404:
        return "not_found"
    if status == 429:
        return "rate_limited"
    if status >= 500 or status in (408, 425):
        return "server_error"
    return "rejected"


def _server_words(response: httpx.Response) -> tuple[str, str]:
    """The error's code and message, wherever the server puts them."""
    try:
        body = response.json()
    except ValueError:
        return "", response.text
    error = body.get("error", body.get("detail", body)) if isinstance(body, dict) else body
    if isinstance(error, dict):
        metadata = error.get("metadata")
        if isinstance(metadata, dict) and "flagged_input" in metadata:  # OpenRouter's moderation, with status 403
            return "content_filter", str(error.get("message", ""))
        return str(error.get("code") or error.get("type") or ""), str(error.get("message", error))
    return "", str(error)


def redacted(words: str, key: str | None) -> str:
    """``words`` in one line, shortened, without the API key."""
    if key:
        words = words.replace(key, "[key]")
    return " ".join(words.split())[:_DETAIL]


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a Retry-After header: a number, or an HTTP date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        then = parsedate_to_datetime(header)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())
