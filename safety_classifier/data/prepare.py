"""From declared sources to one table of rows: read, merge copies, split, weigh, write, and check.

The result is cached by its identity: the same config over the same inputs is read back, not built again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from runs import atomic
from runs.config import StrictModel
from runs.console import Reporter
from runs.errors import UsageError, UserError, unknown_name
from runs.identity import canonical_json, digest, file_digest, files_digest
from runs.paths import CONFIGS
from safety_classifier.data.assemble import merged_table, read_sources
from safety_classifier.data.dedup import digests
from safety_classifier.data.files import source_digest
from safety_classifier.data.manifest import (
    Manifest,
    balanced_weights,
    class_balance,
    head_counts,
    source_entries,
    split_counts,
)
from safety_classifier.data.sources import Source, load_sources
from safety_classifier.data.splits import SHARES, assign, check_no_leak, connected
from safety_classifier.labels import LABELS

if TYPE_CHECKING:
    import pandas

COLUMNS = ("text", "context", "source", "group", "split", "weight", "pair", *LABELS.names)

AFTER_ROWS = ("augment.py", "batches.py", "pipeline.py")
"""Modules that read prepared rows: a change there is no reason to prepare again."""


class DataConfig(StrictModel):
    """Which data to train on."""

    sources: Path = CONFIGS / "safety_classifier" / "sources.yaml"
    """The register of sources."""
    include_unlicensed: bool = False
    """Use sources whose licence is unknown or forbids commercial use; the weights are then for experiments only."""
    exclude: tuple[str, ...] = ()
    """Names of sources to leave out."""
    max_rows: int | None = Field(default=None, gt=0)
    """At most so many records of each source, drawn by hash; for quick runs."""
    seed: int = 0
    """Draws the samples, the splits and the synthetic rows."""


@dataclass(frozen=True)
class Prepared:
    """A prepared data set in its folder."""

    folder: Path
    manifest: Manifest

    @property
    def rows_file(self) -> Path:
        """The table of rows."""
        return self.folder / "rows.parquet"

    def frame(self, split: str | None = None) -> pandas.DataFrame:
        """The rows, or those of one split, in file order; head columns are float32 with NaN where unknown.

        Raises:
            UsageError: there is no such split.
        """
        import pandas

        if split is not None and split not in SHARES:
            raise unknown_name("split", split, SHARES)
        frame = pandas.read_parquet(self.rows_file)
        return frame if split is None else frame[frame["split"] == split].reset_index(drop=True)


def prepare(config: DataConfig, folder: Path, *, reporter: Reporter | None = None) -> Prepared:
    """Build the data set below ``folder``, or find it there.

    Returns:
        The data set, in a subfolder named after its identity: ``rows.parquet`` and ``manifest.json``.

    Raises:
        UsageError: the sources file or the config names something that does not exist.
        UserError: a source is missing or damaged, or the disk refuses.
    """
    reporter = reporter or Reporter(quiet=True)
    sources = chosen_sources(config)
    inputs = {source.name: source_digest(source) for source in sources}
    identity = _identity(config, inputs)
    target = folder / identity[:16]
    if not target.is_dir():
        frame, manifest = _build(config, sources, inputs, identity, reporter)
        with atomic.folder(target) as building:
            frame.to_parquet(building / "rows.parquet", index=False, compression="zstd")  # NaN is written as null
            atomic.write_text(building / "manifest.json", canonical_json(manifest) + "\n")
    return open_prepared(target)


def open_prepared(folder: Path) -> Prepared:
    """A data set that `prepare` wrote.

    Raises:
        UserError: it is not one.
    """
    path = folder / "manifest.json"
    try:
        return Prepared(folder, Manifest.model_validate_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not the manifest of prepared data.", why=str(error), mend="Delete the folder and prepare again."
        ) from error


def chosen_sources(config: DataConfig) -> tuple[Source, ...]:
    """The sources that the config asks for, in order.

    Raises:
        UsageError: ``exclude`` names a source that is not declared, or nothing is left.
    """
    declared = load_sources(config.sources)
    for name in config.exclude:
        if name not in {source.name for source in declared}:
            raise unknown_name("source", name, [source.name for source in declared])
    licensed = [source for source in declared if source.ships or config.include_unlicensed]
    chosen = tuple(source for source in licensed if source.name not in config.exclude)
    if not chosen:
        raise UsageError("No data source is left.", mend="Exclude fewer, or set include_unlicensed for experiments.")
    return chosen


def _identity(config: DataConfig, inputs: dict[str, str]) -> str:
    package = Path(__file__).resolve().parents[1]
    code = [path for path in (package / "data").glob("*.py") if path.name not in AFTER_ROWS]
    code += [package / name for name in ("normalise.py", "leet.py", "words.txt", "labels.py")]
    settings = config.model_dump(mode="json", exclude={"sources"})
    return digest([settings, file_digest(config.sources), inputs, files_digest(code, package)])


def _build(
    config: DataConfig, sources: tuple[Source, ...], inputs: dict[str, str], identity: str, reporter: Reporter
) -> tuple[pandas.DataFrame, Manifest]:
    items, faults = read_sources(sources, seed=config.seed, max_rows=config.max_rows, reporter=reporter)
    with reporter.progress("merging and splitting", total=4) as advance:
        table = merged_table(items, sources, faults, advance)
        frame = table.frame
        if frame.empty:
            raise UserError("No rows are left after reading the sources.")
        together = connected(frame, table.edges)
        # Of the raw texts, so that a change of the normaliser does not move rows between splits.
        keys = digests([f"{c}\0{t}" for c, t in zip(frame["context"], frame["text"], strict=True)])
        frame["split"] = assign(together, keys, frame["test_row"].to_numpy(bool), config.seed)
        advance(note="splits")
        balance = class_balance(frame[frame["split"] == "train"])
        frame["weight"] = balanced_weights(frame, balance)
        check_no_leak(frame)
        frame = frame[list(COLUMNS)]
        advance(note="checked")
    builtin = frame["source"].isin([source.name for source in sources if source.builtin])
    manifest = Manifest(
        identity=identity,
        rows=len(frame),
        splits=split_counts(frame),
        heads={split: head_counts(frame[frame["split"] == split]) for split in SHARES},
        synthetic=split_counts(frame[builtin]),
        conflicts=table.conflicts,
        near_conflicts=table.near_conflicts,
        largest_component=int(np.bincount(together).max()),
        balance=balance,
        sources=source_entries(frame, sources, inputs, faults),
    )
    return frame, manifest
