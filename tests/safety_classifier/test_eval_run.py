from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runs.config import load
from runs.console import Reporter
from runs.errors import UsageError, UserError
from safety_classifier.evaluation.baselines import BASELINES, fit_baseline
from safety_classifier.evaluation.config import EvaluateConfig, Goal, Settings
from safety_classifier.evaluation.frame import rows_of
from safety_classifier.evaluation.latency import measure_latency
from safety_classifier.evaluation.metrics import metric_table
from safety_classifier.evaluation.report import html_table
from safety_classifier.evaluation.results import CLASSIFIER, read_results
from safety_classifier.evaluation.run import evaluate_classifier, render
from safety_classifier.evaluation.scorer import RememberedScorer, Scorer, checked
from safety_classifier.labels import LABELS
from tests.safety_classifier.eval_tools import FIXTURES, WordScorer, small_frame

QUICK = Settings(
    resamples=10,
    fairness_resamples=3,
    attack_resamples=5,
    attacks=("typos", "benign_padding"),
    attack_rows=10,
    compare=("word_list",),
    latency_batches=(1, 4),
    latency_seconds=0.01,
    goals=(
        Goal(figure="test/macro/auprc", at_least=0.5),
        Goal(figure="attack/typos/macro/loss", at_most=-1.0),
        Goal(figure="suite/none/x", at_least=0.5),
    ),
)


