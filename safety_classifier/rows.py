"""Rows to judge from text, CSV, JSON lines or Parquet, one at a time; a broken row does not end the read."""

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from runs.errors import UsageError, UserError, unknown_name
from runs.identity import canonical_json, file_digest
from runs.paths import shown
from safety_classifier.data.files import RawRow

SUFFIXES = {
    ".txt": "txt",
    ".text": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
FORMATS = ("auto", *dict.fromkeys(SUFFIXES.values()))
LONGEST_LINE = 1 << 26
"""A line beyond 64 MiB is a fault: without a bound, a file without newlines would be read into memory whole."""
STDIN = Path("-")


@dataclass(frozen=True)
class Columns:
    """Where the rows hold what is judged."""

    text: str = "text"
    context: str = "context"
    """The prompt that the text answers. A file without this column holds texts that stand alone."""
    keep: tuple[str, ...] = ()
    """Columns that are copied to the output."""


@dataclass(frozen=True)
class Row:
    """One row of the input."""

    number: int
    """Line of a text or JSON-lines file (blank lines count, but are no rows); else row after the header; from 1."""
    text: str = ""
    context: str = ""
    kept: RawRow = field(default_factory=dict)
    error: str = ""
    """Why the row cannot be judged; empty when it can."""
    raw: bytes = b""
    """What a broken row holds, for its digest."""

    @property
    def key(self) -> str:
        """Digest of the row's number and content."""
        content = self.raw if self.error else canonical_json([self.text, self.context, self.kept]).encode()
        return hashlib.sha256(b"%d\n" % self.number + content).hexdigest()[:16]


class Faulty(ValueError):
    """A row cannot be used; the message says why and quotes nothing of it."""


@dataclass(frozen=True)
class RowFile:
    """An input file, or standard input (``-``)."""

    path: Path
    format: str
    columns: Columns

    @classmethod
    def open(cls, path: Path, form: str, columns: Columns) -> RowFile:
        """Settle the format: by name where ``form`` is ``auto``.

        Raises:
            UsageError: there is no such file, or its format is not known.
        """
        if form not in FORMATS:
            raise unknown_name("format", form, FORMATS)
        if path != STDIN and not path.exists():
            raise UsageError(f"There is no input file {path}.")
        if path.is_dir():
            raise UsageError(f"{path} is a folder; --input takes a file.")
        if form == "auto":
            suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
            form = "txt" if path == STDIN else SUFFIXES.get(suffix.lower(), "")
            if not form:
                raise UsageError(
                    f"{path}: the name does not tell the format.",
                    mend=f"Add --format with one of {', '.join(FORMATS[1:])}.",
                )
        if form == "parquet" and (path == STDIN or path.suffix == ".gz"):
            raise UsageError("Parquet is read from a plain file: its index stands at the end.")
        return cls(path, form, columns)

    @property
    def replayable(self) -> bool:
        """Whether the input can be read again, and so be told apart from another."""
        return self.path != STDIN and self.path.is_file()

    def digest(self) -> str:
        """What is read: the digest of a file's bytes, or ``stream``."""
        if not self.replayable:
            return "stream"
        try:
            return f"sha256:{file_digest(self.path)}"
        except OSError as error:
            raise UserError(f"{shown(self.path)} cannot be read.", why=f"{error.strerror}.") from error

    def count(self) -> int:
        """About how many rows there are (exact unless quoted CSV fields hold newlines); 0 for a stream."""
        if not self.replayable:
            return 0
        if self.format == "parquet":
            with self._parquet_file() as file:
                return int(file.metadata.num_rows)
        with self._readable(), self._bytes() as handle:
            lines = sum(block.count(b"\n") for block in iter(lambda: handle.read(1 << 20), b""))
        return max(1, lines - (self.format in ("csv", "tsv")))

    def __iter__(self) -> Iterator[Row]:
        """The rows, in order.

        Raises:
            UserError: the file cannot be read, or is not of its format at all.
        """
        readers: dict[str, Callable[[], Iterator[Row]]] = {
            "txt": self._texts,
            "jsonl": self._json_lines,
            "csv": lambda: self._csv(","),
            "tsv": lambda: self._csv("\t"),
            "parquet": self._parquet,
        }
        with self._readable():
            yield from readers[self.format]()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError) as error:  # a damaged gzip member ends in one of these
            raise UserError(f"{shown(self.path)} cannot be read as {self.format}.", why=str(error)) from error

    @contextmanager
    def _bytes(self) -> Iterator[IO[bytes]]:
        if self.path == STDIN:
            yield sys.stdin.buffer
            return
        with self.path.open("rb") as handle:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=handle)) if self.path.suffix == ".gz" else handle

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Number and bytes of each line that is not blank; None for one that is too long."""
        with self._bytes() as handle:
            for number in itertools.count(1):
                line = handle.readline(LONGEST_LINE)
                if not line:
                    return
                if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                    while rest := handle.readline(LONGEST_LINE):
                        if rest.endswith(b"\n"):
                            break
                    yield number, None
                elif line.strip():
                    yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line

    def _texts(self) -> Iterator[Row]:
        for number, line in self._lines():
            yield _row(number, line, _text_line)

    def _json_lines(self) -> Iterator[Row]:
        for number, line in self._lines():
            yield _row(number, line, lambda line: self._columns(_json_object(line)))

    def _columns(self, raw: RawRow) -> RawRow:
        """The columns that matter, checked."""
        names = self.columns
        if names.text not in raw:
            raise Faulty(f"has no column '{names.text}'")
        missing = [name for name in names.keep if name not in raw]
        if missing:
            raise Faulty(f"has no column '{missing[0]}'")
        context = raw.get(names.context)
        return {
            "text": _string(names.text, raw[names.text]),
            "context": "" if context is None else _string(names.context, context),
            "kept": {name: _plain(name, raw[name]) for name in names.keep},
        }

    def _cells(self, cells: RawRow, _: bytes) -> RawRow:
        return self._columns(cells)

    def _csv(self, delimiter: str) -> Iterator[Row]:
        csv.field_size_limit(1 << 24)  # the default of 128 KiB is less than a long text
        with self._bytes() as handle:
            # surrogateescape keeps a byte that is not UTF-8 visible, so that only its row is lost.
            lines = (line.decode("utf-8", "surrogateescape") for line in handle)
            reader = csv.reader(_without_mark(lines), delimiter=delimiter)
            try:
                header = next(reader, [])
            except csv.Error as error:
                raise UserError(f"{shown(self.path)} has no readable header.", why=str(error)) from error
            self._check_header(header)
            for number in itertools.count(1):
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield Row(number, error=f"is not valid CSV: {error}")
                    continue
                if cells is None:
                    return
                if cells:
                    yield _csv_row(number, header, cells, self._columns)

    def _check_header(self, header: list[str]) -> None:
        missing = [name for name in (self.columns.text, *self.columns.keep) if name not in header]
        if missing:
            raise UsageError(
                f"{shown(self.path)} has no column '{missing[0]}'.",
                why=f"It has: {', '.join(name[:40] for name in header[:20]) or 'none'}.",
                mend="Name the column with --text-column.",
            )

    def _parquet(self) -> Iterator[Row]:
        number = itertools.count(1)
        with self._parquet_file() as file:
            self._check_header(file.schema_arrow.names)
            names = [self.columns.text, self.columns.context, *self.columns.keep]
            wanted = [name for name in dict.fromkeys(names) if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                for cells in _parquet_cells(batch):
                    raw = repr(cells).encode(errors="replace")
                    yield _row(next(number), raw, partial(self._cells, cells))

    @contextmanager
    def _parquet_file(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        try:
            with self._readable(), parquet.ParquetFile(self.path) as file:
                yield file
        except pa.ArrowInvalid as error:
            raise UserError(f"{shown(self.path)} is not a readable Parquet file.", why=str(error)) from error


def _row(number: int, line: bytes | None, parse: Callable[[bytes], RawRow]) -> Row:
    if line is None:
        return Row(number, error=f"is longer than {LONGEST_LINE >> 20} MiB")
    try:
        return Row(number, **parse(line))
    except Faulty as error:
        return Row(number, error=str(error), raw=line)


def _text_line(line: bytes) -> RawRow:
    return {"text": _decoded(line).rstrip("\r\n")}


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise Faulty(f"is not UTF-8 (byte {error.start + 1})") from error


def _json_object(line: bytes) -> RawRow:
    text = _decoded(line)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise Faulty(f"is not JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits; brackets nested thousands deep
        raise Faulty("is not JSON that can be read: too large a number, or nested too deep") from error
    if not isinstance(value, dict):
        raise Faulty(f"is not an object of columns but {_kind(value)}")
    return value


def _csv_row(number: int, header: list[str], cells: list[str], columns: Callable[[RawRow], RawRow]) -> Row:
    def parse(_: bytes) -> RawRow:
        if len(cells) != len(header):
            raise Faulty(f"has {len(cells)} columns; the header has {len(header)}")
        return columns(dict(zip(header, cells, strict=True)))

    return _row(number, "\x1f".join(cells).encode("utf-8", "surrogateescape"), parse)


def _without_mark(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield line.removeprefix("\ufeff") if number == 0 else line


def _parquet_cells(batch: Any) -> Iterator[RawRow]:
    """The rows of one Arrow batch; a string that is not UTF-8 stays as it is, so that only its row is lost."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for position in range(batch.num_rows):
            row = batch.slice(position, 1)
            yield {name: _cell(row.column(name)[0]) for name in batch.schema.names}


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes()


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Faulty(f"'{name}' is not a string but {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Faulty(f"'{name}' is not UTF-8 (character {error.start + 1})") from error
    return value


def _plain(name: str, value: Any) -> Any:
    """A kept value that JSON can hold."""
    if isinstance(value, str):
        return _string(name, value)
    try:
        canonical_json(value).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise Faulty(f"'{name}' is not UTF-8, or nested too deep") from error
    except (TypeError, ValueError):
        return str(value)  # dates, decimals, numbers that are none
    return value


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {type(None): "null", bool: "a boolean", int: "a number", float: "a number"}
    kinds |= {list: "a list", dict: "an object", bytes: "bytes"}
    return kinds.get(type(value), f"a {type(value).__name__}")
