"""The hidden work folder of a run: which run it belongs to, and checkpoints that are whole or do not count.

A checkpoint becomes whole when its ``complete.json`` is written, last, with the digest of every file. One
that a kill left half written, or half removed, has none or does not match it, and is thrown away.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs.atomic import make_folder, write_text
from runs.console import Reporter, plain
from runs.errors import UserError
from runs.folder import differences
from runs.identity import file_digest

WORK = ".work"
COMPLETE = "complete.json"
RUN = "run.json"
STATE = "trainer_state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: Path
    step: int
    wall_seconds: float
    """Training time that went into it, over all the processes that worked on the run."""

    @property
    def log_history(self) -> list[dict[str, Any]]:
        """What the trainer had logged by then."""
        state = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        history: list[dict[str, Any]] = state["log_history"]
        return history


def open_work(output_dir: Path, *, run_id: str, described: dict[str, Any], resume: bool) -> Path:
    """The work folder of this run, made or found.

    Args:
        output_dir: folder of the artifact-to-be.
        run_id: identity of the run.
        described: what the identity was made of, kept so that a difference can be named.
        resume: False throws away what is there.

    Raises:
        UserError: an unfinished run with another identity is there; what differs is named. Or checkpoints of nobody
            knows which run.
    """
    work = output_dir / WORK
    if not resume and work.exists():
        shutil.rmtree(work)
    record = work / RUN
    if record.is_file():
        stored = json.loads(record.read_text(encoding="utf-8"))
        if stored["run_id"] != run_id:
            raise UserError(
                f"{output_dir} holds an unfinished run with other settings.",
                why=f"They differ in {'; '.join(differences(stored['described'], described))}.",
                mend="Restore those settings to go on with it, choose another --output-dir, "
                "or start afresh with --no-resume (its checkpoints are removed).",
            )
    elif next(work.glob("checkpoint-*"), None) is not None:
        raise UserError(
            f"{work} has checkpoints, and no {RUN} that says of which run.",
            mend="Choose another --output-dir, or start afresh with --no-resume (the checkpoints are removed).",
        )
    make_folder(work)
    write_text(record, json.dumps({"run_id": run_id, "described": described}, indent=2, ensure_ascii=False) + "\n")
    return work


def mark_complete(folder: Path, wall_seconds: float) -> None:
    """Declare a checkpoint whole. Call it after everything else is written."""
    files = {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != COMPLETE}
    write_text(folder / COMPLETE, json.dumps({"wall_seconds": round(wall_seconds, 3), "files": files}, indent=2) + "\n")


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``, or None if it is not whole."""
    step = re.fullmatch(r"checkpoint-(\d+)", folder.name)
    try:
        record = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        whole = all(file_digest(folder / name) == expected for name, expected in record["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return Checkpoint(folder, int(step.group(1)), record["wall_seconds"]) if step and whole else None


def latest(work: Path, reporter: Reporter) -> Checkpoint | None:
    """The newest whole checkpoint; those that are not whole are removed."""
    found = []
    for folder in work.glob("checkpoint-*"):
        checkpoint = read_checkpoint(folder)
        if checkpoint is None:
            reporter.warn(f"{plain(folder.name)} is incomplete (the run was killed while saving it); it is skipped.")
            shutil.rmtree(folder)
        else:
            found.append(checkpoint)
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def prune(work: Path, *, newest: int, also: Collection[int] = ()) -> None:
    """Remove all checkpoints but the ``newest`` last ones and those of the steps in ``also``."""
    steps = sorted(int(folder.name.split("-")[1]) for folder in work.glob("checkpoint-*"))
    for step in steps[:-newest]:
        if step not in also:
            shutil.rmtree(work / f"checkpoint-{step}")


def clear(work: Path) -> None:
    """Remove what only an unfinished run needs; a tracker's own files stay."""
    for folder in work.glob("checkpoint-*"):
        shutil.rmtree(folder)
    for path in work.iterdir():
        if path.is_file():
            path.unlink()
    if not any(work.iterdir()):
        work.rmdir()
