from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from critique_revision.config import RecipeConfig
from critique_revision.dialogue import critique_messages, load_exemplars, revision_messages
from critique_revision.export import FORMATS, export, open_filtered
from critique_revision.folder import open_finished
from critique_revision.pairs import filter_run, statistics, write_filtered
from critique_revision.prompts import Exclusions, select_prompts
from critique_revision.recipes import stage_names
from critique_revision.records import Answer, Critique, PreferencePair, RevisionStep
from inference.records import Message
from runs import config as configs
from runs.errors import IntegrityError, UsageError, UserError
from runs.manifest import verify
from runs.paths import CONFIGS, PROJECT_ROOT
from runs.records import read_jsonl
from tests.critique_revision import recipe_driver

STAGES = ("answers.jsonl", "critiques-1.jsonl", "revisions-1.jsonl", "critiques-2.jsonl", "revisions-2.jsonl")
FILES = ("run.json", "config.yaml", "constitution.yaml", "exemplars.yaml", "prompts.jsonl", *STAGES)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Configs


SHIPPED = [path for path in (CONFIGS / "critique_revision").glob("*.yaml") if not path.name.startswith("exemplars")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_load_and_every_key_is_commented(path: Path) -> None:
    loaded = configs.load(RecipeConfig, path)
    assert (PROJECT_ROOT / loaded.constitution).is_file()
    assert load_exemplars(PROJECT_ROOT / loaded.exemplars.file, loaded.exemplars.count) is not None
    for line in path.read_text().splitlines():
        assert not line.strip() or "#" in line, line


def test_unknown_key_suggests_the_nearest(recipe: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'revisions'"):
        configs.load(RecipeConfig, recipe, ["revision=1"])
    with pytest.raises(UsageError, match="did you mean 'near_identical'"):
        configs.load(RecipeConfig, recipe, ["filters.near_identicl=0.5"])
    with pytest.raises(UsageError, match=r"'filters\.skip"):
        configs.load(RecipeConfig, recipe, ["filters.skip=[comentary]"])


# Prompts


def test_selection_counts_every_row(recipe: Path) -> None:
    selection = select_prompts(configs.load(RecipeConfig, recipe))
    red, benign = selection.counts.values()
    assert red == {"rows": 10, "chosen": 6, "not_needed": 2, "duplicate": 1, "does_not_start_with_human": 1}
    assert benign == {"rows": 10, "chosen": 8, "not_needed": 0, "too_long": 1, "in_evaluation": 1}
    assert Counter(prompt.tag for prompt in selection.prompts) == {"red_team": 6, "benign": 8}


def test_selection_does_not_depend_on_the_order_of_the_file(recipe: Path, tmp_path: Path) -> None:
    loaded = configs.load(RecipeConfig, recipe)
    before = select_prompts(loaded).prompts
    rows = (tmp_path / "red.jsonl").read_text().splitlines()
    (tmp_path / "red.jsonl").write_text("\n".join(rows[::-1]) + "\n")
    assert select_prompts(loaded).prompts == before
    more = select_prompts(configs.load(RecipeConfig, recipe, ["prompts=" + json.dumps(_sources(recipe, max_rows=7))]))
    assert set(before) < set(more.prompts)


def _sources(recipe: Path, **changes: object) -> list[dict[str, object]]:
    red, benign = yaml.safe_load(recipe.read_text())["prompts"]
    return [{**red, **changes}, benign]


def test_transcript_context_keeps_the_conversation(recipe: Path) -> None:
    sources = json.dumps(_sources(recipe, kind="transcript_context"))
    prompts = select_prompts(configs.load(RecipeConfig, recipe, [f"prompts={sources}"])).prompts
    red = next(prompt for prompt in prompts if prompt.tag == "red_team")
    assert [message.role for message in red.messages] == ["user", "assistant", "user"]
    assert red.messages[-1].content == "and then?"


def test_unknown_column_names_the_nearest(recipe: Path) -> None:
    sources = json.dumps(_sources(recipe, field="chosn"))
    with pytest.raises(UsageError, match="Did you mean 'chosen'"):
        select_prompts(configs.load(RecipeConfig, recipe, [f"prompts={sources}"]))


def test_exclusion_by_identity_text_and_overlap() -> None:
    def user(text: str) -> tuple[Message, ...]:
        return (Message(role="user", content=text),)

    excluded = Exclusions([user("What is a ponzi scheme?"), user("one two three four five six seven eight nine")])
    assert user("what is a  PONZI scheme?") in excluded
    assert user("well, two three four five six seven eight nine, you know") in excluded
    assert user("well, three four five six seven eight nine, you know") not in excluded
    assert (*user("Hi."), Message(role="assistant", content="Hi."), *user("What is a Ponzi scheme?")) in excluded


# Dialogue


def test_dialogues_share_their_start_and_end_with_what_differs() -> None:
    exemplars = load_exemplars(CONFIGS / "critique_revision" / "exemplars.yaml", 3)
    prompt = (Message(role="user", content="How?"),)
    first = critique_messages(exemplars, prompt, "So.", "Is it kind?")
    second = critique_messages(exemplars, prompt, "Thus.", "Is it true?")
    assert first[:-1] == second[:-1]
    assert [message.role for message in first] == ["user", "assistant"] * 3 + ["user"]
    assert first[1].content == exemplars[0].critique
    revision = revision_messages(exemplars, prompt, "So.", "It is rude.", "Make it kind.")
    assert revision[1].content == exemplars[0].revision
    for part in ("How?", "It is rude.", "Make it kind."):
        assert part in revision[-1].content
    direct = revision_messages(exemplars, prompt, "So.", None, "Make it kind.")
    for part in ("How?", "So.", "Make it kind."):
        assert part in direct[-1].content


def test_too_many_exemplars() -> None:
    with pytest.raises(UsageError, match="99 were asked for"):
        load_exemplars(CONFIGS / "critique_revision" / "exemplars.yaml", 99)


# Generation


def test_history_is_complete_and_chained(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    manifest = recipe_driver.run(recipe, folder)
    run = open_finished(folder)
    assert len(run.prompts) == len(run.answers) == 14
    assert tuple(stage_names(run.config)) == STAGES
    assert len(run.steps) == 28
    assert len(lines(folder / "critiques-2.jsonl")) == 14
    assert manifest.counts["revisions-2"]["calls"] == 14
    for prompt in run.prompts:
        chain = [step for step in run.steps if step.prompt_id == prompt.prompt_id]
        assert [step.step for step in chain] == [1, 2]
        assert chain[0].principle_id != chain[1].principle_id
        assert chain[0].revision != chain[1].revision
    for name, model in (("answers", Answer), ("critiques-1", Critique), ("revisions-2", RevisionStep)):
        rows = read_jsonl(folder / f"{name}.jsonl", model)
        assert [row.prompt_id for row in rows] == [prompt.prompt_id for prompt in run.prompts]


def test_direct_revision_makes_no_critiques(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    manifest = recipe_driver.run(recipe, folder, ("critiques=false", "roles.critic.checkpoint=absent"))
    run = open_finished(folder)
    assert not list(folder.glob("critiques-*"))
    assert all(step.critique is step.critic is step.critique_finish_reason is None for step in run.steps)
    assert set(manifest.inputs["models"]) == {"base"}
    exemplars = load_exemplars(CONFIGS / "critique_revision" / "exemplars.yaml", 2)
    turns = revision_messages(exemplars, run.prompts[0].messages, "So.", None, "Make it kind.")
    assert not any("Critique:" in turn.content for turn in turns)


def test_same_config_gives_the_same_bytes(recipe: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        recipe_driver.run(recipe, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_finished_run_makes_no_calls(recipe: Path, tmp_path: Path) -> None:
    first = recipe_driver.run(recipe, tmp_path / "run")
    again = recipe_driver.run(recipe, tmp_path / "run", kill_after=0)
    assert again == first


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 5, 14, 33, 69])
def test_killed_run_resumes_to_the_same_bytes(recipe: Path, tmp_path: Path, calls: int) -> None:
    recipe_driver.run(recipe, tmp_path / "whole")
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.critique_revision.recipe_driver", str(recipe), str(folder), str(calls)]
    died = subprocess.run(command, cwd=PROJECT_ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    assert not (folder / "manifest.json").exists()
    torn = [name for name in STAGES if (folder / name).exists()][-1]
    with (folder / torn).open("ab") as handle:
        handle.write(b'{"key": "abc", "prompt_')
    with pytest.raises(UserError, match="not finished"):
        open_finished(folder)
    recipe_driver.run(recipe, folder)
    assert contents(folder) == contents(tmp_path / "whole")
    verify(folder, rebuild="test")


def test_folder_of_another_run_is_refused(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe_driver.run(recipe, folder)
    before = contents(folder)
    with pytest.raises(UserError, match=r"holds another run.*\n.*seed \(0 there, 1 now\)"):
        recipe_driver.run(recipe, folder, ("seed=1",))
    with pytest.raises(UserError, match=r"roles\.critic\.sampling\.max_new_tokens \(256 there, 9 now\)"):
        recipe_driver.run(recipe, folder, ("roles.critic.max_new_tokens=9",))
    with pytest.raises(UserError, match=r"prompts\.count \(14 there, 3 now\)"):
        recipe_driver.run(recipe, folder, ("limit=3",))
    assert contents(folder) == before


def test_folder_without_identity_is_refused(recipe: Path, tmp_path: Path) -> None:
    recipe_driver.run(recipe, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(UserError, match="is not a run folder"):
        recipe_driver.run(recipe, tmp_path / "run")


def test_character_constitution_is_refused(recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "character.yaml"
    path.write_text(yaml.safe_dump({"name": "c", "kind": "character", "traits": [{"id": "t", "text": "I am kind."}]}))
    with pytest.raises(UsageError, match="character training"):
        recipe_driver.run(recipe, tmp_path / "run", (f"constitution={path}",))


def test_changed_bytes_are_refused(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe_driver.run(recipe, folder)
    answers = (folder / "answers.jsonl").read_bytes()
    (folder / "answers.jsonl").write_bytes(answers.replace(b"careful", b"careles"))
    with pytest.raises(IntegrityError, match=r"answers\.jsonl"):
        open_finished(folder)


# Filter and export


@pytest.fixture
def filtered(recipe: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    recipe_driver.run(recipe, folder)
    run = open_finished(folder)
    outcome = filter_run(run, run.config.filters)
    write_filtered(folder, outcome, statistics(run, outcome, run.config.filters))
    return folder


def test_pairs_hold_the_last_accepted_revision(filtered: Path) -> None:
    run, pairs = open_finished(filtered), read_jsonl(filtered / "pairs.jsonl", PreferencePair)
    last = {step.prompt_id: step for step in run.steps if step.step == 2}
    assert len(pairs) == 14
    for pair in pairs:
        assert pair.chosen[0].content == last[pair.prompt_id].revision
        assert pair.rejected[0].content == run.answers[pair.prompt_id].text
        assert len(set(pair.principle_ids)) == pair.step == 2


def test_every_revision_is_accepted_or_rejected(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(request: object) -> str:
        text = original(request)  # type: ignore[arg-type]
        return "I'm sorry, but I can't help you with that." if text.startswith("A calmer") else text

    original = recipe_driver.reply
    monkeypatch.setattr(recipe_driver, "reply", reply)
    recipe_driver.run(recipe, tmp_path / "run")
    run = open_finished(tmp_path / "run")
    outcome = filter_run(run, run.config.filters)
    stats = statistics(run, outcome, run.config.filters)
    # 8 benign prompts times two steps are refusals of the harmless. Of 6 times 2 equal refusals, three are kept: three
    # prompts' own second ones are the same pair again, and the other three prompts have what is chosen often enough.
    assert stats["by_reason"] == {"refusal_of_benign": 16, "duplicate": 3, "boilerplate": 6}
    assert stats["accepted"] + sum(stats["by_reason"].values()) == stats["revisions"] == 28
    assert sum(row["revisions"] for row in stats["by_principle"].values()) == 28
    assert stats["by_tag"]["benign"]["accepted"] == 0
    assert stats["pairs"] == 3
    write_filtered(run.folder, outcome, stats)
    rejected = lines(run.folder / "rejected.jsonl")
    assert Counter(row["reason"] for row in rejected) == stats["by_reason"]


def test_cut_answers_end_with_a_sentence(recipe: Path, tmp_path: Path) -> None:
    recipe_driver.run(recipe, tmp_path / "run", ("roles.generator.max_new_tokens=4",))
    run = open_finished(tmp_path / "run")
    assert all(answer.finish_reason == "length" for answer in run.answers.values())
    pair = filter_run(run, run.config.filters).pairs[0]
    assert pair.rejected[0].content == "Here are five careful"  # it has no whole sentence to end with


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_exports_are_verified_artifacts(filtered: Path, tmp_path: Path, name: str) -> None:
    data = open_filtered(open_finished(filtered))
    manifest = export(data, name, tmp_path / name, command="the command")
    verify(tmp_path / name, rebuild="test")
    rows = [row for file in FORMATS[name].files(data) for row in lines(tmp_path / name / file)]
    assert manifest.counts["rows"] == len(rows) == (28 if name == "sft" else 14)
    card = (tmp_path / name / "DATASET_CARD.md").read_text()
    for part in ("default (sha256 ", "HuggingFaceTB/SmolLM2-135M-Instruct", "(MIT)", "Apache-2.0", "the command"):
        assert part in card
    assert str(tmp_path) not in card or "/" in card


def test_columns_follow_the_ecosystem(filtered: Path, tmp_path: Path) -> None:
    data = open_filtered(open_finished(filtered))
    dpo, swarm, sft = (next(iter(FORMATS[name].rows(data))) for name in ("dpo", "llm-swarm", "sft"))
    for column in ("prompt", "chosen", "rejected"):
        assert {"role", "content"} == set(dpo[column][0])
    assert dpo["prompt"][-1]["role"] == "user"
    assert dpo["chosen"][0]["role"] == dpo["rejected"][0]["role"] == "assistant"
    assert list(swarm) == [
        *("init_prompt", "init_response", "critic_prompt", "critic_response", "revision_prompt", "revision_response"),
        *("prompt", "messages", "chosen", "rejected", "principle_id", "step", "prompt_id", "split"),
    ]
    assert [turn["role"] for turn in swarm["chosen"]] == ["user", "assistant"]
    assert sft["messages"][-1]["role"] == "assistant"


def test_export_before_filter_says_what_to_run(recipe: Path, tmp_path: Path) -> None:
    recipe_driver.run(recipe, tmp_path / "run")
    with pytest.raises(UserError, match="critique-revision filter"):
        open_filtered(open_finished(tmp_path / "run"))


def test_export_of_nothing_is_an_error(filtered: Path, tmp_path: Path) -> None:
    run = open_finished(filtered)
    settings = run.config.filters.model_copy(update={"min_words": 300})
    outcome = filter_run(run, settings)
    write_filtered(filtered, outcome, statistics(run, outcome, settings))
    with pytest.raises(UserError, match=r"nothing to export.*\n.*'empty': 28"):
        export(open_filtered(run), "dpo", tmp_path / "dpo", command="x")
    assert not (tmp_path / "dpo").exists()


def test_filtering_again_gives_the_same_bytes(filtered: Path) -> None:
    before = {path.name: path.read_bytes() for path in filtered.iterdir()}
    shutil.copytree(filtered, filtered.parent / "copy")
    run = open_finished(filtered)
    outcome = filter_run(run, run.config.filters)
    write_filtered(filtered, outcome, statistics(run, outcome, run.config.filters))
    assert {path.name: path.read_bytes() for path in filtered.iterdir()} == before
