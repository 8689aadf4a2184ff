"""A sheet on which a person reads a random sample of the pairs, blind, and what the person's verdicts say.

The CSV shows a pair's two answers in random order and says nothing of who wrote them, which was chosen, or why. The
key, a file beside it, knows. Cells that a spreadsheet would take for a formula begin with an apostrophe: the texts are
a model's, and nobody vouches for them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from critique_revision.dialogue import conversation_text
from critique_revision.records import PreferencePair
from critique_revision.shares import share
from runs.atomic import write_text
from runs.config import StrictModel
from runs.errors import DataError, UsageError
from runs.identity import digest, row_seed
from runs.paths import shown

SHOWN = ("row", "prompt", "answer_a", "answer_b")
QUESTIONS = ("commentary", "complete", "refusal_genuine")
"""Asked of each answer: does it talk about an answer instead of being one; is it whole; if it refuses, does it mean
it, and say so to the person who asks?"""
FILLED = (*(f"{question}_{side}" for question in QUESTIONS for side in "ab"), "better", "note")
"""What the reader fills in: y or n; a, b or tie; anything. Empty: no verdict."""
WORDS = {"y": True, "yes": True, "1": True, "true": True, "n": False, "no": False, "0": False, "false": False}
FORMULA = ("=", "+", "-", "@", "\t", "\r")

Side = Literal["a", "b"]


class KeyRow(StrictModel):
    """Which of a row's answers is which."""

    row: int
    prompt_id: str
    pair: str
    """Digest of the pair."""
    chosen: Side


class SheetKey(StrictModel):
    """The file FILE.key.json: not for the reader."""

    schema_version: Literal[1] = 1
    run_id: str
    seed: int
    pairs: int
    """In the set that the rows were drawn from."""
    rows: tuple[KeyRow, ...]


def key_path(sheet: Path) -> Path:
    """Where the key of a sheet is."""
    return sheet.with_name(f"{sheet.name}.key.json")


def write_sheet(pairs: Sequence[PreferencePair], sheet: Path, *, rows: int, seed: int, run_id: str) -> SheetKey:
    """Write ``rows`` of ``pairs`` (all, if there are fewer) to ``sheet``, and the key beside it.

    Which pairs, their order and the order of the sides follow from ``seed`` and the pairs alone.

    Raises:
        UsageError: there is no pair, or ``sheet`` is there already: verdicts are not to be lost.
    """
    if not pairs:
        raise UsageError("There are no pairs to read.", mend="Look at: uv run critique-revision stats RUN")
    if sheet.exists():
        raise UsageError(f"{shown(sheet)} exists, perhaps with verdicts.", mend="Choose another --output.")
    drawn = sorted(pairs, key=lambda pair: digest([seed, "sheet", _identity(pair)]))[:rows]
    text, keys = io.StringIO(), []
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*SHOWN, *FILLED))
    for number, pair in enumerate(drawn, start=1):
        identity = _identity(pair)
        first: Side = "a" if row_seed(seed, "side", identity) % 2 else "b"
        sides = (pair.chosen[-1].content, pair.rejected[-1].content)
        cells = (conversation_text(pair.prompt), *(sides if first == "a" else sides[::-1]))
        table.writerow((number, *map(cell, cells), *("" for _ in FILLED)))
        keys.append(KeyRow(row=number, prompt_id=pair.prompt_id, pair=identity, chosen=first))
    key = SheetKey(run_id=run_id, seed=seed, pairs=len(pairs), rows=tuple(keys))
    # The key first: a sheet without one cannot be read.
    write_text(key_path(sheet), json.dumps(key.model_dump(mode="json"), indent=2) + "\n")
    write_text(sheet, text.getvalue())
    return key


