"""Content digests: what could change a result has a name, and that name is its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN, so that equal values give equal bytes."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def text_digest(text: str) -> str:
    """sha256 (hex) of ``text`` as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def files_digest(paths: Iterable[Path], root: Path) -> str:
    """One digest over several files: their names below ``root`` and their bytes, in name order."""
    entries = sorted((path.relative_to(root).as_posix(), file_digest(path)) for path in paths)
    return digest(entries)


def row_seed(seed: int, *parts: str | int) -> int:
    """A 63-bit seed for one row, so that neither batch, nor order, nor restart changes it."""
    return int(digest([seed, *parts])[:16], 16) >> 1