@pytest.fixture(scope="module", autouse=True)
def _few_features() -> Iterator[None]:
    """Half a million weights a head for a hundred rows would only cost time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safety_classifier.evaluation.baselines.FEATURES", 2**12)
        yield


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate_classifier(
        WordScorer(),
        small_frame(30),
        suites=[("hatecheck", FIXTURES / "hatecheck.csv"), ("preference", FIXTURES / "preference.jsonl.gz")],
        baselines=["always_safe", "word_list", "length", "tfidf"],
        folder=folder,
        reporter=Reporter(quiet=True),
        settings=QUICK,
        identity="words",
    )
    return folder


def test_results_hold_everything_with_denominators(evaluated):
    results = read_results(evaluated / "results.json")
    assert list(results.tables) == [CLASSIFIER, "always_safe", "word_list", "length", "tfidf"]
    assert results.counts["test"]["rows"] == len(small_frame(30).query("split == 'test'"))
    assert set(results.attacks) == {CLASSIFIER, "word_list"}
    assert results.reliability["toxicity"].ece_mass[0] != results.reliability["toxicity"].ece_mass[1]
    assert [one.batch for one in results.latency] == [1, 4]
    assert set(results.suites) == {"hatecheck", "preference"}
    assert results.figures["test/macro/auprc"] == results.tables[CLASSIFIER].macro.metrics["auprc"].value
    assert [one.reached for one in results.goals] == [True, False, None]
    assert "suite/preference/harmlessness/pair_accuracy" in results.figures
    assert json.loads((evaluated / "results.json").read_text())["schema_version"] == 1


def test_report_is_one_well_formed_file_without_the_network(evaluated):
    text = (evaluated / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "<script" not in text
    assert text.count("data:image/svg+xml") >= 7

    class Balance(HTMLParser):
        void = frozenset({"meta", "img"})

        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag, attrs):
            if tag not in self.void:
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Balance()
    parser.feed(text)
    assert not parser.open
    names = {path.stem for path in (evaluated / "figures").glob("*.svg")}
    assert names == {path.stem for path in (evaluated / "figures").glob("*.png")}
    assert {"scorers", "precision_recall", "reliability", "sources", "attacks", "bias", "functionalities"} <= names


def test_card_has_the_tables(evaluated):
    card = (evaluated / "card.md").read_text()
    for part in ("### Heads", "### Beside baselines", "### Attacks", "### Fairness", "### Suites", "hate_speech"):
        assert part in card
    widths = {
        line.count("|") for line in card.split("### Heads")[1].split("###")[0].splitlines() if line.startswith("|")
    }
    assert len(widths) == 1


def test_no_text_of_the_data_is_written(evaluated):
    table = pd.read_parquet(evaluated / "predictions.parquet")
    assert "text" not in table.columns
    assert f"{CLASSIFIER}.toxicity" in table.columns
    for path in evaluated.rglob("*"):
        if path.is_file():
            assert b"Shut up, clown" not in path.read_bytes()


def test_the_same_run_from_stored_scores_alone(evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr("safety_classifier.evaluation.run.measure_latency", lambda *_, **__: [])
    monkeypatch.setattr("safety_classifier.evaluation.run.write_report", lambda *_: None)
    stored = read_results(evaluated / "results.json")
    args = {
        "suites": [("hatecheck", FIXTURES / "hatecheck.csv"), ("preference", FIXTURES / "preference.jsonl.gz")],
        "folder": evaluated,
        "reporter": Reporter(quiet=True),
        "settings": QUICK,
    }
    scorer = WordScorer()
    names = ["always_safe", "word_list", "length", "tfidf"]
    evaluate_classifier(scorer, small_frame(30), baselines=names, identity="words", **args)
    assert scorer.calls == 0
    again = evaluate_classifier(None, small_frame(30), baselines=names, **args)
    assert again.tables == stored.tables
    assert again.attacks == stored.attacks
    assert again.fairness == stored.fairness
    assert again.suites == stored.suites
    assert again.latency == ()
    changed = small_frame(30)
    changed.loc[changed.index[-20], "text"] += " Changed."
    with pytest.raises(UserError, match="no stored score"):
        evaluate_classifier(None, changed, **args)
    with pytest.raises(UserError, match="no results"):
        render(tmp_path)


def test_faults_come_before_the_work(tmp_path):
    scorer = WordScorer()
    arguments = {"folder": tmp_path, "reporter": Reporter(quiet=True), "settings": QUICK}
    with pytest.raises(UsageError, match="Unknown suite"):
        evaluate_classifier(scorer, small_frame(5), suites=[("hatechec", FIXTURES / "hatecheck.csv")], **arguments)
    with pytest.raises(UserError, match="no column 'toxicity'"):
        evaluate_classifier(scorer, small_frame(5).drop(columns="toxicity"), **arguments)
    assert scorer.calls == 0
    with pytest.raises(UsageError, match="Unknown baseline"):
        evaluate_classifier(scorer, small_frame(5), baselines=["tfdif"], **arguments)


def test_remembered_scores_are_made_once_and_bound_to_their_scorer(tmp_path):
    inner, path = WordScorer(), tmp_path / "scores.parquet"
    scorer = RememberedScorer(inner, path, identity="one")
    texts = ["a", "b", "a", "\ud800 lone"]
    first = scorer.probabilities(texts, ["x", "", "", ""])
    assert inner.seen == ["a", "b", "a", "\ud800 lone"]
    assert (scorer.probabilities(texts, ["x", "", "", ""]) == first).all()
    assert inner.calls == 1
    scorer.save()
    alone = RememberedScorer(None, path)
    assert isinstance(alone, Scorer)
    assert (alone.probabilities(texts, ["x", "", "", ""]) == first).all()
    assert alone.thresholds == inner.thresholds
    with pytest.raises(UserError, match="1 texts have no stored score"):
        alone.probabilities(["new"])
    other = WordScorer()
    RememberedScorer(other, path, identity="two").probabilities(["a"])
    assert other.calls == 1
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="does not hold stored scores"):
        RememberedScorer(None, path)
    with pytest.raises(UserError, match="no stored scores"):
        RememberedScorer(None, tmp_path / "none.parquet")


def test_broken_scores_name_their_row():
    class Broken(WordScorer):
        def probabilities(self, texts, contexts=None):
            found = super().probabilities(texts, contexts)
            found[1, 3] = np.nan
            return found

    class Narrow(WordScorer):
        def probabilities(self, texts, contexts=None):
            return super().probabilities(texts, contexts)[:, :2]

    with pytest.raises(UserError, match="row 1 for 'toxicity' is nan"):
        checked(Broken(), ["a", "b"])
    with pytest.raises(UserError, match="shape"):
        checked(Narrow(), ["a"])
    with pytest.raises(UserError, match="2 texts came with 1 contexts"):
        checked(WordScorer(), ["a", "b"], ["c"])
    assert checked(WordScorer(), []).shape == (0, len(LABELS.heads))


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_scorers(name):
    frame = small_frame(40)
    train, validation, test = (rows_of(frame, LABELS, split) for split in ("train", "validation", "test"))
    baseline = fit_baseline(name, LABELS, train, validation, seed=0)
    assert isinstance(baseline, Scorer)
    assert baseline.unfitted == ()
    scores = checked(baseline, test.texts, test.contexts)
    table = metric_table(LABELS, test, scores, baseline.thresholds, resamples=0, seed=0)
    value = table.macro.metrics
    if name == "always_safe":
        assert value["f1"].value == 0.0
        assert value["auroc"].value == 0.5
    if name == "tfidf":
        assert value["auroc"].value > 0.95
        assert value["f1"].value > 0.8
        again = fit_baseline(name, LABELS, train, validation, seed=0)
        assert (again.probabilities(test.texts) == scores).all()
    assert checked(baseline, []).shape == (0, len(LABELS.heads))


def test_a_head_without_training_rows_is_reported_and_never_flagged():
    frame = small_frame(20)
    frame["refusal"] = np.nan
    train, validation = (rows_of(frame, LABELS, split) for split in ("train", "validation"))
    baseline = fit_baseline("length", LABELS, train, validation, seed=0)
    assert baseline.unfitted == ("refusal",)
    scores = baseline.probabilities(["I'm sorry."])
    assert scores[0, LABELS.column("refusal")] < baseline.thresholds["refusal"]


def test_latency_counts_calls():
    found = measure_latency(WordScorer(), ["a", "bb"], batches=(2,), seconds=0.001, most=5)
    assert 3 <= found[0].calls <= 5
    assert found[0].p50_ms <= found[0].p95_ms
    assert 1 <= found[0].mean_characters <= 2


def test_cells_are_escaped():
    assert "&lt;script&gt;" in html_table(["a"], [["<script>"]])


def test_the_shipped_config_is_valid():
    config = load(EvaluateConfig, Path("configs/safety_classifier/evaluate.yaml"))
    assert config.settings.attacks
    with pytest.raises(UsageError, match="no suite 'hate'"):
        load(
            EvaluateConfig,
            Path("configs/safety_classifier/evaluate.yaml"),
            ["suites=[{suite: hate, path: x.csv}]"],
        )
