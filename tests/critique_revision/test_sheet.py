"""The reader's sheet: blind, reproducible, and read back to shares worked out by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from statsmodels.stats.proportion import proportion_confint

from critique_revision.records import PreferencePair
from critique_revision.sheet import FILLED, SHOWN, key_path, read_sheet, write_sheet
from inference.records import Message
from runs.errors import DataError, UsageError
from tests.critique_revision.test_marking import made


def pairs(count: int = 30) -> list[PreferencePair]:
    return [made(number, "help-01", chosen=f"good {number}") for number in range(count)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def fill(path: Path, rows: list[dict[str, str]], delimiter: str = ",", encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as handle:
        table = csv.DictWriter(handle, (*SHOWN, *FILLED), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)


def test_the_sheet_is_blind_seeded_and_a_sample(tmp_path):
    first, again, other = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv"))
    key = write_sheet(pairs(), first, rows=20, seed=1, run_id="r")
    write_sheet(pairs()[::-1], again, rows=20, seed=1, run_id="r")
    write_sheet(pairs(), other, rows=20, seed=2, run_id="r")
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    rows = rows_of(first)
    assert len(rows) == len(key.rows) == 20
    assert list(rows[0]) == [*SHOWN, *FILLED]
    assert all(not row[name] for row in rows for name in FILLED)
    assert not any(word in first.read_text() for word in ("chosen", "rejected", "help-01"))
    assert {row.chosen for row in key.rows} == {"a", "b"}
    for row, known in zip(rows, key.rows, strict=True):
        assert row[f"answer_{known.chosen}"].startswith("good ")


def test_a_small_set_is_shown_whole_and_verdicts_are_not_overwritten(tmp_path):
    assert len(write_sheet(pairs(3), tmp_path / "a.csv", rows=100, seed=0, run_id="r").rows) == 3
    with pytest.raises(UsageError, match="exists"):
        write_sheet(pairs(3), tmp_path / "a.csv", rows=100, seed=0, run_id="r")
    with pytest.raises(UsageError, match="no pairs"):
        write_sheet([], tmp_path / "b.csv", rows=100, seed=0, run_id="r")


def test_a_formula_is_text(tmp_path):
    evil = '=HYPERLINK("http://example.org";"open")'
    pair = made(1, "help-01", chosen=evil, rejected=(Message(role="assistant", content="@SUM(A1)"),))
    write_sheet([pair], tmp_path / "a.csv", rows=1, seed=0, run_id="r")
    (row,) = rows_of(tmp_path / "a.csv")
    assert {row["answer_a"], row["answer_b"]} == {f"'{evil}", "'@SUM(A1)"}


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig")])
def test_verdicts_by_hand(tmp_path, delimiter, encoding):
    path = tmp_path / "a.csv"
    key = write_sheet(pairs(), path, rows=10, seed=3, run_id="r")
    rows = rows_of(path)
    for place, (row, known) in enumerate(zip(rows, key.rows, strict=True)):
        chosen, rejected = known.chosen, "b" if known.chosen == "a" else "a"
        if place == 9:
            continue  # never read
        row[f"commentary_{chosen}"] = "y" if place < 2 else "n"  # 2 of 9
        row[f"commentary_{rejected}"] = "Yes" if place < 5 else " N "  # 5 of 9
        row[f"complete_{chosen}"] = "1"  # 9 of 9
        row[f"refusal_genuine_{rejected}"] = "no" if place == 0 else ""  # 0 of 1
        row["better"] = (chosen, "TIE", rejected)[0 if place < 6 else 1 if place < 8 else 2]  # 6 against 1, 2 ties
    fill(path, rows[::-1], delimiter, encoding)  # sorted by the reader
    found = read_sheet(path)
    assert (found["rows"], found["judged"], found["of_pairs"], found["ties"]) == (10, 9, 30, 2)
    assert (found["commentary"]["chosen"]["count"], found["commentary"]["chosen"]["n"]) == (2, 9)
    low, high = proportion_confint(2, 9, method="wilson")
    assert found["commentary"]["chosen"]["interval"] == pytest.approx([low, high], abs=1e-4)
    assert found["commentary"]["rejected"]["count"] == 5
    assert found["complete"]["chosen"]["share"] == 1.0
    assert found["complete"]["rejected"] == {"count": 0, "n": 0, "share": None, "interval": None}
    assert (found["refusal_genuine"]["rejected"]["count"], found["refusal_genuine"]["rejected"]["n"]) == (0, 1)
    assert (found["agreement"]["count"], found["agreement"]["n"]) == (6, 7)


def test_faults_are_named(tmp_path):
    path = tmp_path / "a.csv"
    write_sheet(pairs(), path, rows=5, seed=3, run_id="r")
    rows = rows_of(path)
    for column, word in (("complete_a", "maybe"), ("better", "c")):
        fill(path, [{**rows[0], column: word}, *rows[1:]])
        with pytest.raises(DataError, match=f"row 1: {column} is '{word}'"):
            read_sheet(path)
    fill(path, rows[1:])
    with pytest.raises(DataError, match="no row 1"):
        read_sheet(path)
    fill(path, [*rows, rows[0]])
    with pytest.raises(DataError, match="twice"):
        read_sheet(path)
    path.write_text("row,prompt\n1,x\n")
    with pytest.raises(DataError, match="no column 'commentary_a'"):
        read_sheet(path)
    path.write_bytes(b"row,\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_sheet(path)
    key_path(path).unlink()
    with pytest.raises(UsageError, match="no key"):
        read_sheet(path)
