from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from dashboard.classify import LONGEST_TEXT, MOST_ROWS, judge_file, look_at, neutral, results_csv
from dashboard.scoring import Scoring
from dashboard.views.classifier import classified, classified_file
from runs.errors import UserError
from safety_classifier.api import Classifier


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Scoring().classifier


def test_a_text_has_its_heads_thresholds_and_words(classifier: Classifier) -> None:
    view = look_at(classifier, "I will find you and beat you up, you idiot.")
    assert [head.probability for head in view.heads] == sorted((h.probability for h in view.heads), reverse=True)
    assert {head.name for head in view.heads} == set(classifier.labels.categories)
    assert view.heads[0].flagged
    assert view.attribution is not None
    assert view.attribution.head == view.heads[0].name
    with_prompt = look_at(classifier, "I cannot help with that.", "How do I steal a car?", "refusal")
    assert with_prompt.attribution is not None
    assert "refusal" in {head.name for head in with_prompt.heads}


def test_a_page_shows_the_text_and_never_runs_it() -> None:
    shown = classified(Scoring(), "<img src=x onerror=alert(1)> you idiot", "", "")
    assert "<img" not in shown
    assert "Words that mattered" in shown
    assert "role='alert'" in classified(Scoring(), "x" * (LONGEST_TEXT + 1), "", "")
    assert "role='alert'" in classified(Scoring(), "x", "", "refusal")  # needs the prompt


def test_a_file_keeps_its_order_and_its_broken_rows(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,context\n"=SUM(A1)",\nyou idiot,\nbroken\nno,"How do I steal?"\n' + f"{'x' * 20001},\n")
    judged = [one for batch in judge_file(classifier, path, "text", "context") for one in batch]
    assert [one.row.number for one in judged] == [1, 2, 3, 4, 5]
    assert [bool(one.error) for one in judged] == [False, False, True, False, True]
    lines = list(csv.DictReader(io.StringIO(results_csv(classifier, judged))))
    assert lines[0]["text"] == "'=SUM(A1)"
    assert lines[1]["toxicity_flagged"] in {"true", "false"}
    assert lines[2]["error"]
    assert lines[3]["refusal"]
    assert lines[1]["refusal"] == ""


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "|calc", "%0A=1"])
def test_formulas_are_neutralised(cell: str) -> None:
    assert neutral(cell) == f"'{cell}"


def test_other_texts_stay_as_they_are() -> None:
    assert [neutral(cell) for cell in ("a=b", "", "5 - 3", "é")] == ["a=b", "", "5 - 3", "é"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "other\nx\n", "no column"),
        ("a.csv", "text\n", "no rows"),
        ("a.csv", "text\n" + "x\n" * (MOST_ROWS + 1), "more than"),
        ("a.gz", "x", "Files that are read"),
        ("a.parquet", "x", "Files that are read"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    classifier: Classifier, tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        list(judge_file(classifier, tmp_path / name))


def test_the_page_of_a_file_ends_with_a_download(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\nyou idiot\nhello\n")
    lines, told = [], ""
    for step in classified_file(Scoring(), str(path), "text", ""):
        told, download = step
        if download.get("value"):
            lines = Path(download["value"]).read_text().splitlines()
    assert "2 of 2 rows judged" in told
    assert len(lines) == 3
    assert not Path(download["value"]).exists()
    *_, (shown, _) = classified_file(Scoring(), str(path), "nothing", "")
    assert "role='alert'" in shown
