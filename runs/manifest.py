"""The manifest of an artifact: written last, so its presence means that the artifact is whole."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from runs.atomic import write_text
from runs.environment import git_state, hardware, package_versions, peak_memory_gib
from runs.errors import IntegrityError
from runs.identity import file_digest

NAME = "manifest.json"


class FileEntry(BaseModel):
    """One file of the artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    """Digest of the file's bytes."""
    size: int
    """Length in bytes."""


class Manifest(BaseModel):
    """What an artifact is made of, and how it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    kind: str
    """``adapter``, ``pairs``, ``evaluation``, ``model`` …"""
    run_id: str
    """Digest of everything that could change the result."""
    command: str
    """The command that makes it again."""
    config: dict[str, Any]
    """The resolved config."""
    inputs: dict[str, Any]
    """What was read: name to sha256 (or to a folder's or model's digest)."""
    seeds: dict[str, int]
    counts: dict[str, Any]
    """Rows, tokens, accepted and rejected by reason."""
    metrics: dict[str, Any]
    """What was measured while it was made."""
    files: dict[str, FileEntry]
    """Every file of the artifact but this one."""
    wall_seconds: float
    peak_memory_gib: float
    created: str
    """UTC, ISO 8601."""
    packages: dict[str, str]
    git: dict[str, Any]
    hardware: dict[str, Any]


def artifact_files(folder: Path) -> list[Path]:
    """The files that belong to an artifact: everything in it but the manifest and hidden names."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != NAME
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def write_manifest(
    folder: Path,
    *,
    kind: str,
    run_id: str,
    command: str,
    config: dict[str, Any],
    inputs: dict[str, Any],
    seeds: dict[str, int],
    counts: dict[str, Any],
    metrics: dict[str, Any],
    wall_seconds: float,
    files: list[Path] | None = None,
) -> Manifest:
    """Record ``folder`` as finished. Call it last. ``files`` limits what counts as the artifact."""
    listed = artifact_files(folder) if files is None else files
    manifest = Manifest(
        kind=kind,
        run_id=run_id,
        command=command,
        config=config,
        inputs=inputs,
        seeds=seeds,
        counts=counts,
        metrics=metrics,
        files={
            path.relative_to(folder).as_posix(): FileEntry(sha256=file_digest(path), size=path.stat().st_size)
            for path in listed
        },
        wall_seconds=round(wall_seconds, 1),
        peak_memory_gib=peak_memory_gib(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        packages=package_versions(),
        git=git_state(),
        hardware=hardware(),
    )
    write_text(folder / NAME, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def read_manifest(folder: Path, *, rebuild: str) -> Manifest:
    """Read a manifest without checking the files.

    Args:
        rebuild: the command that makes the artifact, named in the error.

    Raises:
        IntegrityError: there is none, or it is not one.
    """
    path = folder / NAME
    mend = f"Rebuild it: {rebuild}"
    if not path.is_file():
        raise IntegrityError(f"{folder} has no {NAME}.", why="It is unfinished or not an artifact.", mend=mend)
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise IntegrityError(
            f"{path} is not a valid manifest.", why=str(error.errors()[0]["msg"]), mend=mend
        ) from error


def verify(folder: Path, *, rebuild: str) -> Manifest:
    """Check that every file listed in the manifest has the bytes it had when it was written.

    Raises:
        IntegrityError: a file is missing, truncated or changed; it is named.
    """
    manifest = read_manifest(folder, rebuild=rebuild)
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            why = "It is missing."
        elif path.stat().st_size != entry.size:
            why = f"It has {path.stat().st_size} bytes; the manifest says {entry.size}."
        elif file_digest(path) != entry.sha256:
            why = f"Its sha256 is not the manifest's {entry.sha256[:12]}…"
        else:
            continue
        raise IntegrityError(f"{path} does not match {NAME}.", why=why, mend=f"Restore it, or rebuild: {rebuild}")
    return manifest
