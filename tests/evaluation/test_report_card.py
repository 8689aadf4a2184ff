"""The evaluators' report card in the report: who is marked, on what, and why."""

from __future__ import annotations

import dataclasses

import pytest

from evaluation.calibrate.card import CardRow, ReportCard
from evaluation.calibrate.measures import Measure
from evaluation.report.charts import run_figures
from evaluation.report.data import RunData, load_run
from evaluation.report.html import report_page
from evaluation.report.instruments import card_figures, card_grid, standings_of
from evaluation.report.static import save_figure
from tests.evaluation.made_runs import made_run, prompts


def measure(value: float) -> Measure:
    return Measure(value=value, low=value - 0.04, high=value + 0.04)


def line(evaluator: str, value: float, kind: str = "held out") -> CardRow:
    return CardRow(
        evaluator=evaluator, task="harmless_pairs", dataset="made <pairs>", kind=kind, n=200, clusters=150, unscored={},
        accuracy=measure(value), length=measure(0.55), above_length=measure(value - 0.55), length_correlation=-0.2,
    )  # fmt: skip


CARD = ReportCard(
    command="uv run evaluate calibrate",
    evaluators={"harm_prevention": "stub-1", "helpfulness": "stub-1"},
    gold=[],
    rows=[line("harm_prevention", 0.7), line("helpfulness", 0.54), line("helpfulness", 0.9, "fitted on")],
    standings={"harm_prevention": "informative", "helpfulness": "uninformative"},
    notes=[],
    seed=0,
    draws=1000,
)


@pytest.fixture
def run(tmp_path) -> RunData:
    made = load_run(made_run(tmp_path / "run", models=("base", "stage3"), asked=prompts(60)))
    return dataclasses.replace(made, card=CARD)


def test_an_uninformative_evaluator_is_marked_on_every_chart_and_in_every_table(run):
    assert run.doubtful == {"helpfulness": "uninformative"}
    figures = run_figures(run)
    forest = next(figure for figure in figures if figure.name == "forest-stage3-base")
    assert {row.label: row.muted for row in forest.rows}["helpfulness (uninformative)"]
    assert not {row.label: row.muted for row in forest.rows}["harm prevention"]
    levels = next(figure for figure in figures if figure.name == "levels")
    assert {dot.muted for dot in levels.dots if dot.row.startswith("helpfulness")} == {True}
    page = report_page(run, figures, {})
    assert "uninformative evaluator</span>" in page
    assert "made <pairs>" not in page
    assert "made &lt;pairs&gt;" in page


def test_a_card_of_another_version_vouches_for_nothing():
    assert standings_of(CARD, {"harm_prevention": "stub-2", "other": "1"}) == {
        "harm_prevention": "unvalidated",
        "other": "unvalidated",
    }
    assert standings_of(None, {"harm_prevention": "stub-1"}) == {}


def test_the_card_is_drawn_beside_length_and_what_was_fitted_on_is_grey(tmp_path):
    (figure,) = card_figures(CARD)
    assert figure.series == ("evaluator", "length alone")
    assert figure.reference == 0.5
    muted = {dot.row: dot.muted for dot in figure.dots}
    assert muted == {
        "harm prevention · made <pairs>": False,
        "helpfulness · made <pairs>": True,
        "helpfulness · made <pairs> (fitted on)": True,
    }
    assert [path.suffix for path in save_figure(figure, tmp_path)] == [".png", ".svg"]
    grid = card_grid(CARD)
    assert len(grid.rows) == 3
    assert grid.muted == {1, 2}
