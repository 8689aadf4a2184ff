"""Judge a file of any length: streamed in batches, continued after a kill, the same bytes either way.

Finished batches are appended to a log in a hidden folder beside the output. Where a batch ends depends on the rows
alone, so a rerun forms the same batches, checks those that are in the log against the input, and computes the rest:
no judgement depends on where the kill fell. The output appears, whole, at the end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from runs.atomic import make_folder, write_error, write_text
from runs.config import StrictModel
from runs.console import Reporter, plain
from runs.errors import IntegrityError, UsageError
from runs.folder import differences
from runs.identity import digest, file_digest
from runs.lock import run_lock
from runs.paths import shown
from runs.records import to_line
from safety_classifier.judge import Judge
from safety_classifier.prediction_tables import FORMATS, columns, write_table
from safety_classifier.rows import Row, RowFile

Record = dict[str, Any]

BATCH_CHARACTERS = 1 << 20
"""A batch of long texts ends before it has ``batch_size`` rows, so that memory stays bounded."""
SHOWN_ERRORS = 20
AGAIN = "Replace it with --no-resume, or choose another --output."


@dataclass
class Summary:
    """What a prediction run did."""

    rows: int = 0
    resumed: int = 0
    """Rows that an earlier process had finished."""
    errors: int = 0
    first_errors: list[tuple[int, str]] = field(default_factory=list)
    """Row and reason of the first `SHOWN_ERRORS`."""
    flagged: Counter[str] = field(default_factory=Counter)
    """Rows flagged by head."""
    escalated: int = 0

    def add(self, record: Record) -> None:
        """Count one row."""
        self.rows += 1
        if record["error"] is not None:
            self.errors += 1
            if len(self.first_errors) < SHOWN_ERRORS:
                self.first_errors.append((record["row"], record["error"]))
            return
        self.flagged.update(head for head, flagged in record["flagged"].items() if flagged)
        self.escalated += any(record["escalate"].values())

    def as_json(self) -> Record:
        """The counts, for a file or for machines."""
        return {
            "rows": self.rows,
            "judged": self.rows - self.errors,
            "errors": self.errors,
            "first_errors": [{"row": row, "error": why} for row, why in self.first_errors],
            "flagged": dict(sorted(self.flagged.items())),
            "escalated": self.escalated,
        }


class RunNote(StrictModel):
    """The file ``OUTPUT.run.json``: which run made the output, and that it is whole."""

    schema_version: int = 1
    run_id: str
    identity: dict[str, Any]
    counts: dict[str, Any]
    sha256: str
    """Of the output."""


def records(judge: Judge, batch: Sequence[Row]) -> list[Record]:
    """The output rows of one batch; a broken row gets its reason in ``error`` and no judgement."""
    good = [row for row in batch if not row.error]
    contexts = [row.context for row in good]
    found = judge.classify([row.text for row in good], contexts if any(contexts) else None) if good else []
    judgements = iter(zip(good, found, strict=True))
    finished = []
    for row in batch:
        record: Record = {"row": row.number, "key": row.key, "error": row.error or None}
        if not row.error:
            _, judgement = next(judgements)
            if row.kept:
                record["input"] = row.kept
            record |= judgement.model_dump(mode="json")
        finished.append(record)
    return finished


def batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Rows in groups of ``size``, fewer where the texts are long."""
    batch: list[Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row.text) + len(row.context) + len(row.raw)
        if len(batch) >= size or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def predict_file(
    judge: Judge, source: RowFile, output: Path, *, batch_size: int = 256, resume: bool = True, reporter: Reporter
) -> Summary:
    """Judge every row of ``source`` and write ``output`` (JSON lines, CSV or Parquet, by its suffix).

    Raises:
        UsageError: the suffix is not known, or ``output`` exists and is not this run's.
        UserError: the input cannot be read, the disk is full, or another process works on the same output.
    """
    if output.suffix.lower() not in FORMATS:
        raise UsageError(f"{output}: the output is {', '.join(FORMATS)}.", mend="Choose one of these suffixes.")
    if FORMATS[output.suffix.lower()] != "jsonl":
        columns(judge.labels, source.columns.keep)  # a clash of names is said before the work, not after it
    identity = _identity(judge, source, batch_size)
    note_path, work = output.with_name(f"{output.name}.run.json"), output.with_name(f".{output.name}.partial")
    make_folder(output.parent)
    finished = _finished(output, note_path, identity, source) if resume else None
    if finished is not None:
        reporter.say(f"{plain(shown(output))} is finished already.")
        shutil.rmtree(work, ignore_errors=True)  # left over when a process died right after its last step
        return finished
    with run_lock(work):
        _claim(work, identity, resume=resume)
        summary = _judge_all(judge, source, work / "rows.jsonl", batch_size, reporter)
        final = work / "rows.jsonl"
        if FORMATS[output.suffix.lower()] != "jsonl":
            final = work / f"final{output.suffix.lower()}"
            write_table(work / "rows.jsonl", final, judge.labels, source.columns.keep)
        _publish(final, output, note_path, identity, summary)
        shutil.rmtree(work)
    return summary


def predict_stream(judge: Judge, source: RowFile, *, batch_size: int = 256, emit: Callable[[Record], None]) -> Summary:
    """Judge every row of ``source`` and hand each output row to ``emit``; nothing is stored."""
    summary = Summary()
    for batch in batches(source, batch_size):
        for record in records(judge, batch):
            emit(record)
            summary.add(record)
    return summary


