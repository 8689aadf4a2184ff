"""Whose folder it is: a run claims its folder by its identity, and a folder of another run is refused."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from runs.atomic import write_text
from runs.errors import UsageError
from runs.identity import digest
from runs.paths import shown

IDENTITY = "run.json"
"""The file that says whose a run folder is: ``{"run_id": …, "identity": {…}}``."""


def claim(folder: Path, identity: dict[str, Any], beside: Collection[str] = ()) -> str:
    """Make ``folder`` the run's own, or check that it is; returns the run id, the digest of ``identity``.

    Args:
        identity: everything that could change the run's result.
        beside: names in the folder that may be there before the run is.

    Raises:
        UsageError: the folder holds another run (what differs is named), or files that are no run's.
    """
    path, run_id = folder / IDENTITY, digest(identity)
    if path.is_file():
        held = json.loads(path.read_bytes())
        if held["run_id"] != run_id:
            raise UsageError(
                f"{shown(folder)} holds another run.",
                why="They differ in " + "; ".join(differences(held["identity"], identity)) + ".",
                mend="Choose another folder with --output-dir, or replace this run with --no-resume.",
            )
        return run_id
    names = (entry.name for entry in folder.iterdir())
    strangers = sorted(name for name in names if not name.startswith(".") and name not in beside)
    if strangers:
        raise UsageError(
            f"{shown(folder)} is not empty, and is not a run folder.",
            why=f"It holds {', '.join(strangers[:3])}{' …' if len(strangers) > 3 else ''}.",
            mend="Choose another folder with --output-dir.",
        )
    write_text(path, json.dumps({"run_id": run_id, "identity": identity}, indent=2, ensure_ascii=False) + "\n")
    return run_id


def differences(held: Any, wanted: Any, dotted: str = "") -> list[str]:
    """The dotted keys in which two identities differ, each with both values, shortened."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        keys = dict.fromkeys((*held, *wanted))
        deeper = (
            differences(held.get(key, "nothing"), wanted.get(key, "nothing"), f"{dotted}.{key}".lstrip("."))
            for key in keys
        )
        return [line for lines in deeper for line in lines]
    return [] if held == wanted else [f"{dotted} ({_brief(held)} there, {_brief(wanted)} now)"]


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
