"""What all recipes keep: every call once and on record, kills and shards leave no trace, pairs and cards name them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from critique_revision.config import RecipeConfig
from critique_revision.export import export, open_filtered
from critique_revision.folder import SETUP, clear, open_finished
from critique_revision.merge import find_parts, merge
from critique_revision.pairs import Filtered, filter_run, statistics, write_filtered
from critique_revision.prompts import Exclusions, select_prompts
from critique_revision.recipes import RECIPES, recipe_of, stage_names
from critique_revision.records import FilteredStep, PreferencePair
from critique_revision.roles import cast
from critique_revision.text import refuses, words
from inference.records import Message
from runs import config as configs
from runs.errors import UsageError, UserError
from runs.job import Shard
from runs.lock import run_lock
from runs.paths import CONFIGS, PROJECT_ROOT
from runs.records import read_jsonl
from tests.critique_revision import recipe_driver

SHIPPED = CONFIGS / "critique_revision"
REFUSALS = str(SHIPPED / "exemplars-refusals.yaml")
OWN = {
    "teacher": {"teacher": {"principles": 2}},
    "ai-feedback": {"feedback": {"answers": 3, "principles": 2}, "roles": {"generator": {"temperature": 1.0}}},
    "best-of-n": {"scoring": {"answers": 3}, "roles": {"generator": {"temperature": 1.0}}},
    "benign-twins": {"exemplars": {"file": REFUSALS, "count": 2}},
}
"""What a recipe's config has beyond the small one."""


def rewritten(path: Path, **changes: object) -> Path:
    values = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(params=OWN)
def made_by(request: pytest.FixtureRequest, recipe: Path) -> Path:
    """The small config with another recipe."""
    values = yaml.safe_load(recipe.read_text())
    if request.param == "benign-twins":
        values["prompts"] = values["prompts"][1:]
    return rewritten(recipe, recipe=request.param, prompts=values["prompts"], **OWN[request.param])


def contents(folder: Path) -> dict[str, bytes]:
    names = ("run.json", *SETUP, *stage_names(configs.load(RecipeConfig, folder / "config.yaml")))
    return {name: (folder / name).read_bytes() for name in names}


def filtered(folder: Path) -> Filtered:
    run = open_finished(folder)
    outcome = filter_run(run, run.config.filters)
    write_filtered(folder, outcome, statistics(run, outcome, run.config.filters))
    return outcome


def test_every_recipe_is_tested_here() -> None:
    assert {*OWN, "critique-revision"} == set(RECIPES)


