"""Roles that are played behind a server: critic and reviser elsewhere than the generator, whole and under kills."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from critique_revision.config import RecipeConfig
from critique_revision.folder import clear, open_finished
from inference.engines.transformers import TransformersEngine
from inference.remote.faults import ServerStopped
from runs import config as configs
from runs.errors import UsageError, UserError
from runs.manifest import Manifest
from runs.paths import CONFIGS, PROJECT_ROOT
from tests import tiny
from tests.critique_revision.roles_driver import run
from tests.inference.openai_server import MODEL, Loopback, serving

STAGES = ("answers", "critiques-1", "revisions-1")


@pytest.fixture
def loopback(local_engine: TransformersEngine) -> Iterator[Loopback]:
    with serving(Loopback(local_engine)) as running:
        yield running


@pytest.fixture
def recipe_with_server(recipe: Path, tiny_llama: Path, tmp_path: Path, loopback: Loopback) -> Path:
    """The small recipe on a tiny local family, with critic and reviser behind a server."""
    values = yaml.safe_load(recipe.read_text())
    values["family"] = str(tiny.write_family(tmp_path, "tiny-llama", tiny_llama))
    values |= {"batch_size": 4, "limit": 8, "revisions": 1}
    values["exemplars"]["count"] = 0
    values["servers"] = {
        "strong": {
            "base_url": loopback.url,
            "model": MODEL,
            "concurrency": 3,
            "licence": "CC0-1.0",
            "prices": {"prompt": 1.0, "completion": 2.0},
            "retries": {"first_wait_s": 0.02, "longest_wait_s": 0.1},
        }
    }
    short = {"max_new_tokens": 6}
    values["roles"] = {"generator": short} | {part: {"engine": "strong", **short} for part in ("critic", "reviser")}
    recipe.write_text(yaml.safe_dump(values))
    return recipe


def everything_served(path: Path) -> Path:
    values = yaml.safe_load(path.read_text())
    values["roles"]["generator"]["engine"] = "strong"
    path.write_text(yaml.safe_dump(values))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.jsonl").read_bytes() for name in STAGES}


def check_whole(folder: Path) -> None:
    """Every call once, no error text in the data, no failure among the records."""
    for name in STAGES:
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        assert len(rows) == 8
        assert max(Counter(row["key"] for row in rows).values()) == 1
    for path in folder.glob("*.jsonl"):
        if not path.name.startswith("failures-"):
            assert not re.search(r"Slow down|Something is wrong|Upstream|Traceback|error", path.read_text())


def test_critic_and_reviser_are_served_and_the_generator_is_not(
    recipe_with_server: Path, tmp_path: Path, loopback: Loopback
) -> None:
    folder, loopback.delay = tmp_path / "run", 0.02
    manifest = run(recipe_with_server, folder)
    assert len(loopback.answered) == 16
    assert loopback.most_at_once == 3  # across the generator's batches of four
    check_whole(folder)
    finished = open_finished(folder)
    assert {answer.model for answer in finished.answers.values()} == {"base"}
    assert {(step.critic, step.reviser) for step in finished.steps} == {("strong", "strong")}
    models = manifest.inputs["models"]
    assert models["base"]["engine"].startswith("transformers-")
    assert models["strong"] == {
        "engine": "openai-1",
        "model": MODEL,
        "served_by": "loopback",
        "dialect": "vllm",
        "extra_body": "none",
    }
    usage = manifest.metrics["servers"]["strong"]
    assert usage["requests"] == 16
    assert usage["spent_usd"] > 0
    identity = json.loads((folder / "run.json").read_text())["identity"]["roles"]
    assert identity["critic"]["model"]["model"] == MODEL
    assert identity["generator"]["model"]["engine"].startswith("transformers-")


def test_same_answers_as_in_this_process(recipe_with_server: Path, tmp_path: Path) -> None:
    """The server answers with the family's own model: only who is named differs."""

    def texts(folder: Path) -> list[tuple[str, str | None, str]]:
        return [(step.prompt_id, step.critique, step.revision) for step in open_finished(folder).steps]

    run(recipe_with_server, tmp_path / "served", ("batch_size=1",))
    local = ("roles.critic.engine=self", "roles.reviser.engine=self", "batch_size=1")
    run(recipe_with_server, tmp_path / "local", local)
    assert texts(tmp_path / "served") == texts(tmp_path / "local")


def test_faults_leave_no_trace_in_the_data(recipe_with_server: Path, tmp_path: Path, loopback: Loopback) -> None:
    run(recipe_with_server, tmp_path / "calm")
    loopback.faults.extend(["429", "ok", "500", "broken", "ok", "ok", "cut", "error200", "429:0"] * 2)
    run(recipe_with_server, tmp_path / "stormy")
    assert not loopback.faults
    check_whole(tmp_path / "stormy")
    assert contents(tmp_path / "calm") == contents(tmp_path / "stormy")
    ledger = (tmp_path / "stormy" / "failures-strong.jsonl").read_text().splitlines()
    assert len(ledger) == 12


