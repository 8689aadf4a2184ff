"""Raw rows from local files or the hub; a broken row is a fault with its place, not the end of the read."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from runs.errors import UserError
from runs.identity import digest, file_digest, files_digest
from runs.paths import data_root
from safety_classifier.data.sources import Source

RawRow = dict[str, Any]

csv.field_size_limit(1 << 24)  # forum posts exceed the default of 128 KiB


@dataclass(frozen=True)
class Fault:
    """Why a row could not be read."""

    why: str


def local_files(source: Source) -> list[Path]:
    """The files to read, in name order within each pattern; empty when the hub is to be asked.

    Raises:
        UserError: nothing is found and there is no hub id to fall back on.
    """
    root = data_root()
    if not source.path or (root is None and source.hub is not None):
        return []
    base = root if root is not None else Path()
    found: list[Path] = []
    for pattern in source.path:
        # An absolute path is the user's own file: glob() accepts only relative patterns.
        matches = [Path(pattern)] if Path(pattern).is_absolute() else sorted(base.glob(pattern))
        matches = [path for path in matches if path.is_file()]
        if not matches:
            raise UserError(
                f"Source '{source.name}': there is no file {base / pattern}.",
                mend="Point CAI_DATA at the folder that holds it, or leave the source out with 'exclude'.",
            )
        found += matches
    return found


def source_digest(source: Source) -> str:
    """What would be read: the digest of the files' bytes, or the hub dataset's id and commit.

    Raises:
        UserError: files are missing, or the hub cannot be reached.
    """
    if source.builtin is not None:
        return _builtin_digest(source.builtin)
    paths = local_files(source)
    if paths:
        return f"sha256:{digest([(path.name, file_digest(path)) for path in paths])}"
    from httpx2 import TransportError  # the hub's library lets its HTTP client's own errors through
    from huggingface_hub import dataset_info
    from huggingface_hub.errors import HfHubHTTPError

    assert source.hub is not None
    try:
        return f"{source.hub}@{dataset_info(source.hub, revision=source.revision).sha}"
    except (HfHubHTTPError, TransportError, OSError) as error:
        raise _hub_error(source, error) from error


def raw_rows(source: Source) -> Iterator[tuple[str, RawRow | Fault]]:
    """Every row of ``source`` with its place (file and row number, from 1), in the source's own order.

    Raises:
        UserError: a file or dataset is missing or is not what ``format`` says.
    """
    paths = local_files(source)
    if not paths:
        for number, hub_row in enumerate(_hub_rows(source), start=1):
            yield f"{source.hub}, row {number}", hub_row
    for path in paths:
        try:
            for number, row in enumerate(_file_rows(path, source), start=1):
                yield f"{path.name}, row {number}", row
        except (OSError, EOFError, ValueError, csv.Error) as error:
            what = f"Source '{source.name}': {path} is not readable as {source.format}."
            raise UserError(what, why=str(error)) from error


def _file_rows(path: Path, source: Source) -> Iterator[RawRow | Fault]:
    if source.format in ("csv", "tsv"):
        return _csv_rows(path, "\t" if source.format == "tsv" else ",", source.comment)
    if source.format == "jsonl":
        return _json_lines(path)
    if source.format == "json":
        return _json_rows(json.loads(path.read_text(encoding="utf-8")))
    if source.format == "parquet":
        return _parquet_rows(path)
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return (_checked({"text": part.strip()}) for part in text.split(source.separator) if part.strip())


def _csv_rows(path: Path, delimiter: str, comment: str) -> Iterator[RawRow | Fault]:
    # surrogateescape keeps a byte that is not UTF-8 visible, so that only its row is lost.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        lines: Iterable[str] = handle
        if comment:
            lines = (line for line in handle if not line.startswith(comment))
        reader = csv.DictReader(lines, delimiter=delimiter)
        for row in reader:
            if None in row or None in row.values():
                yield Fault(f"has not the {len(reader.fieldnames or [])} columns of the header")
            else:
                yield _checked(cast(RawRow, row))


def _json_lines(path: Path) -> Iterator[RawRow | Fault]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as handle:
        for line in handle:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:  # also bytes that are not UTF-8
                yield Fault("is not JSON in UTF-8")
                continue
            yield row if isinstance(row, dict) else Fault("is not an object of columns")


def _json_rows(value: Any) -> Iterator[RawRow | Fault]:
    """A list of objects, or an object whose entries become rows with ``key`` and ``value``."""
    if isinstance(value, dict):
        yield from ({"key": key, "value": entry} for key, entry in value.items())
    elif isinstance(value, list):
        yield from (row if isinstance(row, dict) else Fault("is not an object of columns") for row in value)
    else:
        raise ValueError("neither a list nor an object")


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    import pandas

    for row in pandas.read_parquet(path).to_dict(orient="records"):
        yield {str(name): value for name, value in row.items()}


def _checked(row: RawRow) -> RawRow | Fault:
    if any(isinstance(value, str) and not _is_unicode(value) for value in row.values()):
        return Fault("is not UTF-8")
    return row


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _hub_rows(source: Source) -> Iterator[RawRow]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    assert source.hub is not None
    try:
        rows = load_dataset(source.hub, data_dir=source.data_dir, split=source.split, revision=source.revision)
    except (DatasetNotFoundError, OSError) as error:
        raise _hub_error(source, error) from error
    for row in rows:
        yield dict(row)


def _hub_error(source: Source, error: Exception) -> UserError:
    return UserError(
        f"Source '{source.name}': the dataset {source.hub} could not be read from the hub.",
        why=str(error).split("\n", 1)[0],
        mend="Check the connection, point CAI_DATA at a local copy, or leave the source out with 'exclude'.",
    )


def _builtin_digest(name: str) -> str:
    """The digest of the templates, word lists and code that generate the rows."""
    package = Path(__file__).resolve().parents[1] / name
    files = (path for path in package.rglob("*") if path.suffix in (".py", ".yaml"))
    return f"code:{files_digest(files, package)}"