def read_sheet(sheet: Path) -> dict[str, Any]:
    """What the verdicts on a sheet say: shares with their denominators and Wilson's intervals.

    ``agreement`` counts the rows on which the reader found one answer better, and it is the chosen one; ties are
    counted beside it.

    Raises:
        UsageError: the sheet or its key is not there.
        DataError: the sheet is no sheet, or a cell holds what is no verdict; row and column are named.
    """
    key, verdicts = _read_key(sheet), _read_rows(sheet)
    votes: dict[str, dict[str, list[bool]]] = {name: {"chosen": [], "rejected": []} for name in QUESTIONS}
    better: list[str] = []
    judged = 0
    for known in key.rows:
        row = verdicts.get(known.row)
        if row is None:
            raise DataError(
                f"{shown(sheet)} has no row {known.row}.", mend="Put the row back; empty verdicts are fine."
            )
        judged += any(row[name].strip() for name in FILLED if name != "note")
        for question in QUESTIONS:
            for side in ("a", "b"):
                vote = yes_or_no(row[f"{question}_{side}"], sheet, known.row, f"{question}_{side}")
                if vote is not None:
                    votes[question]["chosen" if side == known.chosen else "rejected"].append(vote)
        found = _better(row["better"], sheet, known.row)
        if found:
            better.append("tie" if found == "tie" else "chosen" if found == known.chosen else "rejected")
    decided = [verdict for verdict in better if verdict != "tie"]
    return {
        "run_id": key.run_id,
        "rows": len(key.rows),
        "of_pairs": key.pairs,
        "judged": judged,
        **{
            question: {side: share(sum(found), len(found)) for side, found in sides.items()}
            for question, sides in votes.items()
        },
        "agreement": share(decided.count("chosen"), len(decided)),
        "ties": better.count("tie"),
    }


def _identity(pair: PreferencePair) -> str:
    return digest([pair.prompt_id, pair.chosen[-1].content, pair.rejected[-1].content])


def cell(text: str) -> str:
    """``text`` as a cell that no spreadsheet reads as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _read_key(sheet: Path) -> SheetKey:
    path = key_path(sheet)
    if not path.is_file():
        raise UsageError(
            f"There is no key {shown(path)}.",
            why="Only it knows which answer was chosen.",
            mend="Put the file that `sheet` wrote beside the CSV.",
        )
    return SheetKey.model_validate_json(path.read_bytes())


def _read_rows(sheet: Path) -> dict[int, dict[str, str]]:
    """Row number → its cells."""
    if not sheet.is_file():
        raise UsageError(f"There is no sheet {shown(sheet)}.")
    try:
        text = sheet.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(sheet)} is not UTF-8 (byte {error.start}).", mend="Save it as CSV UTF-8.") from error
    # Spreadsheets of some countries save with semicolons.
    table = csv.DictReader(io.StringIO(text), delimiter=";" if text.startswith("row;") else ",")
    missing = [name for name in ("row", *FILLED) if name not in (table.fieldnames or ())]
    if missing:
        raise DataError(f"{shown(sheet)} has no column '{missing[0]}'.", mend="Keep the header as `sheet` wrote it.")
    rows: dict[int, dict[str, str]] = {}
    for row in table:
        number = (row["row"] or "").strip()
        if not number.isdigit() or int(number) in rows:
            raise DataError(f"{shown(sheet)}, line {table.line_num}: '{number}' is no row number, or is there twice.")
        rows[int(number)] = {name: row[name] or "" for name in FILLED}
    return rows


def yes_or_no(filled: str, sheet: Path, row: int, column: str) -> bool | None:
    """A reader's y or n; None for an empty cell. Raises `DataError` for anything else."""
    word = filled.strip().casefold()
    if word and word not in WORDS:
        raise DataError(f"{shown(sheet)}, row {row}: {column} is '{filled}'.", mend="Write y or n, or leave it empty.")
    return WORDS[word] if word else None


def _better(cell: str, sheet: Path, row: int) -> str:
    word = cell.strip().casefold()
    if word not in {"", "a", "b", "tie"}:
        raise DataError(f"{shown(sheet)}, row {row}: better is '{cell}'.", mend="Write a, b or tie, or leave it empty.")
    return word
