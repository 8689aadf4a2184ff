"""Preparation from end to end, on small files and, where they are, on the real ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as parquet
import pytest

from runs.errors import UsageError, UserError
from safety_classifier.data import prepare as module
from safety_classifier.data.prepare import COLUMNS, DataConfig, Prepared, open_prepared, prepare
from safety_classifier.data.splits import SHARES, check_no_leak
from safety_classifier.examples import Example, Preference
from safety_classifier.labels import LABELS
from tests.safety_classifier.data_support import plain_source, real_data, sentence, write_csv, write_sources


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Two sources of 300 rows that overlap, and 60 preference pairs in 20 dialogues."""
    first = write_csv(tmp_path / "first.csv", [{"text": sentence(i), "label": i % 2} for i in range(300)])
    # Rows 280-299 stand in both; every fourth of them with the other label.
    second = write_csv(
        tmp_path / "second.csv",
        [
            {"text": sentence(i).upper(), "label": (i + (i % 4 == 0)) % 2, "topic": f"t{i % 25}"}
            for i in range(280, 580)
        ],
    )
    pairs = tmp_path / "pairs.jsonl"
    head = "\n\nHuman: {}\n\nAssistant: ok\n\nHuman: {}\n\nAssistant: {}"
    rows = [
        {
            "chosen": head.format(sentence(i % 20), i, sentence(600 + i)),
            "rejected": head.format(sentence(i % 20), i, sentence(700 + i)),
        }
        for i in range(60)
    ]
    pairs.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return write_sources(
        tmp_path,
        plain_source("first", first),
        plain_source("second", second, group="topic"),
        plain_source("closed", first, ships=False, licence="none stated"),
        {
            "name": "pairs",
            "reader": "transcript_pair",
            "path": str(pairs),
            "format": "jsonl",
            "group": "first",
            "preference": "harmlessness",
        },
    )


@pytest.fixture
def prepared(sources: Path, tmp_path: Path) -> Prepared:
    return prepare(DataConfig(sources=sources), tmp_path / "prepared")


def test_the_table_has_the_declared_columns(prepared: Prepared):
    schema = parquet.read_schema(prepared.rows_file)
    assert tuple(schema.names) == COLUMNS
    assert {str(schema.field(head).type) for head in LABELS.names} == {"float"}
    assert str(schema.field("pair").type) == "int64"
    assert parquet.read_table(prepared.rows_file)["self_harm"].null_count == prepared.manifest.rows


def test_rows_are_masked_where_a_source_does_not_tell(prepared: Prepared):
    frame = prepared.frame()
    assert frame[["hate_speech", "self_harm", "refusal"]].isna().all().all()
    assert frame[frame["source"] == "pairs"]["toxicity"].isna().all()


def test_copies_across_sources_merge_and_conflicts_mask(prepared: Prepared):
    assert prepared.manifest.sources["second"].dropped["copy"] == 20
    assert prepared.manifest.conflicts == {"toxicity": 5}
    frame = prepared.frame()
    assert frame.loc[frame["text"] == sentence(280), "toxicity"].isna().all()
    assert (frame.loc[frame["text"] == sentence(281), "toxicity"] == 1.0).all()


def test_pairs_are_adjacent_with_the_chosen_first(prepared: Prepared):
    pairs = prepared.frame().query("pair >= 0")
    assert len(pairs) == 120
    assert (pairs["pair"].to_numpy()[::2] == pairs["pair"].to_numpy()[1::2]).all()
    assert pairs["harmlessness"].tolist() == [1.0, 0.0] * 60


def test_nothing_leaks(prepared: Prepared):
    frame = prepared.frame()
    check_no_leak(frame)
    assert set(frame["split"]) == set(SHARES)
    for _, group in frame[frame["group"] != ""].groupby("group"):
        assert group["split"].nunique() == 1
    assert sum(len(prepared.frame(split)) for split in SHARES) == prepared.manifest.rows == len(frame)


