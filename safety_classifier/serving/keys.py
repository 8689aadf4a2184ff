"""Authentication by key, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence


class KeyRing:
    """The keys that may ask. Only their digests are kept, so that no dump or traceback shows one."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admits(self, header: str | None) -> bool:
        """Whether ``Authorization: Bearer KEY`` carries one of the keys; without keys, everybody is let in.

        Every key is compared, and digests are of one length: the time taken tells nothing of the keys.
        """
        if not self._digests:
            return True
        scheme, _, key = (header or "").partition(" ")
        given = _digest(key.strip())
        found = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(found)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
