"""The safety classifier on pasted texts and uploaded files. No user interface here.

What is uploaded is untrusted: rows, lengths and formats are limited, and cells that a spreadsheet would run as a
formula are written so that it does not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from runs.errors import UsageError, UserError
from safety_classifier.api import Classification, Classifier
from safety_classifier.explain import Attribution
from safety_classifier.rows import Columns, Row, RowFile

LONGEST_TEXT = 20_000
"""Characters of one text."""
MOST_ROWS = 5_000
"""Rows of one file."""
SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
"""Files that are read; none that unpacks to more than it is."""
_BATCH = 32
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


@dataclass(frozen=True)
class HeadView:
    """What the classifier says of one head, beside the threshold that was chosen for it."""

    name: str
    definition: str
    probability: float
    threshold: float
    flagged: bool
    escalate: bool
    """Whether the probability is in the band where a stronger judge should decide."""
    precision: float
    recall: float
    """Of the threshold, on the split that it was chosen on."""


@dataclass(frozen=True)
class TextView:
    """What the classifier says of one text."""

    text: str
    result: Classification
    heads: tuple[HeadView, ...]
    """Those that apply, the most probable first."""
    attribution: Attribution | None
    """None where there was nothing to read."""


@dataclass(frozen=True)
class Judged:
    """A row of a file with its result, or why it has none."""

    row: Row
    result: Classification | None
    error: str = ""


def check_text(text: str, what: str = "text") -> str:
    """``text`` itself.

    Raises:
        UsageError: it is longer than `LONGEST_TEXT`.
    """
    if len(text) > LONGEST_TEXT:
        raise UsageError(
            f"The {what} has {len(text):,} characters; the page reads up to {LONGEST_TEXT:,}.",
            mend="Shorten it, or use `uv run safety-classifier predict`, which has no such limit.",
        )
    return text


def look_at(classifier: Classifier, text: str, context: str = "", head: str = "") -> TextView:
    """One text with all heads that apply, and what its words add to one of them.

    Args:
        classifier: the loaded classifier.
        text: what is judged.
        context: the prompt that it answers; empty where it stands alone.
        head: whose words are weighed; empty takes the most probable one.

    Raises:
        UsageError: a text is too long, or there is no such head among those that apply.
    """
    check_text(text), check_text(context, "prompt")
    result = classifier.classify([text], [context] if context else None)[0]
    heads = head_views(classifier, result)
    if head and head not in {view.name for view in heads}:
        raise UsageError(f"'{head[:40]}' does not apply to this text.", mend="Add the prompt, or choose another head.")
    wanted = head or heads[0].name
    attribution = None if result.empty else classifier.explain(text, wanted, context)
    return TextView(text, result, heads, attribution)


def head_views(classifier: Classifier, result: Classification) -> tuple[HeadView, ...]:
    """The heads with a threshold, the most probable first."""
    points = classifier.artifact.thresholds.heads
    definitions = {head.name: head.definition for head in classifier.labels.heads}
    probabilities = result.probabilities | (result.response or {})
    views = [
        HeadView(
            name=name,
            definition=definitions[name],
            probability=probability,
            threshold=points[name].threshold,
            flagged=result.flagged[name],
            escalate=result.escalate[name],
            precision=points[name].precision,
            recall=points[name].recall,
        )
        for name, probability in probabilities.items()
    ]
    return tuple(sorted(views, key=lambda view: -view.probability))


def judge_file(
    classifier: Classifier, path: Path, text_column: str = "text", context_column: str = ""
) -> Iterator[list[Judged]]:
    """Judge a file in batches, in order; a broken row is a result of its own.

    Raises:
        UserError: the file is of another kind, has no such column, no rows, or too many.
    """
    rows = _read(path, text_column, context_column)
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        good = [row for row in part if not _fault(row)]
        texts, contexts = [row.text for row in good], [row.context for row in good]
        results = iter(classifier.classify(texts, contexts if any(contexts) else None)) if good else iter(())
        yield [Judged(row, None, fault) if (fault := _fault(row)) else Judged(row, next(results)) for row in part]


def _fault(row: Row) -> str:
    if row.error:
        return row.error
    return f"is longer than {LONGEST_TEXT:,} characters" if len(row.text) > LONGEST_TEXT else ""


def _read(path: Path, text_column: str, context_column: str) -> list[Row]:
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"Files that are read: {', '.join(SUFFIXES)}.", mend="Save the table as CSV.")
    columns = Columns(text=text_column.strip() or "text", context=context_column.strip() or "\0none")
    try:
        rows = list(islice(RowFile.open(path, "auto", columns), MOST_ROWS + 1))
    except UsageError as error:
        raise UsageError(
            f"The file has no column '{columns.text[:40]}'.", why=error.why, mend="Write its name into 'Text column'."
        ) from error
    if len(rows) > MOST_ROWS:
        raise UsageError(
            f"The file has more than {MOST_ROWS:,} rows.",
            mend="Cut it, or use `uv run safety-classifier predict`, which has no such limit.",
        )
    if not rows:
        raise UserError("The file has no rows.", mend="It needs a header with a column 'text', and a row below.")
    return rows


def results_csv(classifier: Classifier, judged: Sequence[Judged]) -> str:
    """The results as CSV, with the texts; no cell is a formula."""
    names = [*classifier.labels.of("category"), *classifier.labels.of("response")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    scores = [column for name in names for column in (name, f"{name}_flagged")]
    writer.writerow(["row", "text", "prompt", "safe", *scores, "windows", "obfuscation", "error"])
    for one in judged:
        writer.writerow(_line(one, names))
    return buffer.getvalue()


def _line(one: Judged, names: Sequence[str]) -> list[str]:
    texts = [neutral(one.row.text), neutral(one.row.context)]
    if one.result is None:
        return [str(one.row.number), *texts, "", *[""] * (2 * len(names)), "", "", neutral(one.error)]
    result = one.result
    values = result.probabilities | (result.response or {})
    cells = [
        cell
        for name in names
        for cell in ((f"{values[name]:.6f}", str(result.flagged[name]).lower()) if name in result.flagged else ("", ""))
    ]
    rest = [str(result.windows), f"{result.obfuscation:.4f}", ""]
    return [str(one.row.number), *texts, f"{result.safe:.6f}", *cells, *rest]


def neutral(cell: str) -> str:
    """``cell`` so that no spreadsheet runs it: an apostrophe goes before what could begin a formula (OWASP)."""
    return f"'{cell}" if cell.lstrip(" \u00a0").startswith(_FORMULA) or cell.startswith(_FORMULA) else cell
