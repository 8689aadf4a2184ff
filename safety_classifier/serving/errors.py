"""Every refusal has one shape: ``{"error": {"type": …, "message": …}}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from runs.config import StrictModel
from runs.errors import UserError

SHOWN_FAULTS = 5
TAG = "("
"""Branches of a union are named in parentheses (`schema`), so that they can be left out of a field's name."""

KINDS = {400: "invalid_body", 404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}


class ErrorDetail(StrictModel):
    """What went wrong."""

    type: str
    """Stable, for programs: invalid_json, invalid_request, too_large, queue_full …"""
    message: str
    """For people. It quotes nothing of the request's texts."""


class ErrorBody(StrictModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class Refusal(Exception):
    """A request is not answered.

    Args:
        status: HTTP status.
        kind: stable name of the reason.
        message: a sentence for people.
        headers: added to the answer.
    """

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, dict(headers or {})

    def response(self) -> JSONResponse:
        """The answer."""
        body = ErrorBody(error=ErrorDetail(type=self.kind, message=self.message))
        return JSONResponse(body.model_dump(), self.status, self.headers)


def install(app: FastAPI) -> None:
    """Answer every kind of failure in the one shape."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(UserError, _failed)
    app.add_exception_handler(Exception, _failed)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return error.response()


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = KINDS.get(error.status_code, "http_error")
    return Refusal(error.status_code, kind, str(error.detail), error.headers).response()


async def _failed(_: Request, error: Exception) -> JSONResponse:
    """A fault of ours: the log has its traceback, the client only its kind."""
    return Refusal(500, "internal", "The server failed on this request.").response()


async def _not_valid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    for fault in faults:
        if fault["type"] == "json_invalid":
            place = fault["loc"][-1]
            why = fault.get("ctx", {}).get("error", "it cannot be parsed")
            return Refusal(400, "invalid_json", f"The body is not JSON: {why} at character {place}.").response()
    return Refusal(422, "invalid_request", describe(faults)).response()


def describe(faults: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: each field with what is wrong with it, without its value."""
    lines = []
    for fault in faults[:SHOWN_FAULTS]:
        parts = [str(part) for part in fault["loc"][1:] if not str(part).startswith(TAG)]
        lines.append(f"{'.'.join(parts)[:200] or 'body'}: {fault['msg']}")
    if len(faults) > SHOWN_FAULTS:
        lines.append(f"and {len(faults) - SHOWN_FAULTS} more")
    return "; ".join(dict.fromkeys(lines))
