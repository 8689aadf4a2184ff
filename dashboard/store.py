"""What the dashboard shows, read from disk: the runs under one folder, and the artifacts. No user interface here.

The store only reads. A name that comes from a browser is looked up among the runs that the store itself found, so that
no path can lead out of the results root.
"""

from __future__ import annotations

import gc
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from runs.errors import IntegrityError, UsageError, UserError
from runs.folder import IDENTITY
from runs.identity import file_digest
from runs.manifest import NAME as MANIFEST
from runs.manifest import Manifest
from runs.paths import ARTIFACTS, shown

if TYPE_CHECKING:
    from evaluation.report.data import RunData

State = Literal["finished", "unfinished", "broken"]
RESULTS = Path("results")
"""Where runs are looked for unless told otherwise."""
KIND = "evaluation"
"""What a manifest calls the runs that are shown."""
LAST = "last"
"""The name of the newest finished run."""
MAKE_ONE = "uv run evaluate --models base stage2 stage3"
"""The command that makes a run."""
DEPTH = 3
"""Folders below the root that are searched for runs."""
CACHED = 3
"""Runs that are kept in memory."""
LARGEST = 1 << 28
"""Bytes of samples that a run may have and still be opened: beyond, the page would not answer."""
_SHORTEST_ID = 4
_CHECKED = ("samples.jsonl", "results.json", "statistics.json")
"""Files of a run that the dashboard shows, and whose bytes it therefore checks."""


@dataclass(frozen=True)
class RunEntry:
    """A run as the list shows it; its samples are not read yet."""

    name: str
    """Its folder below the root, with slashes: the run's name in menus and links."""
    folder: Path
    state: State
    run_id: str = ""
    family: str = ""
    models: tuple[str, ...] = ()
    prompts: int = 0
    created: str = ""
    """UTC, ISO 8601; empty unless finished."""
    limited: bool = False
    """Whether the run was cut short."""
    why: str = ""
    """Why it cannot be shown, unless it is finished."""
    mend: str = ""
    """What to do about it."""

    @property
    def label(self) -> str:
        """For menus: name, date, and what is wrong with it."""
        parts = [self.name, *([self.created[:10]] if self.created else [])]
        return " · ".join(parts + ([] if self.state == "finished" else [self.state]))


class Store:
    """The runs under ``root``, and what training left under ``artifacts``.

    Args:
        root: the results folder; it need not exist yet.
        names: only these runs (folders, beginnings of run ids, or ``last``), in this order; empty: all of them.
        artifacts: folder of adapters, pairs and the report card.
        cached: runs that are kept in memory; the one not used for longest is dropped first.

    Raises:
        UsageError: a name means no run, more than one, or a folder outside of the root.
    """

    def __init__(
        self,
        root: Path = RESULTS,
        *,
        names: Sequence[str] = (),
        artifacts: Path = ARTIFACTS,
        cached: int = CACHED,
    ) -> None:
        self.root, self.artifacts = root.resolve(), artifacts.resolve()
        self._cached = cached
        self._loaded: OrderedDict[str, tuple[tuple[int, int], RunData]] = OrderedDict()
        self._lock = Lock()
        self._entries: dict[Path, tuple[tuple[int, int], RunEntry | None]] = {}
        self._only: tuple[str, ...] | None = None
        if names:
            self._only = tuple(dict.fromkeys(self._named(name) for name in names))

    @property
    def annotations(self) -> Path:
        """Where votes and rankings of people are appended; beside the runs, never inside one."""
        return self.root / "annotations"

    @property
    def runs(self) -> tuple[RunEntry, ...]:
        """Every run, as the disk is now: in the order asked for, else finished ones first, newest first."""
        found = {entry.name: entry for entry in map(self._entry, self._folders()) if entry is not None}
        if self._only is not None:
            return tuple(found[name] for name in self._only if name in found)
        newest = sorted(found.values(), key=lambda entry: (entry.created, entry.name), reverse=True)
        return tuple(sorted(newest, key=lambda entry: entry.state != "finished"))

    @property
    def finished(self) -> tuple[RunEntry, ...]:
        """The runs that can be shown."""
        return tuple(entry for entry in self.runs if entry.state == "finished")

    def entry(self, name: str) -> RunEntry:
        """The run called ``name``, whatever its state.

        Raises:
            UsageError: there is none under the root.
        """
        entry = next((one for one in self.runs if one.name == name), None)  # looked up, never joined to a path
        if entry is None:
            raise UsageError(
                f"There is no run '{name[:80]}' under {shown(self.root)}.",
                mend="Choose one from the list, or make one: " + MAKE_ONE,
            )
        return entry

    def load(self, name: str) -> RunData:
        """A finished run; from memory while its manifest is the same file.

        Raises:
            UsageError: there is no such run.
            UserError: it is unfinished, or too large.
            IntegrityError: it is damaged.
        """
        from evaluation.report.data import load_run

        entry = self.entry(name)
        if entry.state == "broken":
            raise IntegrityError(f"The run '{name}' is damaged.", why=entry.why, mend=entry.mend)
        if entry.state == "unfinished":
            raise UserError(f"The run '{name}' is not finished.", why=entry.why, mend=entry.mend)
        version = _version(entry.folder) or (0, 0)
        with self._lock:  # many users opening one run read it once
            held = self._loaded.get(name)
            if held is None or held[0] != version:
                _check(entry.folder)
                held = (version, load_run(entry.folder))
                self._loaded[name] = held
                gc.freeze()  # a million objects without cycles: a search through them held a reader up for 0.4 s
            self._loaded.move_to_end(name)
            while len(self._loaded) > self._cached:
                self._loaded.popitem(last=False)
        return held[1]

    def warm(self) -> None:
        """Read the first finished run, so that whoever opens the page first need not wait; a bad one is left alone."""
        for entry in self.finished[:1]:
            with suppress(UserError):
                self.load(entry.name)

    def inside(self, path: Path) -> bool:
        """Whether ``path``, with links followed, lies under the results root or the artifacts."""
        resolved = path.resolve()
        return resolved.is_relative_to(self.root) or resolved.is_relative_to(self.artifacts)

    def _folders(self) -> list[Path]:
        return list(folders_with((MANIFEST, IDENTITY), self.root, depth=DEPTH)) if self.root.is_dir() else []

    def _entry(self, folder: Path) -> RunEntry | None:
        """The entry of a folder; a manifest that is the same file is not read again."""
        name = folder.relative_to(self.root).as_posix()
        version = _version(folder)
        if version is None:
            return read_entry(folder, name)
        if (held := self._entries.get(folder)) is None or held[0] != version:
            held = self._entries[folder] = (version, read_entry(folder, name))
        return held[1]

    def _named(self, reference: str) -> str:
        """The name of the run that a command line means."""
        folder = Path(reference)
        if folder.is_dir():
            resolved = folder.resolve()
            if not resolved.is_relative_to(self.root) or resolved == self.root:
                raise UsageError(
                    f"{shown(folder)} is not a run below {shown(self.root)}.",
                    why="The dashboard shows the runs of one results folder.",
                    mend=f"Name that folder: --results {shown(resolved.parent)}",
                )
            return self.entry(resolved.relative_to(self.root).as_posix()).name
        entries = self.runs
        if reference == LAST:
            entries = self.finished[:1]
        else:
            entries = tuple(entry for entry in entries if _means(reference, entry))
        if len(entries) == 1:
            return entries[0].name
        why = f"It fits {len(entries)} runs." if entries else ""
        known = ", ".join(entry.name for entry in self.runs) or "none"
        raise UsageError(f"'{reference}' does not name one run.", why=why, mend=f"There are: {known}; or '{LAST}'.")