def _identity(judge: Judge, source: RowFile, batch_size: int) -> dict[str, Any]:
    """Everything that could change the output."""
    names = source.columns
    return {
        "classifier": judge.identity,
        "input": source.digest(),
        "format": source.format,
        "columns": {"text": names.text, "context": names.context, "keep": list(names.keep)},
        "batch_size": batch_size,
    }


def _finished(output: Path, note_path: Path, identity: dict[str, Any], source: RowFile) -> Summary | None:
    """The summary of an output that this very run has finished; None when there is work to do.

    Raises:
        UsageError: there is an output of another run, or one that nothing is known of.
    """
    if not output.exists():
        return None
    if not note_path.is_file():
        raise UsageError(f"{shown(output)} exists and is not an output of this command.", mend=AGAIN)
    try:
        note = RunNote.model_validate_json(note_path.read_bytes())
    except ValidationError as error:
        why = str(error.errors()[0]["msg"])
        raise IntegrityError(f"{shown(note_path)} is damaged.", why=why, mend=AGAIN) from error
    if note.run_id != digest(identity):
        why = f"They differ in {'; '.join(differences(note.identity, identity))}."
        raise UsageError(f"{shown(output)} holds another run.", why=why, mend=AGAIN)
    if not source.replayable:
        raise UsageError(
            f"{shown(output)} is finished, from a stream that cannot be compared with this one.", mend=AGAIN
        )
    if file_digest(output) != note.sha256:
        raise IntegrityError(f"{shown(output)} was changed after it was written.", mend=AGAIN)
    counts = note.counts
    return Summary(
        rows=counts["rows"],
        resumed=counts["rows"],
        errors=counts["errors"],
        first_errors=[(entry["row"], entry["error"]) for entry in counts["first_errors"]],
        flagged=Counter(counts["flagged"]),
        escalated=counts["escalated"],
    )


def _claim(work: Path, identity: dict[str, Any], *, resume: bool) -> None:
    """Make the hidden folder this run's.

    Raises:
        UsageError: it holds the unfinished rows of another run.
    """
    path = work / "run.json"
    if resume and path.is_file():
        held = json.loads(path.read_bytes())
        if held != identity:
            why = f"They differ in {'; '.join(differences(held, identity))}."
            raise UsageError("An unfinished run of another kind stands beside the output.", why=why, mend=AGAIN)
        return
    (work / "rows.jsonl").unlink(missing_ok=True)
    write_text(path, json.dumps(identity, indent=2, ensure_ascii=False) + "\n")


def _judge_all(judge: Judge, source: RowFile, log_path: Path, batch_size: int, reporter: Reporter) -> Summary:
    summary, total = Summary(), source.count()
    bar: AbstractContextManager[Any] = reporter.progress("judging", total) if total else nullcontext(lambda *_: None)
    with _Log(log_path) as log, bar as advance:
        for batch in batches(source, batch_size):
            stored = log.stored(batch)
            if stored is None:
                stored = records(judge, batch)
                log.append(stored)
            else:
                summary.resumed += len(stored)
            for record in stored:
                summary.add(record)
            advance(len(batch))
        log.end()
    return summary


def _publish(final: Path, output: Path, note_path: Path, identity: dict[str, Any], summary: Summary) -> None:
    """Put the output in its place: its note first, so that a whole output is never without one."""
    note = RunNote(run_id=digest(identity), identity=identity, counts=summary.as_json(), sha256=file_digest(final))
    write_text(note_path, note.model_dump_json(indent=2) + "\n")
    try:
        os.replace(final, output)
    except OSError as error:
        raise write_error(output, error) from error


class _Log:
    """The finished batches, one JSON line a row: read until the first batch that is not whole, then written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        except OSError as error:
            raise write_error(path, error) from error
        self._writing = False

    def stored(self, batch: Sequence[Row]) -> list[Record] | None:
        """The records of ``batch`` if all are there; else what is left of the file (a torn batch) is cut off.

        Raises:
            IntegrityError: the log holds other rows.
        """
        if self._writing:
            return None
        start = self._handle.tell()
        lines = [self._handle.readline() for _ in batch]
        if not lines[-1].endswith(b"\n"):
            self._handle.seek(start)
            self._handle.truncate()
            self._writing = True
            return None
        found = []
        for line, row in zip(lines, batch, strict=True):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise self._strange(row, "The line is damaged.") from error
            if record.get("key") != row.key:
                raise self._strange(row, "The input has another row there.")
            found.append(record)
        return found

    def append(self, batch: Sequence[Record]) -> None:
        """Add a batch in one write.

        Raises:
            UserError: the disk is full; what was written of the batch is cut off.
        """
        data = b"".join(to_line(record) for record in batch)
        descriptor, end = self._handle.fileno(), self._handle.tell()
        try:
            written = os.pwrite(descriptor, data, end)
            if written < len(data):
                os.ftruncate(descriptor, end)
                raise OSError(28, os.strerror(28))
        except OSError as error:
            raise write_error(self.path, error) from error
        self._handle.seek(end + len(data))

    def end(self) -> None:
        """Check that nothing follows the last batch, and force the file to the disk."""
        if self._handle.read(1):
            raise IntegrityError(f"{shown(self.path)} holds more rows than the input.", mend=AGAIN)
        os.fsync(self._handle.fileno())

    def _strange(self, row: Row, why: str) -> IntegrityError:
        return IntegrityError(f"{shown(self.path)} does not fit the input at row {row.number}.", why=why, mend=AGAIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()
