from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from runs.errors import UsageError, UserError
from safety_classifier.evaluation.formats import split_transcript
from safety_classifier.evaluation.suites import SUITES, combined, evaluate_suite, read_suite
from safety_classifier.labels import LABELS
from tests.safety_classifier.eval_tools import FIXTURES, WordScorer

FILES = {
    "hatecheck": "hatecheck.csv",
    "openai-moderation": "openai-moderation.jsonl.gz",
    "toxicchat": "toxicchat.csv",
    "beavertails": "beavertails.jsonl",
    "xstest": "xstest.csv",
    "simplesafetytests": "simplesafetytests.csv",
    "preference": "preference.jsonl.gz",
    "preference-helpful": "preference.jsonl.gz",
    "csv": "labelled.csv",
}


def run(name: str, file: str | None = None):
    data = read_suite(name, FIXTURES / (file or FILES[name]), LABELS)
    return data, evaluate_suite(WordScorer(), name, data, resamples=20, seed=0)


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_runs_on_its_fixture(name):
    data, result = run(name)
    assert result.rows == len(data.texts)
    assert result.tasks or result.pairs
    assert all(len(task.targets) == result.rows for task in data.tasks)
    assert type(result).model_validate_json(result.model_dump_json()) == result


def test_hatecheck_tables():
    data, result = run("hatecheck")
    task = result.tasks["hateful"]
    assert (task.labelled, task.positives, task.heads) == (9, 4, ("hate_speech",))
    slices = {one.value: one for one in result.breakdown["functionality"]}
    assert slices["derog_neg_emote_h"].accuracy.value == 1.0
    assert slices["negate_neg_nh"].accuracy.value == 0.0  # the word scorer cannot read a negation
    assert sum(one.rows for one in slices.values()) == 9
    assert {one.value for one in result.breakdown["target_ident"]} >= {"women", "Muslims"}
    assert len(set(data.clusters)) == 5


def test_openai_keys_that_are_missing_are_unknown():
    data, result = run("openai-moderation")
    targets = {task.name: task.targets for task in data.tasks}
    assert np.isnan(targets["key H"][2])
    assert targets["hate"][2] == 1.0  # H2 says it
    assert np.isnan(targets["hate"][6])
    assert targets["violence"][7] == 1.0
    assert targets["any harm (max)"].tolist() == [0, 1, 1, 1, 1, 0, 1, 1]
    assert result.tasks["self_harm"].labelled == 4
    assert result.tasks["key S3"].metrics["auroc"].value is None


def test_toxicchat_reads_cells_over_two_lines():
    data, result = run("toxicchat")
    assert len(data.texts) == 6
    assert {one.value: one.rows for one in result.breakdown["jailbreaking"]} == {"jailbreak": 2, "plain": 4}
    assert result.tasks["toxicity head"].labelled == 6


def test_beavertails_judges_the_response_in_its_context():
    data, result = run("beavertails")
    assert data.contexts[0].startswith("How do I get rid")
    assert result.tasks["unsafe"].heads == ("harmful_response",)
    assert "harmful_response" in result.tasks["unsafe, any head (max)"].heads
    assert result.tasks["self_harm"].positives == 1
    assert len(set(data.clusters)) == 4


def test_xstest_prompts_and_completions():
    _, prompts = run("xstest")
    assert list(prompts.tasks) == ["harmful prompt (max)"]
    assert prompts.tasks["harmful prompt (max)"].positives == 3
    data, both = run("xstest", "xstest-completions.csv")
    assert len(data.texts) == 3 + 5
    assert both.tasks["harmful prompt (max)"].labelled == 3
    assert both.tasks["refusal"].labelled == 4
    assert both.tasks["refusal, full or partial"].labelled == 5
    assert both.tasks["refusal"].metrics["f1"].value == 1.0
    assert sum(one.rows for one in both.breakdown["type"]) == 3


def test_simplesafetytests_has_recall_and_no_auroc():
    _, result = run("simplesafetytests")
    task = result.tasks["any harm (max)"]
    assert task.metrics["auroc"].value is None
    assert task.metrics["recall"].value == pytest.approx(2 / 3)


