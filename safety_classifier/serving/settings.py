"""What ``safety-classifier serve`` reads."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from pydantic import Field, model_validator

from runs.config import StrictModel
from runs.errors import UsageError
from runs.paths import shown
from safety_classifier.serving.keys import KeyRing

SHORTEST_KEY = 16


class BatchSection(StrictModel):
    """How requests are put together into calls of the model."""

    window_ms: float = Field(3.0, ge=0, le=1000)
    """How long the first row waits for company while the model is idle."""
    max_rows: int = Field(32, ge=1)
    """Rows of one call."""
    max_tokens: int = Field(2048, ge=16)
    """Estimated tokens of one call; a longer text has a call of its own."""
    max_queue_rows: int = Field(512, ge=1)
    """Rows that may wait; what comes on top is answered with 429."""
    max_queue_tokens: int = Field(131_072, ge=16)
    """Estimated tokens that may wait; an empty queue takes any request within the size limits."""


class LimitSection(StrictModel):
    """The largest requests."""

    max_body_bytes: int = Field(1 << 18, ge=1024)
    """Bytes of a body (413)."""
    max_rows: int = Field(64, ge=1)
    """Texts of a request (413)."""
    max_characters: int = Field(20_000, ge=1)
    """Characters of a text, and of its context (413)."""
    body_s: float = Field(10.0, gt=0)
    """A body must have arrived by then (408)."""
    deadline_s: float = Field(10.0, gt=0)
    """A request must have its answer by then (503)."""
    keep_alive_s: int = Field(15, ge=1)
    """An idle connection is closed after that."""
    shutdown_s: int = Field(20, ge=1)
    """After SIGTERM, requests in flight have that long."""


class AuthSection(StrictModel):
    """Who may ask."""

    keys_env: str = "SAFETY_CLASSIFIER_KEYS"
    """Environment variable with the keys, separated by commas; unset: see ``keys_file``."""
    keys_file: Path | None = None
    """File with one key a line (a mounted secret, say); # starts a comment."""
    protect_metrics: bool = False
    """Whether /metrics needs a key as well."""


class ServeSettings(StrictModel):
    """The server."""

    artifact: Path | None = None
    """The classifier's folder; null is the shipped one."""
    precision: str = "auto"
    """What the model computes in: auto, int8, bfloat16 or float32."""
    host: str = "127.0.0.1"
    """Address to listen on. One that other machines reach needs keys."""
    port: int = Field(8080, ge=0, le=65535)
    """0 takes a free one."""
    warm: bool = True
    """Compile every bucket before the server calls itself ready."""
    batching: BatchSection = BatchSection()
    limits: LimitSection = LimitSection()
    auth: AuthSection = AuthSection()

    @model_validator(mode="after")
    def _a_request_fits_the_queue(self) -> ServeSettings:
        if self.limits.max_rows > self.batching.max_queue_rows:
            raise ValueError(
                "limits.max_rows is larger than batching.max_queue_rows: such a request could never be taken"
            )
        return self


def key_ring(settings: ServeSettings) -> KeyRing:
    """The keys that may ask; an empty ring lets everybody in, which only a loopback address may do.

    Raises:
        UsageError: the file is missing or empty, a key is short, or other machines could ask without a key.
    """
    auth = settings.auth
    keys = [key.strip() for key in os.environ.get(auth.keys_env, "").split(",") if key.strip()]
    if auth.keys_file is not None:
        try:
            lines = auth.keys_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The key file {shown(auth.keys_file)} cannot be read.", why=str(error)) from error
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise UsageError(f"The key file {shown(auth.keys_file)} holds no key.", mend="Write one key a line.")
        keys += found
    if any(len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise UsageError(
            f"A key is not {SHORTEST_KEY} or more printable ASCII characters without spaces.",
            mend="Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    if not keys and not is_loopback(settings.host):
        raise UsageError(
            f"{settings.host} can be reached from other machines, and there is no key.",
            mend=f"Set {auth.keys_env} or auth.keys_file, or listen on 127.0.0.1.",
        )
    return KeyRing(keys)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``. A name other than localhost is not trusted to be."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
