"""Where things live: the project's own files, the user's cache, and result folders."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
"""The checkout (or the installed tree) that holds configs/ and artifacts/."""

CONFIGS = PROJECT_ROOT / "configs"
ARTIFACTS = PROJECT_ROOT / "artifacts"


def cache_dir() -> Path:
    """The user's cache for this project: ``$CAI_CACHE``, else ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    override = os.environ.get("CAI_CACHE")
    if override:
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "constitutional-ai"


def data_root() -> Path | None:
    """A local folder that mirrors hub datasets (``$CAI_DATA``); None means: use the hub."""
    value = os.environ.get("CAI_DATA")
    return Path(value) if value else None


def shown(path: Path) -> str:
    """``path`` for people: relative to the current folder when that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
