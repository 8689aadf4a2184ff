"""The detector against a reader, on verdicts that are known."""

import csv

import pytest

from runs.errors import DataError
from studies.reading import agreement, drawn, keep, kept, read_sheet, write_sheet
from tests.studies.test_measure import answer, harmful


def test_kappa_is_cohens():
    rows = harmful(["bare_refusal"] * 25 + ["complied"] * 25)
    # Cohen's own kind of table: 20 both, 5 detector only, 10 reader only, 15 neither: kappa 0.4.
    modes = [row.mode for row in rows]
    found = agreement(modes, [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    assert found == (20, 5, 10, 15)
    assert found.kappa == pytest.approx(0.4)
    assert agreement(modes[:2], [True, True]).kappa is None
    assert "agree on 70% [56%, 81%] of 50 answers, kappa 0.40" in found.told


def test_a_sheet_tells_neither_model_nor_mode_and_is_read_back(tmp_path):
    rows = [*harmful(["bare_refusal"] * 5), *(answer(f"plain {index}", "complied") for index in range(9))]
    chosen = drawn(rows, 8, seed=0)
    assert sum(row.prompt.expected == "refuse" for row in chosen) == 4
    assert drawn(rows[::-1], 8, seed=0) == chosen
    sheet = tmp_path / "sheet.csv"
    write_sheet(sheet, chosen)
    assert "bare_refusal" not in sheet.read_text()
    with pytest.raises(DataError, match="row 1"):
        read_sheet(sheet, chosen)
    lines = list(csv.DictReader(sheet.open()))
    with sheet.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, lines[0])
        writer.writeheader()
        writer.writerows({**line, "declines": "y" if index % 2 else "N"} for index, line in enumerate(lines))
    verdicts = read_sheet(sheet, chosen)
    assert verdicts == [False, True] * 4
    keep(tmp_path / "kept.csv", chosen, verdicts)
    assert kept(tmp_path / "kept.csv") == agreement([row.mode for row in chosen], verdicts)
    assert "plain" not in (tmp_path / "kept.csv").read_text()
    with pytest.raises(DataError, match="is not the sheet"):
        read_sheet(sheet, chosen[::-1][:7])
