"""The YAML section that names a server: where it is, what it costs, and how patient to be with it."""

from __future__ import annotations

import ipaddress
import os
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from runs.config import StrictModel
from runs.errors import UsageError
from runs.identity import digest

VERSION = "1"
"""Raised when requests or the reading of replies change what an answer would be."""

Dialect = Literal["vllm", "openai", "transformers"]

OWN_FIELDS = (
    "model",
    "messages",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "repetition_penalty",
    "seed",
    "n",
    "logprobs",
    "top_logprobs",
    "generation_config",
)
"""Fields of a request's body that the engine itself sets."""


class Prices(StrictModel):
    """What tokens cost, in US dollars per million."""

    prompt: float = Field(ge=0.0)
    completion: float = Field(ge=0.0)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Retries(StrictModel):
    """What happens after an attempt that may succeed later: 429, 408, 5xx, no connection, a cut or broken reply."""

    attempts: int = Field(default=7, ge=1)
    """Attempts for one request, the first included. Seven with the default waits outlast a restart of a minute."""
    first_wait_s: float = Field(default=1.0, gt=0.0)
    """Longest wait before the second attempt, in seconds; it doubles each time."""
    longest_wait_s: float = Field(default=60.0, gt=0.0)
    """The doubling ends here, in seconds."""
    longest_retry_after_s: float = Field(default=300.0, ge=0.0)
    """A server that asks for a longer pause (Retry-After) ends the run, which a later start takes up again."""


class Timeouts(StrictModel):
    """In seconds."""

    connect_s: float = Field(default=10.0, gt=0.0)
    """For a connection."""
    read_s: float = Field(default=300.0, gt=0.0)
    """For a whole answer; in a stream, for each piece of it."""


class Server(StrictModel):
    """A model behind an OpenAI-compatible server: vLLM, ``transformers serve``, OpenRouter, Together."""

    base_url: str
    """The address up to and with ``/v1``. No key and no password in it: it is written into configs and manifests."""
    model: str
    """The model's name as the server knows it."""
    dialect: Dialect = "vllm"
    """Names of the fields beyond OpenAI's own. ``vllm``: vLLM, OpenRouter, Together. ``openai``: OpenAI itself, which
    has no repetition penalty. ``transformers``: ``transformers serve``, which has no log-probabilities."""
    served_by: str | None = None
    """Who serves it, for the run's identity: two vendors may serve one name in different precision. None: the host
    of ``base_url`` (``loopback`` on this machine), whatever its port."""
    api_key_env: str | None = None
    """The environment variable that holds the API key; None sends none."""
    licence: str = "unknown"
    """The model's licence, for the dataset card."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests in flight at most."""
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    prices: Prices | None = None
    limit_usd: float | None = Field(default=None, gt=0.0)
    """Spend no more than this on the run, in US dollars; needs ``prices``."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request (a vendor's routing, a chat template's switches); part of the identity."""

    @field_validator("base_url")
    @classmethod
    def _is_a_plain_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must hold no user, password or query; name the key's environment variable instead")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _agrees(self) -> Server:
        if self.limit_usd is not None and self.prices is None:
            raise ValueError("'limit_usd' needs 'prices': without them nothing can be counted")
        taken = sorted(set(self.extra_body) & set(OWN_FIELDS))
        if taken:
            raise ValueError(f"'extra_body' must not set {', '.join(taken)}: the engine sets it")
        return self

    @property
    def identity(self) -> dict[str, str]:
        """What could change an answer, as far as a client can know it: weights behind a name may change unseen."""
        return {
            "engine": f"openai-{VERSION}",
            "model": self.model,
            "served_by": self.served_by or _host(self.base_url),
            "dialect": self.dialect,
            "extra_body": digest(self.extra_body) if self.extra_body else "none",
        }

    def api_key(self) -> str | None:
        """The key, from the environment.

        Raises:
            UsageError: a variable is named, and it is not set.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise UsageError(
                f"The environment variable {self.api_key_env} holds no API key for {self.model}.",
                mend=f"Set it: export {self.api_key_env}=…  (keys are read from the environment only).",
            )
        return key


def _host(url: str) -> str:
    host = urlsplit(url).hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return "loopback" if here else host
