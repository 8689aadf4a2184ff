"""`critique-revision merge`: the shards of a run become the run that one machine would have made, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from critique_revision import folder as folders
from critique_revision.generate import token_counts
from critique_revision.recipes import stage_names
from runs.errors import UsageError, UserError
from runs.folder import IDENTITY, differences
from runs.job import parse_shard
from runs.manifest import NAME as MANIFEST
from runs.manifest import Manifest, read_manifest, verify, write_manifest
from runs.paths import shown


@dataclass(frozen=True)
class Part:
    """A finished shard."""

    folder: Path
    shard: str
    whole: dict[str, Any]
    """The identity of the whole run."""
    manifest: Manifest


def find_parts(named: Sequence[Path]) -> list[Part]:
    """The shards in ``named``, in their order; a folder that holds shards stands for them.

    Raises:
        UserError: a shard is not finished, a folder is none, two are of different runs, or one is missing or there
            twice.
        IntegrityError: a shard's bytes are not what its manifest promises.
    """
    found = []
    for folder in named:
        inside = [folder] if (folder / IDENTITY).is_file() else sorted(p.parent for p in folder.glob(f"*/{IDENTITY}"))
        if not inside:
            raise UsageError(f"{shown(folder)} holds no shards.", mend="Name the folders that --shard made.")
        found += [_read(path) for path in inside]
    first = found[0]
    for part in found[1:]:
        unlike = differences(first.whole, part.whole)
        if unlike:
            raise UsageError(
                f"{shown(part.folder)} is not a shard of the same run as {shown(first.folder)}.",
                why=f"They differ in {'; '.join(unlike)}.",
            )
    count = parse_shard(first.shard).count
    wanted = [f"{index}/{count}" for index in range(count)]
    shards = [part.shard for part in found]
    missing = [shard for shard in wanted if shard not in shards]
    if missing or sorted(shards) != sorted(wanted):
        twice = sorted({shard for shard in shards if shards.count(shard) > 1})
        raise UserError(
            "The shards do not make one run.",
            why=f"Missing: {', '.join(missing)}." if missing else f"Not of one division, or twice: {', '.join(twice)}.",
            mend="Run the missing ones: the same generate command with --shard INDEX/COUNT.",
        )
    return sorted(found, key=lambda part: parse_shard(part.shard).index)


def _read(folder: Path) -> Part:
    identity = json.loads((folder / IDENTITY).read_bytes())["identity"]
    if "shard" not in identity:
        raise UsageError(f"{shown(folder)} is a whole run, not a shard.")
    shard = str(identity.pop("shard"))
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"The shard in {shown(folder)} is not finished.",
            mend=f"Run its generate command again (--shard {shard}); it goes on from where it was.",
        )
    rebuild = read_manifest(folder, rebuild="uv run critique-revision generate").command
    return Part(folder, shard, identity, verify(folder, rebuild=rebuild))


def merge(parts: Sequence[Part], target: Path, *, command: str) -> Manifest:
    """Write the whole run into ``target``. The caller holds the folder's lock.

    Raises:
        UserError: the folder holds another run.
    """
    setup = folders.read_setup(parts[0].folder)
    run_id = folders.claim(target, parts[0].whole, setup)
    if (target / MANIFEST).is_file():
        return verify(target, rebuild=command)
    names = stage_names(setup.config)
    for name in names:
        folders.write_stage(target / name, [part.folder / name for part in parts], setup)
    manifests = [part.manifest for part in parts]
    return write_manifest(
        target,
        kind=setup.config.recipe,
        run_id=run_id,
        command=command,
        config=setup.config.model_dump(mode="json"),
        inputs=manifests[0].inputs,
        seeds=manifests[0].seeds,
        counts={"prompts": manifests[0].counts["prompts"], **token_counts(target, setup.config)},
        metrics={"shards": {part.shard: {"wall_seconds": part.manifest.wall_seconds} for part in parts}},
        wall_seconds=max(manifest.wall_seconds for manifest in manifests),
        files=[target / name for name in (IDENTITY, *folders.SETUP, *names)],
    )