def test_all_calls_are_on_record_once_and_as_many_as_the_dry_run_says(made_by: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    manifest = recipe_driver.run(made_by, folder)
    run = open_finished(folder)
    rows = [
        json.loads(line)
        for name in stage_names(run.config)
        for line in (folder / name).read_text().splitlines()
        if name != "scores.jsonl"
    ]
    assert max(Counter(row["key"] for row in rows).values()) == 1
    assert len(rows) == sum(part["calls"] for part in cast(run.config, len(run.prompts)).values())
    assert manifest.kind == run.config.recipe
    for name in stage_names(run.config):
        order = [json.loads(line)["prompt_id"] for line in (folder / name).read_text().splitlines()]
        assert list(dict.fromkeys(order)) == [prompt.prompt_id for prompt in run.prompts]


@pytest.mark.slow
@pytest.mark.parametrize("calls", [3, 21])
def test_killed_run_resumes_to_the_same_bytes(made_by: Path, tmp_path: Path, calls: int) -> None:
    rewritten(made_by, limit=12)
    recipe_driver.run(made_by, tmp_path / "whole")
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.critique_revision.recipe_driver", str(made_by), str(folder), str(calls)]
    killed = subprocess.run(command, cwd=PROJECT_ROOT, check=False)
    if configs.load(RecipeConfig, made_by).recipe == "benign-twins" and calls > 18:
        assert killed.returncode == 0  # it makes 18 calls in all
        return
    assert killed.returncode == -signal.SIGKILL
    torn = max((folder / name for name in ("answers.jsonl", "samples.jsonl") if (folder / name).exists()), key=str)
    with torn.open("ab") as handle:
        handle.write(b'{"key": "abc", "prompt_')
    recipe_driver.run(made_by, folder)
    assert contents(folder) == contents(tmp_path / "whole")
    clear(folder)
    assert not list(folder.glob("*.jsonl"))


@pytest.mark.parametrize("count", [2, 3])
def test_merged_shards_are_the_run_of_one_machine(made_by: Path, tmp_path: Path, count: int) -> None:
    whole = recipe_driver.run(made_by, tmp_path / "whole")
    for index in range(count):
        recipe_driver.run(made_by, tmp_path / "parts" / str(index), shard=Shard(index=index, count=count))
    with run_lock(tmp_path / "merged"):
        merged = merge(find_parts([tmp_path / "parts"]), tmp_path / "merged", command="test")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    assert (merged.run_id, merged.files, merged.counts) == (whole.run_id, whole.files, whole.counts)


def test_pairs_card_and_statistics_name_the_recipe(made_by: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe_driver.run(made_by, folder)
    outcome = filtered(folder)
    run = open_finished(folder)
    assert outcome.pairs
    assert {pair.source_recipe for pair in outcome.pairs} == {run.config.recipe}
    assert len({pair.prompt_id for pair in outcome.pairs}) == len(outcome.pairs)
    assert all(pair.chosen != pair.rejected for pair in outcome.pairs)
    assert len(outcome.steps) == len(run.prompts)
    data = open_filtered(run)
    export(data, "dpo", tmp_path / "dpo", command="the command")
    card = (tmp_path / "dpo" / "DATASET_CARD.md").read_text()
    assert recipe_of(run.config).about(run.config) in card
    assert run.config.recipe in card


def test_another_recipe_is_another_run(made_by: Path, recipe: Path, tmp_path: Path) -> None:
    recipe_driver.run(made_by, tmp_path / "run")
    rewritten(recipe, recipe="critique-revision")
    with pytest.raises(UsageError, match="recipe"):
        recipe_driver.run(recipe, tmp_path / "run")


# Teacher


def test_the_teacher_is_told_principles_of_the_rows_own(recipe: Path, tmp_path: Path) -> None:
    rewritten(recipe, recipe="teacher", teacher={"principles": 2}, limit=9)
    recipe_driver.run(recipe, tmp_path / "run")
    pairs = filtered(tmp_path / "run").pairs
    assert all(len(set(pair.principle_ids)) == 2 for pair in pairs)
    assert len({pair.principle_ids for pair in pairs}) > 1
    assert all(pair.chosen[0].content.startswith("A taught answer") for pair in pairs)
    rewritten(recipe, limit=6)
    recipe_driver.run(recipe, tmp_path / "fewer")
    drawn = {pair.prompt_id: pair.principle_ids for pair in filtered(tmp_path / "fewer").pairs}
    assert drawn == {pair.prompt_id: pair.principle_ids for pair in pairs if pair.prompt_id in drawn}


@pytest.fixture
def on_file(recipe: Path, tmp_path: Path) -> Path:
    """A teacher whose answers to five of the fourteen prompts are on file."""
    topics = ("bread", "roses", "maps", "clocks", "rivers")
    rows = [
        {"prompt": f"What is good about {topic}?", "response": f"Much is good about {topic}, as all agree."}
        for topic in topics
    ]
    rows[4]["response"] = "Much is good about rivers, as all agree. And they also"
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rewritten(
        recipe,
        recipe="teacher",
        teacher={"principles": 0},
        recorded={"big": {"source": {"path": str(tmp_path / "answers.jsonl")}, "model": "Big", "licence": "CC0-1.0"}},
        roles={"teacher": {"engine": "big"}},
    )


def test_answers_on_file_teach_and_prompts_without_one_are_left_out(on_file: Path, tmp_path: Path) -> None:
    selection = select_prompts(configs.load(RecipeConfig, on_file))
    assert [counts["no_recorded_answer"] for counts in selection.counts.values()] == [9, 3]
    assert configs.load(RecipeConfig, on_file).players == ["base", "big"]


def test_a_pair_from_file_ends_with_a_whole_sentence(
    on_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference.engines.recorded import RecordedEngine

    loaded = configs.load(RecipeConfig, on_file)
    own = recipe_driver.engines
    monkeypatch.setattr(
        recipe_driver, "engines", lambda kill=None: {**own(kill), "big": RecordedEngine(loaded.recorded["big"], "big")}
    )
    manifest = recipe_driver.run(on_file, tmp_path / "run")
    assert manifest.counts["taught"] == {"calls": 5, "prompt_tokens": 0, "completion_tokens": 0}
    assert manifest.inputs["models"]["big"]["model"] == "Big"
    pairs = filtered(tmp_path / "run").pairs
    assert len(pairs) == 5
    assert all(pair.chosen[0].content.endswith("as all agree.") for pair in pairs)
    data = open_filtered(open_finished(tmp_path / "run"))
    export(data, "dpo", tmp_path / "dpo", command="x")
    card = (tmp_path / "dpo" / "DATASET_CARD.md").read_text()
    assert "Big, answers on file" in card
    assert "CC0-1.0 (Big)" in card


def test_impossible_casts_are_refused(on_file: Path) -> None:
    def load(*overrides: str) -> RecipeConfig:
        return configs.load(RecipeConfig, on_file, overrides)

    with pytest.raises(UsageError, match=r"teacher\.principles must be 0"):
        load("teacher.principles=2")
    with pytest.raises(UsageError, match="generator or teacher only"):
        load("roles.labeller.engine=big")
    with pytest.raises(UsageError, match="did you mean 'big'"):
        load("roles.teacher.engine=bigg")
    with pytest.raises(UsageError, match="temperature must be above 0"):
        load("recipe=best-of-n", "roles={}")
    with pytest.raises(UsageError, match="not several"):
        load("recipe=ai-feedback", "roles={generator: {engine: big, temperature: 1.0}}")


# Best of n


def test_best_and_worst_are_what_the_scores_say_and_ties_give_no_pair(recipe: Path, tmp_path: Path) -> None:
    rewritten(recipe, recipe="best-of-n", **OWN["best-of-n"])
    recipe_driver.run(recipe, tmp_path / "run")
    run = open_finished(tmp_path / "run")
    scores = [json.loads(line) for line in (run.folder / "scores.jsonl").read_text().splitlines()]
    values = {(row["prompt_id"], row["sample"]): row["value"] for row in scores}
    assert len(values) == 14 * 3
    texts = {
        (row["prompt_id"], row["text"]): row["sample"]
        for row in map(json.loads, (run.folder / "samples.jsonl").read_text().splitlines())
    }
    outcome = filter_run(run, run.config.filters)
    for step in outcome.steps:
        own = [values[step.prompt_id, sample] for sample in range(3)]
        best, worst = (values[step.prompt_id, texts[step.prompt_id, text]] for text in (step.revision, step.answer))
        assert (best, worst) == (max(own), min(own))
        assert step.margin == pytest.approx(max(own) - min(own), abs=1e-6)
        assert ("tie" in step.reasons) == (step.margin == 0)
    wide = run.config.filters.model_copy(update={"min_margin": 0.99})
    assert not filter_run(run, wide).pairs
    identity = json.loads((run.folder / "run.json").read_text())["identity"]["scoring"]
    assert set(identity["evaluation"]) == {"harm_prevention", "helpfulness"}


def test_unknown_scorers_and_evaluators_are_named(recipe: Path) -> None:
    rewritten(recipe, recipe="best-of-n", **OWN["best-of-n"])
    with pytest.raises(UsageError, match="Did you mean 'evaluation'"):
        recipe_driver.run(recipe, recipe.parent / "run", ("scoring.scorer=evaluatoin",))
    with pytest.raises(UsageError, match="Did you mean 'helpfulness'"):
        recipe_driver.run(recipe, recipe.parent / "run", ("scoring.names=[helpfullness]",))


# AI feedback


def test_labels_are_averaged_over_orders_principles_and_pairs(recipe: Path, tmp_path: Path) -> None:
    rewritten(recipe, recipe="ai-feedback", **OWN["ai-feedback"])
    recipe_driver.run(recipe, tmp_path / "run")
    outcome = filtered(tmp_path / "run")
    rows = (tmp_path / "run" / "labels.jsonl").read_text().splitlines()
    assert len(rows) == 14 * 3 * 2 * 2  # three pairs of answers, two principles, two orders
    for pair in outcome.pairs:
        assert len(pair.chosen[0].content) < len(pair.rejected[0].content)
        # P(A) is 0.6 where the shorter answer is first and 0.45 where it is second: (0.6 + 1 - 0.45) / 2.
        assert pair.label_prob == pytest.approx(0.575)
        assert len(set(pair.principle_ids)) == 2


def test_a_chain_of_thought_is_on_record_and_clamps(recipe: Path, tmp_path: Path) -> None:
    rewritten(
        recipe,
        recipe="ai-feedback",
        roles={"generator": {"temperature": 1.0}},
        feedback={"chain_of_thought": True, "clamp": 0.55},
    )
    recipe_driver.run(recipe, tmp_path / "run")
    outcome = filtered(tmp_path / "run")
    assert len((tmp_path / "run" / "reasons.jsonl").read_text().splitlines()) == 14 * 2
    assert {pair.label_prob for pair in outcome.pairs} == {0.55}  # (0.6 clamped to 0.55, and 1 - 0.45) / 2


# Benign twins


def test_a_refuser_that_answers_gives_no_pair(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = yaml.safe_load(recipe.read_text())
    rewritten(recipe, recipe="benign-twins", prompts=values["prompts"][1:], **OWN["benign-twins"])
    original = recipe_driver.reply

    def reply(request: object) -> str:
        text = original(request)  # type: ignore[arg-type]
        soft = text.startswith("I'm sorry") and "bread" in request.messages[-1].content  # type: ignore[attr-defined]
        return "Bread about the house is good for many careful things." if soft else text

    monkeypatch.setattr(recipe_driver, "reply", reply)
    recipe_driver.run(recipe, tmp_path / "run")
    outcome = filtered(tmp_path / "run")
    assert Counter(step.reason for step in outcome.steps) == {None: 7, "not_refused": 1}
    assert all(refuses(pair.rejected[0].content) for pair in outcome.pairs)
    assert not any(refuses(pair.chosen[0].content) for pair in outcome.pairs)


def test_twins_need_refusals_and_harmless_prompts(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exemplars whose 'reply' is a refusal"):
        recipe_driver.run(recipe, tmp_path / "run", ("recipe=benign-twins",))
    with pytest.raises(UsageError, match="not red_team"):
        recipe_driver.run(recipe, tmp_path / "run", ("recipe=benign-twins", f"exemplars.file={REFUSALS}"))


def test_the_shipped_twins_are_many_distinct_and_not_the_evaluations() -> None:
    loaded = configs.load(RecipeConfig, SHIPPED / "smollm2-135m-benign-twins.yaml")
    twins = loaded.prompts[0].model_copy(update={"max_rows": None})  # other sources need a data root
    selection = select_prompts(loaded.model_copy(update={"prompts": (twins,)}))
    (counts,) = selection.counts.values()
    assert counts["chosen"] == counts["rows"] >= 300
    assert not [name for name in counts if name not in ("rows", "chosen", "not_needed")]
    openings = Counter(" ".join(prompt.messages[0].content.split()[:3]) for prompt in selection.prompts)
    assert len(openings) >= 75
    excluded = Exclusions.load([PROJECT_ROOT / "evaluation" / "prompts" / "core.jsonl"])
    assert not any(prompt.messages in excluded for prompt in selection.prompts)


def test_every_shipped_twin_has_a_harmful_counterpart_in_its_words_and_a_refusal_of_it() -> None:
    twins = [json.loads(line)["prompt"] for line in (SHIPPED / "benign-twins.jsonl").read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in (SHIPPED / "harmful-twins.jsonl").read_text("utf-8").splitlines()]
    assert [row["twin"] for row in rows] == twins
    shared = [len(set(words(row["prompt"])) & set(words(row["twin"]))) / len(set(words(row["twin"]))) for row in rows]
    assert sum(shared) / len(shared) > 0.6
    assert all(refuses(row["response"]) for row in rows)
    assert len({row["response"] for row in rows}) == len({row["prompt"] for row in rows}) == len(rows)
    loaded = configs.load(RecipeConfig, SHIPPED / "smollm2-135m-harmful-twins.yaml")
    (counts,) = select_prompts(loaded).counts.values()  # those of the evaluation are excluded by the config
    assert counts["chosen"] == counts["rows"] == len(rows)


# Filters


def test_a_broken_rejected_side_is_no_pair(recipe: Path, tmp_path: Path) -> None:
    rewritten(recipe, recipe="teacher", teacher={"principles": 1}, roles={"generator": {"max_new_tokens": 3}})
    recipe_driver.run(recipe, tmp_path / "run")
    run = open_finished(tmp_path / "run")
    assert len(filter_run(run, run.config.filters).pairs) == 14
    strict = run.config.filters.model_copy(update={"check_rejected": ("empty", "truncated")})
    outcome = filter_run(run, strict)
    assert {step.reason for step in outcome.steps} == {"broken_rejected"}
    skipped = strict.model_copy(update={"skip": ("broken_rejected",)})
    assert len(filter_run(run, skipped).pairs) == 14


def test_records_without_labels_have_no_such_fields() -> None:
    step = FilteredStep(
        prompt_id="p", step=1, tag="benign", principle_id="help-01", reason=None, reasons=(),
        messages=(Message(role="user", content="Why?"),), answer="So.", revision="Thus.", finish_reason="stop",
    )  # fmt: skip
    assert list(step.model_dump(mode="json")) == [
        *("prompt_id", "step", "tag", "principle_id", "reason", "reasons", "messages", "answer", "revision"),
        *("finish_reason", "turned"),
    ]
    labelled = step.model_copy(update={"label_prob": 0.0, "principle_ids": ("a", "b")})
    assert FilteredStep.model_validate_json(labelled.model_dump_json()) == labelled


def test_pairs_read_back(made_by: Path, tmp_path: Path) -> None:
    recipe_driver.run(made_by, tmp_path / "run")
    outcome = filtered(tmp_path / "run")
    assert read_jsonl(tmp_path / "run" / "pairs.jsonl", PreferencePair) == outcome.pairs


def test_a_labeller_without_log_probabilities_is_refused(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference.engines.scripted import ScriptedEngine

    rewritten(recipe, recipe="ai-feedback", **OWN["ai-feedback"])
    monkeypatch.setattr(recipe_driver, "engines", lambda kill=None: {"base": ScriptedEngine(recipe_driver.reply)})
    with pytest.raises(UserError, match="gives no log-probabilities"):
        recipe_driver.run(recipe, tmp_path / "run")
