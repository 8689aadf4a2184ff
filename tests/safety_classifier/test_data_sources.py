"""The register of sources: rules, short forms, and errors that name the fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from runs.errors import UsageError
from runs.paths import CONFIGS
from safety_classifier.data.rules import Rule, decide
from safety_classifier.data.sources import load_sources
from safety_classifier.labels import LABELS
from tests.safety_classifier.data_support import plain_source, write_sources


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "safety_classifier").glob("sources*.yaml")), ids=lambda path: path.name
)
def test_every_shipped_register_loads(path: Path):
    sources = load_sources(path)
    assert sources
    assert not any(source.ships for source in sources if source.licence == "none stated")


def test_every_head_but_preferences_has_a_source_or_is_synthetic():
    labelled = {
        head for source in load_sources(CONFIGS / "safety_classifier" / "sources.yaml") for head in source.labels
    }
    assert labelled == set(LABELS.of("category", "response"))


def test_an_unknown_label_is_named(tmp_path: Path):
    path = write_sources(tmp_path, plain_source("a", tmp_path / "a.csv", labels={"toxicty": 0}))
    with pytest.raises(UsageError, match=r"source 'a': Unknown label 'toxicty'(.|\n)*Did you mean 'toxicity'"):
        load_sources(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reader": "tabel"}, "Unknown reader 'tabel'"),
        ({"labels": {"harmlessness": 1}}, "is trained on pairs"),
        ({"labels": {}, "preference": "kindness"}, "Unknown preference 'kindness'"),
        ({"labels": {"toxicity": {"column": "label", "values": {"1": 2}}}}, "lies between 0 and 1"),
        ({"labels": {"toxicity": {"column": "label", "matches": "(", "then": 1}}}, "not a regular expression"),
        ({"labels": {"toxicity": {"matches": "x", "then": 1}}}, "names a 'column'"),
        ({"labels": {"toxicity": [{"column": "label"}]}}, "names a 'column'"),
        ({"labels": {"toxicity": {"column": "label", "matches": "x", "below": 2, "then": 1}}}, "has one of"),
        ({"labels": {}}, "either 'labels' or 'preference'"),
        ({"format": None}, "no 'format'"),
        ({"path": []}, "'hub'"),
        ({"wieght": 2.0}, "did you mean 'weight'"),
    ],
)
def test_faults_in_the_register_are_named(tmp_path: Path, change: dict, message: str):
    path = write_sources(tmp_path, {**plain_source("a", tmp_path / "a.csv"), **change})
    with pytest.raises(UsageError, match=message):
        load_sources(path)


def test_a_name_stands_once(tmp_path: Path):
    source = plain_source("a", tmp_path / "a.csv")
    with pytest.raises(UsageError, match="'a' is declared twice"):
        load_sources(write_sources(tmp_path, source, source))


def test_categories_stand_for_those_that_are_not_named(tmp_path: Path):
    labels = {"categories": 0, "sexual": "unknown"}
    (source,) = load_sources(write_sources(tmp_path, plain_source("a", tmp_path / "a.csv", labels=labels)))
    verdicts = {head: decide(rules, {}) for head, rules in source.labels.items()}
    assert verdicts == {**dict.fromkeys(LABELS.categories, 0.0), "sexual": "unknown"}


@pytest.mark.parametrize(
    ("rule", "value", "verdict"),
    [
        ({"values": {"1": 1}}, 1, 1.0),
        ({"values": {"1": 1}}, 1.0, 1.0),
        ({"values": {1: 1}}, "1", 1.0),
        ({"values": {"1": 1}}, "2", None),
        ({"values": {"": "unknown"}}, None, "unknown"),
        ({"matches": "^no\\b", "then": 0}, "No, thanks", 0.0),
        ({"matches": "^no\\b", "then": 0}, "nothing", None),
        ({"at_least": 0.5, "then": 1}, "0.5", 1.0),
        ({"at_least": 0.5, "then": 1}, "0.4", None),
        ({"below": 0.5, "then": 0}, 0.4, 0.0),
        ({"below": 0.5, "then": 0}, 0.5, None),
    ],
)
def test_a_rule_decides(rule: dict, value: object, verdict: object):
    assert Rule.model_validate({"column": "c", **rule}).decide({"c": value}) == verdict


def test_the_first_rule_that_applies_decides():
    rules = tuple(
        Rule.model_validate(rule) for rule in ({"column": "a", "values": {"1": 1}}, {"column": "b", "values": {"0": 0}})
    )
    assert decide(rules, {"a": "1", "b": "0"}) == 1.0
    assert decide(rules, {"a": "0", "b": "0"}) == 0.0
    assert decide(rules, {"a": "0", "b": "1"}) is None