def test_weights_balance_and_keep_their_mean(prepared: Prepared):
    train = prepared.frame("train")
    labelled = train[train["toxicity"].notna()]
    assert labelled["weight"].mean() == pytest.approx(1.0, abs=1e-5)
    assert (train.loc[train["pair"] >= 0, "weight"] == 1.0).all()


def test_the_second_call_reads_the_first(
    sources: Path, tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_build", lambda *_: pytest.fail("built again"))
    assert prepare(DataConfig(sources=sources), tmp_path / "prepared") == prepared


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"exclude": ("pairs",)}, {"max_rows": 50}, {"include_unlicensed": True}]
)
def test_another_config_is_another_folder(sources: Path, tmp_path: Path, prepared: Prepared, change: dict):
    other = prepare(DataConfig(sources=sources, **change), tmp_path / "prepared")
    assert other.folder != prepared.folder
    if "max_rows" in change:
        assert other.manifest.sources["first"].dropped == {"limit": 250}
    if "include_unlicensed" in change:
        assert other.manifest.sources["closed"].ships is False
    else:
        assert "closed" not in other.manifest.sources


def test_changed_bytes_are_another_folder(sources: Path, tmp_path: Path, prepared: Prepared):
    with (tmp_path / "first.csv").open("a", encoding="utf-8") as handle:
        handle.write(f"{sentence(999)},1\n")
    assert prepare(DataConfig(sources=sources), tmp_path / "prepared").folder != prepared.folder


def test_splits_do_not_depend_on_the_folder(sources: Path, tmp_path: Path, prepared: Prepared):
    again = prepare(DataConfig(sources=sources), tmp_path / "elsewhere")
    assert again.frame().equals(prepared.frame())
    assert again.manifest == prepared.manifest


def test_errors_name_the_thing(sources: Path, tmp_path: Path, prepared: Prepared):
    with pytest.raises(UsageError, match="Did you mean 'pairs'"):
        prepare(DataConfig(sources=sources, exclude=("pair",)), tmp_path)
    with pytest.raises(UsageError, match="No data source is left"):
        prepare(DataConfig(sources=sources, exclude=("first", "second", "pairs")), tmp_path)
    with pytest.raises(UsageError, match="Unknown split 'valid'"):
        prepared.frame("valid")
    with pytest.raises(UserError, match="is not the manifest"):
        open_prepared(tmp_path)


def test_generated_rows_keep_near_copies_and_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def generate(seed: int) -> list[Example]:
        texts = [f"the old mill by the river sells {thing} every day" for thing in ("lamps", "pots", "hats", "nets")]
        return [Example(text=text, labels={"toxicity": 0.0}, source="template", group="mill") for text in texts]

    def preferences(seed: int) -> list[Preference]:
        return [Preference(context="q", chosen="a", rejected="b", head="helpfulness", source="x", group="mill")]

    fake = ModuleType("safety_classifier.synthetic")
    fake.generate, fake.preferences = generate, preferences  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "safety_classifier.synthetic", fake)
    path = write_csv(tmp_path / "a.csv", [{"text": sentence(i), "label": 0} for i in range(50)])
    register = write_sources(
        tmp_path, plain_source("a", path), {"name": "own", "builtin": "synthetic", "keep_near_duplicates": True}
    )
    prepared = prepare(DataConfig(sources=register), tmp_path / "prepared")
    own = prepared.frame().query("source == 'own'")
    assert len(own) == 6
    assert own["split"].nunique() == 1
    assert sum(prepared.manifest.synthetic.values()) == 6


@pytest.mark.slow
def test_the_real_data(tmp_path: Path):
    real_data()
    prepared = prepare(DataConfig(exclude=("synthetic",), max_rows=300), tmp_path)
    frame = prepared.frame()
    assert all(entry.malformed == 0 and entry.kept > 0 for entry in prepared.manifest.sources.values())
    assert all(np.isin(frame[head].dropna(), (0.0, 1.0)).all() for head in LABELS.names)
    labelled = prepared.manifest.heads["train"]
    assert all(labelled[head].positive > 0 for head in LABELS.names)