def _means(reference: str, entry: RunEntry) -> bool:
    by_name = reference in (entry.name, entry.folder.name)
    return by_name or (len(reference) >= _SHORTEST_ID and entry.run_id.startswith(reference))


def folders_with(names: Sequence[str], root: Path, *, depth: int) -> Iterator[Path]:
    """Folders below ``root`` that hold a file of one of ``names``; links out and hidden folders are not followed.

    A folder that holds one is not searched further.
    """
    try:
        with os.scandir(root) as found:
            children = sorted(
                Path(child.path)
                for child in found
                if child.is_dir(follow_symlinks=False) and not child.name.startswith(".")
            )
    except OSError:
        return  # removed, or not ours to read: nothing to show
    for child in children:
        if any((child / name).is_file() for name in names):
            yield child
        elif depth > 1:
            yield from folders_with(names, child, depth=depth - 1)


def _version(folder: Path) -> tuple[int, int] | None:
    """When the manifest was written, and its size; None where there is none."""
    try:
        stat = (folder / MANIFEST).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def read_entry(folder: Path, name: str) -> RunEntry | None:
    """What the manifest of ``folder`` says; without one, how far the run is. None: it is no evaluation."""
    if not (folder / MANIFEST).is_file():
        return _unfinished(folder, name)
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (ValidationError, OSError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        mend = f"Restore it, or make the run again: {MAKE_ONE}"
        return RunEntry(name, folder, "broken", why=f"{MANIFEST}: {why}", mend=mend)
    if manifest.kind != KIND:
        return None
    config = manifest.config
    prompts = manifest.counts.get("prompts", 0)
    return RunEntry(
        name,
        folder,
        "finished",
        run_id=manifest.run_id,
        family=str(config.get("family", "")),
        models=tuple(map(str, config.get("models", ()))),
        prompts=prompts if isinstance(prompts, int) else 0,
        created=manifest.created,
        limited=config.get("limit") is not None,
    )


def _unfinished(folder: Path, name: str) -> RunEntry | None:
    held = _read_json(folder / IDENTITY)
    identity = held.get("identity")
    models = identity.get("models") if isinstance(identity, dict) else None
    if not isinstance(models, dict):
        return None  # a training, or a recipe
    log = folder / ".work" / "answers.jsonl"
    answers = log.read_bytes().count(b"\n") if log.is_file() else 0
    return RunEntry(
        name,
        folder,
        "unfinished",
        run_id=str(held.get("run_id", "")),
        models=tuple(map(str, models)),
        why=f"It is being written, or was stopped: {answers:,} answers so far.",
        mend="Reload when it is done. If it was stopped, run the command that began it: it goes on where it stopped.",
    )


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where it cannot be read, as while it is being written."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _check(folder: Path) -> None:
    """Refuse a run whose shown files are not those of its manifest, or are too large to open."""
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    for name in _CHECKED:
        path, promised = folder / name, manifest.files.get(name)
        if promised is None:
            continue
        if path.is_symlink():
            raise IntegrityError(f"{shown(path)} is a link.", why="Files of a run lie in its folder.", mend="Copy it.")
        size = path.stat().st_size if path.is_file() else -1
        if size > LARGEST:
            raise UserError(
                f"{shown(path)} is too large to be shown.",
                why=f"It has {size:,} bytes; the dashboard opens up to {LARGEST:,}.",
                mend="Read it with `uv run evaluate report`, or show a run over fewer prompts.",
            )
        if size != promised.size or file_digest(path) != promised.sha256:
            raise IntegrityError(
                f"{shown(path)} does not match {MANIFEST}.",
                why="It is missing." if size < 0 else "It was changed or cut off after the run.",
                mend=f"Restore it, or make the run again: {manifest.command}",
            )
