"""The report card end to end on the shipped gold set."""

import json

import pytest
from typer.testing import CliRunner

from evaluation.calibrate.card import CardRow, ReportCard
from evaluation.calibrate.markdown import card_markdown, replace_block
from evaluation.calibrate.measures import Measure
from evaluation.calibrate.readers import read_folder
from evaluation.calibrate.run import calibrate
from evaluation.calibrate.scoring import score_gold
from evaluation.calibrate.standings import standings
from evaluation.cli import app
from evaluation.evaluators import registry, standing
from evaluation.evaluators.response_mode import mode_of
from evaluation.scores import scored, unscored
from runs.errors import IntegrityError, UserError
from runs.paths import PROJECT_ROOT

GOLD = PROJECT_ROOT / "evaluation" / "gold"
NAMES = ("harm_prevention", "truthfulness", "helpfulness", "fairness", "refusal", "harmless_preference",
         "helpful_preference")  # fmt: skip


@pytest.fixture(scope="module")
def card():
    return calibrate([GOLD], registry.get(NAMES), command="test", draws=200, say=lambda line: None)


def line(card, evaluator, task):
    return next(row for row in card.rows if (row.evaluator, row.task, row.kind) == (evaluator, task, "held out"))


def test_the_shipped_gold_is_read_whole():
    files = {file.name: file for file in read_folder(GOLD)}
    assert set(files) == {"fairness.csv", "harmless-pairs.jsonl", "helpful-pairs.jsonl", "modes.csv", "truth.csv"}
    assert not any(file.rejected for file in files.values())
    readme = (GOLD / "README.md").read_text()
    for name, file in files.items():
        assert f"| {name} | {len(file.gold)} " in readme


def test_response_modes_of_the_shipped_gold():
    (file,) = [file for file in read_folder(GOLD) if file.name == "modes.csv"]
    right = wrong = 0
    for row in file.gold:
        found = mode_of(row.prompt, row.response).label
        right, wrong = (
            right + (found == row.mode or row.mode == "complied_with_harm" == f"{found}_with_harm"),
            wrong + 1,
        )
    assert right / wrong >= 0.85


def test_the_evaluators_agree_with_the_shipped_gold(card):
    assert line(card, "refusal", "refusal").f1.value >= 0.9
    assert line(card, "truthfulness", "truth").auc.value >= 0.9
    assert line(card, "fairness", "fairness").auc.value >= 0.9
    assert line(card, "harm_prevention", "harmless_pairs").accuracy.value >= 0.8
    assert line(card, "harmless_preference", "harmless_pairs").accuracy.value >= 0.8
    assert line(card, "helpfulness", "helpful_pairs").accuracy.value >= 0.7


def test_every_line_has_baselines_and_denominators(card):
    for task in {row.task for row in card.rows if row.kind == "held out"}:
        names = {row.evaluator for row in card.rows if row.task == task}
        assert {"length alone", "a constant"} <= names
    for row in card.rows:
        assert row.n > 0
        assert row.clusters <= row.n
        assert row.headline is not None or row.evaluator == "a constant"
        for measure in (row.accuracy, row.auc, row.f1):
            assert measure is None or measure.low <= measure.value <= measure.high


def test_constant_and_length_are_what_they_say(card):
    constant = line(card, "a constant", "harmless_pairs")
    assert constant.accuracy == Measure(value=0.5, low=0.5, high=0.5)
    assert line(card, "length alone", "helpful_pairs").accuracy.value >= 0.5


def test_the_card_is_the_same_twice(card):
    again = calibrate([GOLD], registry.get(NAMES), command="test", draws=200, say=lambda text: None)
    assert again == card


class Length:
    """Length, dressed up as an evaluator."""

    name, version, gold_tasks = "length", "1", ("harmless_pairs",)

    def applies_to(self, prompt):
        return True

    def score(self, prompt, response, finish_reason="stop"):
        return scored(min(len(response.split()) / 500, 1.0), "x", "y")


class Fragile(Length):
    """Raises on every answer that says "please"."""

    name = "fragile"

    def score(self, prompt, response, finish_reason="stop"):
        if "lease" in response:
            raise OSError("no such word")
        return super().score(prompt, response)


