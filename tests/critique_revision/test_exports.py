"""Exports as those who read them see them: datasets, TRL's DPO, OpenAI's fine-tuning format, llm-swarm's columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from critique_revision.export import FORMATS, Exportable, export, open_filtered, preferred_text
from critique_revision.folder import open_finished
from critique_revision.pairs import filter_run, statistics, write_filtered
from finetune import data as finetune_data
from finetune.config import DPOData
from tests.critique_revision import recipe_driver
from tests.critique_revision.test_marking import Words


def exportable(recipe: Path, folder: Path, **settings: object) -> Exportable:
    recipe_driver.run(recipe, folder)
    run = open_finished(folder)
    filters = run.config.filters.model_copy(update=settings)
    outcome = filter_run(run, filters, judge=Words())
    write_filtered(folder, outcome, statistics(run, outcome, filters))
    return open_filtered(run)


@pytest.fixture
def data(recipe: Path, tmp_path: Path) -> Exportable:
    return exportable(recipe, tmp_path / "run", holdout_fraction=0.4)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_openai_rows_are_as_documented_and_the_sides_are_two_files(data: Exportable, tmp_path: Path) -> None:
    manifest = export(data, "openai", tmp_path / "openai", command="x")
    train, held = (lines(tmp_path / "openai" / name) for name in ("training.jsonl", "validation.jsonl"))
    sides = [pair.split for pair in data.pairs]
    assert (len(train), len(held)) == (sides.count("train"), sides.count("holdout"))
    assert min(len(train), len(held)) > 0
    assert manifest.counts["rows"] == len(data.pairs)
    for row in (*train, *held):
        assert set(row) == {"input", "preferred_output", "non_preferred_output"}
        assert set(row["input"]) == {"messages", "tools", "parallel_tool_calls"}
        assert row["input"]["messages"][-1]["role"] == "user"
        for side in ("preferred_output", "non_preferred_output"):
            (message,) = row[side]
            assert set(message) == {"role", "content"}
            assert message["role"] == "assistant"
    asked = {json.dumps(row["input"]["messages"]) for row in train}
    assert asked.isdisjoint(json.dumps(row["input"]["messages"]) for row in held)


def test_a_side_that_is_gone_leaves_no_file(data: Exportable, tmp_path: Path) -> None:
    export(data, "openai", tmp_path / "openai", command="x")
    everything = [pair.model_copy(update={"split": "train"}) for pair in data.pairs]
    export(Exportable(data.run, everything, data.accepted, data.stats), "openai", tmp_path / "openai", command="x")
    assert not (tmp_path / "openai" / "validation.jsonl").exists()


def test_finetune_draws_the_same_line(data: Exportable, tmp_path: Path) -> None:
    export(data, "dpo", tmp_path / "dpo", command="x")
    rows = lines(tmp_path / "dpo" / "pairs.jsonl")
    section = DPOData(sources=[{"path": str(tmp_path / "dpo" / "pairs.jsonl")}], holdout_fraction=0.4)
    counted = finetune_data.dpo_examples(section, None)
    assert len(counted.holdout) == sum(row["split"] == "holdout" for row in rows) > 0
    assert len(counted.train) == sum(row["split"] == "train" for row in rows) > 0
    sft = list(FORMATS["sft"].rows(data))
    by_prompt = {row["prompt_id"]: row["split"] for row in rows}
    assert all(row["split"] == by_prompt[row["prompt_id"]] for row in sft if row["prompt_id"] in by_prompt)


@pytest.mark.slow
def test_trl_reads_the_pairs_and_prepares_them_for_dpo(data: Exportable, tmp_path: Path, tiny_llama: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    export(data, "dpo", tmp_path / "dpo", command="x")
    read = load_dataset(
        "json", data_files=str(tmp_path / "dpo" / "pairs.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(read) == len(data.pairs)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=DPOConfig(output_dir=str(tmp_path / "out"), report_to="none", use_cpu=True, bf16=False, max_length=4096),
        train_dataset=read,
        processing_class=tokenizer,
    )
    prepared = trainer.train_dataset
    assert len(prepared) == len(data.pairs)
    for row, pair in zip(prepared, data.pairs, strict=True):
        assert tokenizer.decode(row["chosen_ids"], skip_special_tokens=True).strip() == pair.chosen[0].content
        assert tokenizer.decode(row["rejected_ids"], skip_special_tokens=True).strip() == pair.rejected[0].content
        assert pair.prompt[-1].content in tokenizer.decode(row["prompt_ids"])


def test_without_a_history_the_two_texts_stand_for_themselves(data: Exportable) -> None:
    whole = next(iter(FORMATS["llm-swarm"].rows(data)))
    other = data.pairs[0].model_copy(update={"step": 7, "principle_ids": ()})
    row = next(iter(FORMATS["llm-swarm"].rows(Exportable(data.run, [other], [], data.stats))))
    assert list(row) == list(whole)
    assert (row["init_response"], row["revision_response"]) == (other.rejected[0].content, other.chosen[0].content)
    assert row["critic_prompt"] == row["critic_response"] == row["revision_prompt"] == row["principle_id"] == ""


def test_the_card_says_what_was_checked(recipe: Path, tmp_path: Path) -> None:
    from critique_revision.config import ClassifierFilter, PreferenceCheck

    plain = exportable(recipe, tmp_path / "a", preference_check=PreferenceCheck(enabled=True))
    export(plain, "dpo", tmp_path / "dpo", command="x")
    card = (tmp_path / "dpo" / "DATASET_CARD.md").read_text()
    for part in ("2.0% of prompts held out", "5-character shingles from 0.8", "core.jsonl (", "helpfulness"):
        assert part in card, part
    assert "safety classifier" not in card.split("## Checks")[1].split("##")[0]
    judged = exportable(recipe, tmp_path / "b", classifier=ClassifierFilter(enabled=True))
    ids = [export(one, "dpo", tmp_path / f"{n}", command="x").run_id for n, one in enumerate((plain, judged))]
    assert ids[0] != ids[1]
    assert "safety classifier words: 0 left out" in (tmp_path / "1" / "DATASET_CARD.md").read_text()


def test_runs_that_older_filters_wrote_still_export(data: Exportable, tmp_path: Path) -> None:
    new = ("checked_against", "chosen_preferred", "balance", "by_recipe")
    stats = {key: value for key, value in data.stats.items() if key not in new}
    keys = ("holdout_fraction", "dedup", "evaluation_prompts", "classifier", "preference_check")
    stats["settings"] = {key: value for key, value in stats["settings"].items() if key not in keys}
    pairs = [pair.model_copy(update={"split": None}) for pair in data.pairs]
    old = Exportable(data.run, pairs, data.accepted, stats)
    for name in FORMATS:
        export(old, name, tmp_path / name, command="x")
        assert "## Checks" not in (tmp_path / name / "DATASET_CARD.md").read_text()
    assert all("split" not in row for row in lines(tmp_path / "dpo" / "pairs.jsonl"))
    assert not (tmp_path / "openai" / "validation.jsonl").exists()
    assert preferred_text(old.stats) == "not measured"