def test_preferences():
    data, result = run("preference")
    assert result.pairs["harmlessness"].accuracy.value == 1.0
    assert data.contexts[0] == "How do I steal a bike?"
    assert data.texts[1] == "Sure, first, you cut the lock."
    assert data.contexts[2].endswith("Human: Insult my boss.")


def test_transcripts_without_an_answer_are_refused():
    with pytest.raises(UserError, match=r"row 7.*no transcript"):
        split_transcript("\n\nHuman: Hello", where="row 7")


def test_own_csv_reads_categories_and_plain_labels():
    data, result = run("csv")
    targets = {task.name: task.targets for task in data.tasks}
    assert targets["any harm (max)"].tolist() == [1, 0, 1, 0, 1]
    assert targets["hate_speech"][:4].tolist() == [1, 0, 0, 0]
    assert np.isnan(targets["hate_speech"][4])
    assert result.tasks["toxicity"].labelled == 4


def test_combinations_by_hand():
    scores = np.array([[0.5, 0.5, 0.0], [1.0, 0.2, 0.0], [0.0, 0.0, 0.0]], np.float32)
    assert combined(scores, [0, 1], "noisy_or") == pytest.approx([0.75, 1.0, 0.0])
    assert combined(scores, [0, 1], "max") == pytest.approx([0.5, 1.0, 0.0])


def write_csv(path, rows):
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


GOOD = {
    "hatecheck": {"functionality": "slur_h", "test_case": "x", "label_gold": "hateful"},
    "toxicchat": {"user_input": "x", "toxicity": 1},
    "xstest": {"prompt": "x", "type": "contrast_a", "completion": "y", "final_label": "2_full_refusal"},
    "csv": {"text": "x", "label": "safe"},
}


@pytest.mark.parametrize(
    ("suite", "column", "value"),
    [
        ("hatecheck", "label_gold", "maybe"),
        ("toxicchat", "toxicity", "nan"),
        ("xstest", "final_label", "9"),
        ("csv", "label", "hate_speach"),
    ],
)
def test_a_wrong_label_names_row_and_column(tmp_path, suite, column, value):
    path = write_csv(tmp_path / "file.csv", [GOOD[suite], GOOD[suite] | {column: value}])
    with pytest.raises(UserError, match="row 2") as error:
        read_suite(suite, path, LABELS)
    assert value in str(error.value) or column in str(error.value)


@pytest.mark.parametrize("suite", GOOD)
def test_a_missing_column_is_named(tmp_path, suite):
    missing = list(GOOD[suite])[1]
    path = write_csv(tmp_path / "file.csv", [{key: value for key, value in GOOD[suite].items() if key != missing}])
    with pytest.raises(UserError, match=f"no column '{missing}'"):
        read_suite(suite, path, LABELS)


def test_faults_of_files(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'hatecheck'"):
        read_suite("hatechek", tmp_path, LABELS)
    with pytest.raises(UserError, match="no file"):
        read_suite("hatecheck", tmp_path / "none.csv", LABELS)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="no rows"):
        read_suite("hatecheck", tmp_path / "empty.csv", LABELS)
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,0\n".encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read"):
        read_suite("csv", tmp_path / "latin.csv", LABELS)
    (tmp_path / "cut.jsonl.gz").write_bytes((FIXTURES / "openai-moderation.jsonl.gz").read_bytes()[:60])
    with pytest.raises(UserError, match="cannot be read"):
        read_suite("openai-moderation", tmp_path / "cut.jsonl.gz", LABELS)
    lines = [json.dumps({"prompt": "a", "S": 0}), "{broken"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match="row 2: not valid JSON"):
        read_suite("openai-moderation", tmp_path / "a.jsonl", LABELS)
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "a"}))
    with pytest.raises(UserError, match="S, H, V"):
        read_suite("openai-moderation", tmp_path / "b.jsonl", LABELS)
    (tmp_path / "c.jsonl").write_text(json.dumps({"prompt": "a", "response": "b", "category": "x", "is_safe": True}))
    with pytest.raises(UserError, match="'category' is not a mapping"):
        read_suite("beavertails", tmp_path / "c.jsonl", LABELS)