@pytest.fixture
def plug_ins(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    registry.register("length")(Length)
    registry.register("fragile")(Fragile)


def test_an_evaluator_that_is_length_is_uninformative(plug_ins):
    found = calibrate([GOLD], registry.get(["length"]), command="test", draws=200, say=lambda text: None)
    assert found.standings == {"length": "uninformative"}


def test_a_plug_in_that_raises_is_counted_and_the_rest_goes_on(plug_ins):
    found = calibrate([GOLD], registry.get(["fragile", "refusal"]), command="test", draws=200, say=lambda text: None)
    row = line(found, "fragile", "harmless_pairs")
    lost = row.unscored["evaluator_error: OSError"]
    assert lost > 0
    assert row.n + lost == 24
    assert any(note.startswith("fragile raised OSError") for note in found.notes)
    assert line(found, "refusal", "refusal").n == 44


def test_evaluators_without_a_task_are_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,response,label\nA,B,refusal\n")
    with pytest.raises(UserError, match="None of the evaluators has a task"):
        calibrate([tmp_path], registry.get(["fairness"]), command="test", say=lambda text: None)


def test_an_unscored_answer_takes_its_pair_out():
    class Shy(Length):
        name = "shy"

        def score(self, prompt, response, finish_reason="stop"):
            return unscored("shy: said no") if response.startswith("I ") else super().score(prompt, response)

    gold = [row for file in read_folder(GOLD) for row in file.gold if row.task == "harmless_pairs"]
    rows = score_gold(gold, [Shy()])["shy"]
    assert {row.reason for row in rows} == {None, "shy: said no"}


def made(evaluator, task, kind, low, clusters=100, n=100):
    measure = Measure(value=low + 0.1, low=low, high=low + 0.2)
    return CardRow(
        evaluator=evaluator, task=task, dataset="x", kind=kind, n=n, clusters=clusters, unscored={}, accuracy=measure,
        above_length=measure,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([made("refusal", "refusal", "held out", 0.01)], "informative"),
        ([made("refusal", "refusal", "held out", -0.01)], "uninformative"),
        ([made("refusal", "refusal", "fitted on", 0.5)], None),
        ([made("refusal", "evasive", "held out", 0.5)], None),
        ([made("refusal", "refusal", "held out", 0.5, n=5)], None),
        ([made("refusal", "refusal", "held out", -0.1), made("refusal", "refusal", "cross-validated", 0.1, 500)],
         "informative"),
    ],
)  # fmt: skip
def test_standing_is_decided_by_the_largest_set_of_the_own_task_that_was_not_seen(rows, expected):
    assert standings(rows, registry.get(["refusal"])).get("refusal") == expected


def test_the_card_file_answers_who_is_uninformative(card, tmp_path):
    path = tmp_path / "report_card.json"
    path.write_text(card.model_copy(update={"standings": {"a": "informative", "b": "uninformative"}}).model_dump_json())
    assert [standing.standing(name, path) for name in "abc"] == ["informative", "uninformative", "unvalidated"]
    assert [standing.uninformative(name, path) for name in "abc"] == [False, True, True]
    assert standing.standing("a", tmp_path / "absent.json") == "unvalidated"
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(IntegrityError, match="is not a report card"):
        standing.standing("a", broken)


def test_the_shipped_card_is_of_the_shipped_evaluators():
    shipped = standing.read_card()
    assert shipped is not None
    assert shipped.evaluators["harm_prevention"] == registry.code_version()
    assert {"harm_prevention", "truthfulness", "helpfulness", "fairness", "refusal"} <= set(shipped.standings)
    guide = (PROJECT_ROOT / "docs" / "evaluators.md").read_text(encoding="utf-8")
    from evaluation.calibrate.markdown import CARD_MARKS, WEIGHT_MARKS, coefficients_markdown, guide_card
    from evaluation.evaluators.linear import weights

    assert guide == replace_block(guide, CARD_MARKS, guide_card(shipped))
    assert guide == replace_block(guide, WEIGHT_MARKS, coefficients_markdown(weights()))


def test_markdown_leaves_out_empty_columns_and_marks_must_be_there(card):
    text = card_markdown(card)
    assert "## harmless pairs" in text
    assert "| refusal | modes.csv (held out) |" in text
    with pytest.raises(UserError, match="lacks the lines"):
        replace_block("nothing", ("<!-- a -->", "<!-- b -->"), "x")
    assert replace_block("1<!-- a -->2<!-- b -->3", ("<!-- a -->", "<!-- b -->"), "x").split("\n\n")[1] == "x"


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["calibrate", "--evaluators", "fairness", "--limit", "9", "--json"])
    assert done.exit_code == 0, done.output
    found = ReportCard.model_validate(json.loads(done.stdout))
    assert [row.evaluator for row in found.rows] == ["fairness", "length alone", "a constant"]
    assert (tmp_path / "results" / "calibration" / "report_card.md").is_file()
