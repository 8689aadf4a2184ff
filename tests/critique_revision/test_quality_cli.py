"""`stats --check`, `stats --plot` and `sheet` as a user calls them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from critique_revision.folder import open_finished
from critique_revision.pairs import filter_run, statistics, write_filtered
from tests.critique_revision import recipe_driver
from tests.critique_revision.test_cr_cli import call


@pytest.fixture
def run(recipe: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    recipe_driver.run(recipe, folder)
    finished = open_finished(folder)
    outcome = filter_run(finished, finished.config.filters)
    write_filtered(folder, outcome, statistics(finished, outcome, finished.config.filters))
    return folder


def test_check_names_the_bars_that_do_not_hold(run, capsys, monkeypatch):
    # 14 pairs of two principles each over a constitution of many: not every one can be used.
    code, out, err = call(capsys, monkeypatch, "stats", run, "--check", "--json")
    held = {bar["name"]: bar["holds"] for bar in json.loads(out)["bars"]}
    failing = [name for name, holds in held.items() if holds is False]
    assert code == (1 if failing else 0)
    assert all(name in err for name in failing)
    assert held["identical"] is held["duplicates"] is held["split"] is held["evaluation_prompts"] is True
    assert held["chosen_preferred"] is None
    # One pair twice, one with equal sides: what the filters would not have let through.
    lines = (run / "pairs.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    row["rejected"] = row["chosen"]
    (run / "pairs.jsonl").write_text("\n".join([lines[0], lines[0], json.dumps(row), *lines[2:]]) + "\n")
    code, out, err = call(capsys, monkeypatch, "stats", run, "--check")
    assert code == 1
    assert "bars do not hold: identical," in err
    assert "duplicates" in err
    assert "does NOT hold" in out


def test_figures_are_the_same_bytes_again(run, tmp_path, capsys, monkeypatch):
    code, out, _ = call(capsys, monkeypatch, "stats", run, "--plot", "--json")
    assert code == 0
    written = [Path(path) for path in json.loads(out)["figures"]]
    names = [f"{name}{suffix}" for name in ("reasons", "principles", "lengths") for suffix in (".png", ".svg")]
    assert [path.name for path in written] == names
    assert all(path.parent == run / "figures" for path in written)
    for path in written:
        if path.suffix == ".svg":
            ET.fromstring(path.read_bytes())
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    assert call(capsys, monkeypatch, "stats", run, "--plot", "--output-dir", tmp_path / "again")[0] == 0
    assert all((tmp_path / "again" / path.name).read_bytes() == path.read_bytes() for path in written)


def test_a_sheet_goes_out_and_comes_back(run, tmp_path, capsys, monkeypatch):
    sheet = tmp_path / "sheet.csv"
    code, out, _ = call(capsys, monkeypatch, "sheet", run, "--rows", 5, "--output", sheet, "--json")
    assert (code, json.loads(out)["rows"], json.loads(out)["of_pairs"]) == (0, 5, 14)
    code, out, _ = call(capsys, monkeypatch, "sheet", "--read", sheet)
    assert code == 0
    assert "0 of 5 rows have verdicts" in out
    assert call(capsys, monkeypatch, "sheet", run)[0] == 2
    assert call(capsys, monkeypatch, "sheet", run, "--output", sheet)[0] == 2
