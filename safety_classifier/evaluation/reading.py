"""Tables and lines of the files that suites come in; every fault names the file, the row and the column."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runs.errors import UserError

Row = dict[str, Any]

CELL = 4 << 20
"""Longest cell of a CSV file, in characters."""


def read_table(path: Path, columns: Iterable[str]) -> list[Row]:
    """The rows of a CSV or JSON-lines file (by its name; ``.gz`` too) that has these columns.

    Raises:
        UserError: the file cannot be read, is not UTF-8, has no rows, or lacks a column in the header or in a row.
    """
    name = path.name.removesuffix(".gz")
    rows = list(_lines(path) if name.endswith((".jsonl", ".json", ".ndjson")) else _cells(path))
    if not rows:
        raise UserError(f"{path} has no rows.")
    for number, row in enumerate(rows, start=1):
        missing = [column for column in columns if row.get(column) is None]
        if missing:
            raise UserError(
                f"{path}, row {number}: there is no column '{missing[0]}'.",
                mend=f"The row has: {', '.join(map(str, row))}.",
            )
    return rows


def text_of(path: Path) -> str:
    """The file's text, unpacked if its name ends in ``.gz``. Raises `UserError` if it cannot be read as UTF-8."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read.", why=str(error)) from error


def flag(path: Path, number: int, row: Mapping[str, Any], column: str) -> float:
    """A yes-or-no cell as 1.0 or 0.0: 0, 1, true, false, yes, no.

    Raises:
        UserError: it is something else; the row and the column are named.
    """
    value = str(row[column]).strip().lower()
    if value in ("1", "1.0", "true", "yes"):
        return 1.0
    if value in ("0", "0.0", "false", "no"):
        return 0.0
    raise UserError(f"{path}, row {number}: column '{column}' is '{row[column]}'.", mend="0 or 1 was due.")


def choice(path: Path, number: int, row: Mapping[str, Any], column: str, values: Mapping[str, float]) -> float:
    """A cell that is one of the keys of ``values``, as its value. Raises `UserError` like `flag`."""
    value = str(row[column]).strip().lower()
    if value not in values:
        raise UserError(
            f"{path}, row {number}: column '{column}' is '{row[column]}'.", mend=f"Known: {', '.join(values)}."
        )
    return values[value]


def _cells(path: Path) -> Iterator[Row]:
    csv.field_size_limit(CELL)
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""))
    try:
        for row in reader:
            row.pop(None, None)  # cells beyond the header
            yield dict(row)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV.", why=str(error)) from error


def _lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, row {number}: not valid JSON.", why=str(error)) from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {number}: a JSON object was due.")
        yield row
