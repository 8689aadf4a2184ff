"""Datasets as rows, from the hub or from a local file: the same source works in both places."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import model_validator

from runs.config import StrictModel
from runs.errors import DataError, UserError
from runs.identity import file_digest
from runs.paths import data_root

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")


class Source(StrictModel):
    """A table of rows. With both ``hub`` and ``path``, the file is read when a data root is set, else the hub."""

    hub: str | None = None
    """A hub dataset id."""
    data_dir: str | None = None
    """The folder inside the hub dataset."""
    split: str = "train"
    """The hub dataset's split."""
    revision: str = "main"
    """Branch, tag or commit of the hub dataset."""
    path: str | None = None
    """A file: below the data root (``--data-root`` or ``$CAI_DATA``), else relative to the current folder."""
    licence: str = "unknown"
    """Recorded in the model or dataset card."""

    @model_validator(mode="after")
    def _somewhere(self) -> Source:
        if self.hub is None and self.path is None:
            raise ValueError("name a 'hub' dataset, a 'path', or both")
        return self

    @property
    def name(self) -> str:
        """What a card or a message calls it."""
        if self.hub is None:
            return str(self.path)
        return f"{self.hub}/{self.data_dir}" if self.data_dir else self.hub


def local_file(source: Source) -> Path | None:
    """The file to read, or None when the hub is to be asked.

    Raises:
        UserError: a file is named and missing, and there is no hub id to fall back on.
    """
    if source.path is None:
        return None
    root = data_root()
    candidates = [root / source.path] if root is not None else []
    candidates.append(Path(source.path))
    for path in candidates:
        if path.is_file():
            return path
    if source.hub is not None and root is None:
        return None
    raise UserError(
        f"There is no data file {candidates[0]}.",
        mend="Point --data-root (or CAI_DATA) at the folder that holds it."
        + (" Leave --data-root out to read it from the hub." if source.hub else ""),
    )


def read_rows(source: Source) -> Iterator[dict[str, Any]]:
    """The rows in the source's own order.

    Raises:
        UserError: the file or the dataset is missing or unreadable; a broken line is named by its number.
    """
    path = local_file(source)
    if path is None:
        yield from _hub_rows(source)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path)
    elif path.suffix == ".json":
        yield from _json_rows(path)
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as handle:
            yield from csv.DictReader(handle)
    elif path.suffix == ".parquet":
        import pandas

        for row in pandas.read_parquet(path).to_dict(orient="records"):
            yield {str(name): value for name, value in row.items()}
    else:
        raise DataError(f"{path} is not a data file that can be read.", mend=f"Known: {', '.join(SUFFIXES)}.")


def source_digest(source: Source) -> str:
    """What was read: the file's sha256, or the hub dataset's id and commit."""
    path = local_file(source)
    if path is not None:
        return f"sha256:{file_digest(path)}"
    from huggingface_hub import dataset_info

    assert source.hub is not None
    return f"{source.hub}@{dataset_info(source.hub, revision=source.revision).sha}"


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise DataError(f"{path}, line {number}: not JSON in UTF-8.", why=str(error)) from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: expected an object of columns.")
            yield row


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """A list of rows as it is; an object's entries as rows with the columns ``key`` and ``value``."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON in UTF-8.", why=str(error)) from error
    rows = [{"key": key, "value": value} for key, value in found.items()] if isinstance(found, dict) else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a list of objects, or one object of rows.")
    yield from rows


def _hub_rows(source: Source) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    assert source.hub is not None
    try:
        rows = load_dataset(source.hub, data_dir=source.data_dir, split=source.split, revision=source.revision)
    except (DatasetNotFoundError, ConnectionError, OSError) as error:
        raise UserError(
            f"The dataset {source.name} could not be read from the hub.",
            why=str(error).split("\n", 1)[0],
            mend="Check the connection, or download it and point --data-root (or CAI_DATA) at the folder.",
        ) from error
    for row in rows:
        yield dict(row)