def test_calls_that_are_given_up_stop_the_stage_with_their_reasons(
    recipe_with_server: Path, tmp_path: Path, loopback: Loopback
) -> None:
    folder = tmp_path / "run"
    loopback.faults.extend(["ok", "filter", "ok", "filter"])
    with pytest.raises(UserError, match=r"2 of 8 calls of stage 'critique 1 of 1'(.|\n)*content_filter 2"):
        run(recipe_with_server, folder)
    run(recipe_with_server, folder)
    check_whole(folder)


def test_spending_limit_is_the_runs(recipe_with_server: Path, tmp_path: Path, loopback: Loopback) -> None:
    folder = tmp_path / "run"
    with pytest.raises(ServerStopped, match="spending limit"):
        run(recipe_with_server, folder, ("servers.strong.limit_usd=0.002",))
    asked = len(loopback.answered)
    assert 0 < asked < 16
    manifest = run(recipe_with_server, folder, ("servers.strong.limit_usd=1.0",))
    assert len(loopback.answered) == 16
    assert manifest.metrics["servers"]["strong"]["requests"] == 16 - asked
    costs = [json.loads(line)["cost_usd"] for line in (folder / ".replies" / "strong.jsonl").read_text().splitlines()]
    assert manifest.metrics["servers"]["strong"]["spent_usd"] == pytest.approx(sum(costs), abs=1e-6)
    check_whole(folder)


def test_another_critic_is_another_run(recipe_with_server: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(recipe_with_server, folder)
    with pytest.raises(UsageError, match=r"roles\.critic\.model"):
        run(recipe_with_server, folder, ("roles.critic.engine=self",))
    with pytest.raises(UsageError, match=rf"roles\.critic\.model\.model \({MODEL} there, other now\)"):
        run(recipe_with_server, folder, ("servers.strong.model=other",))
    clear(folder)
    assert not list(folder.rglob("*.jsonl"))


def test_unusable_roles_are_refused(recipe_with_server: Path, tmp_path: Path) -> None:
    def load(*overrides: str) -> RecipeConfig:
        return configs.load(RecipeConfig, recipe_with_server, overrides)

    with pytest.raises(UsageError, match="did you mean 'strong'"):
        load("roles.critic.engine=strng")
    with pytest.raises(UsageError, match="names its own model"):
        load("roles.critic.checkpoint=stage2")
    with pytest.raises(UsageError, match="a name is made of"):
        load("servers={Big Model: {base_url: 'http://h/v1', model: m}}", "roles={}")
    servers = "servers={base: {base_url: 'http://h/v1', model: m}}"
    with pytest.raises(UsageError, match="has the name of a checkpoint"):
        run(recipe_with_server, tmp_path / "run", (servers, "roles={critic: {engine: base}}"))


def test_self_plays_all_by_default() -> None:
    loaded = configs.load(RecipeConfig, CONFIGS / "critique_revision" / "smollm2-135m.yaml")
    assert {role.engine for _, role in loaded.roles} == {"self"}
    assert loaded.players == loaded.checkpoints == ["stage2", "base"]


def test_the_big_familys_default_is_a_strong_critic_and_names_no_key() -> None:
    path = CONFIGS / "critique_revision" / "gemma-2b-it.yaml"
    loaded = configs.load(RecipeConfig, path)
    assert loaded.acting["critic"].engine == loaded.acting["reviser"].engine == "strong"
    assert loaded.acting["generator"].engine == "self"
    assert loaded.servers["strong"].limit_usd is not None
    alone = configs.load(RecipeConfig, CONFIGS / "critique_revision" / "gemma-2b-it-self.yaml")
    assert {role.engine for role in alone.acting.values()} == {"self"}


def test_examples_of_the_guide_are_valid(recipe: Path) -> None:
    guide = (PROJECT_ROOT / "docs" / "served-models.md").read_text()
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)]
    assert len(examples) == 2
    for example in examples:
        values = yaml.safe_load(recipe.read_text()) | example
        loaded = configs.parse(RecipeConfig, values, source="the guide")
        assert loaded.servers["strong"].model
    assert "sk-" not in guide


# Kills


def command(recipe: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.critique_revision.roles_driver", str(recipe), str(folder)]


@pytest.mark.slow
def test_killed_client_resumes_to_the_same_bytes(recipe_with_server: Path, tmp_path: Path, loopback: Loopback) -> None:
    recipe = everything_served(recipe_with_server)
    run(recipe, tmp_path / "whole")
    assert len(loopback.answered) == 24
    folder, kills, in_flight = tmp_path / "killed", (4, 13, 20), 3
    loopback.answered.clear()
    loopback.delay = 0.05
    for stop_at in kills:
        client = subprocess.Popen(command(recipe, folder), cwd=PROJECT_ROOT, start_new_session=True)
        while len(loopback.answered) < stop_at:
            assert client.poll() is None
            time.sleep(0.01)
        os.kill(client.pid, signal.SIGKILL)
        client.wait()
        assert not (folder / "manifest.json").exists()
    manifest: Manifest = run(recipe, folder)
    assert contents(folder) == contents(tmp_path / "whole")
    check_whole(folder)
    # What was on its way when the client died is asked for again, and nothing else.
    assert len(loopback.answered) <= 24 + in_flight * len(kills)
    assert len((folder / ".replies" / "strong.jsonl").read_text().splitlines()) == 24
    assert manifest.metrics["servers"]["strong"]["requests"] < 24
