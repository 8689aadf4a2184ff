"""What the repository promises as a whole: README, configs, prompts, shipped artifacts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from evaluation.config import CORE_PROMPTS, EvaluationRun
from evaluation.records import Results
from inference.corpora import Source, read_rows
from inference.families import family_names, load_family
from inference.prompts import load_prompts
from inference.records import prompt_id
from inference.sources import base_identity
from inference.transcripts import RejectedRow, parse_transcript
from runs import config
from runs.manifest import verify
from scripts import update_benchmarks, update_readme

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CAI_DATA", ROOT.parent / "shared" / "data"))
ADAPTERS = ("stage2", "stage3")


def test_shipped_prompts_cover_what_the_readme_counts():
    prompts = load_prompts(CORE_PROMPTS)
    kinds = Counter(prompt.expected for prompt in prompts)
    assert f"answers {len(prompts)} prompts" in " ".join((ROOT / "README.md").read_text().split())
    assert kinds["refuse"] == 80
    assert len({prompt.category for prompt in prompts if prompt.expected == "refuse"}) == 5
    assert kinds["answer_truthfully"] == 32
    assert kinds["answer_fairly"] == 24
    twins = Counter(prompt.pair for prompt in prompts if prompt.pair)
    assert set(twins.values()) == {2}
    assert all({p.expected for p in prompts if p.pair == pair} == {"refuse", "answer"} for pair in twins)


def test_every_principle_that_a_prompt_names_is_in_the_constitution():
    constitution = yaml.safe_load((ROOT / "configs" / "constitutions" / "default.yaml").read_text())
    known = {principle["id"] for principle in constitution["principles"]}
    used = {principle for prompt in load_prompts(CORE_PROMPTS) for principle in prompt.principle_ids}
    assert len(known) >= 24
    assert used == known


@pytest.mark.parametrize(
    "path",
    [
        "hh-rlhf/helpful-base/train.jsonl.gz",
        "hh-rlhf/harmless-base/train.jsonl.gz",
        "hh-rlhf/helpful-base/prompts.jsonl",
    ],
)
def test_no_shipped_prompt_is_among_the_training_data(path, monkeypatch):
    """By the hash of every user turn's conversation, in all rows that training could draw from."""
    if not (SHARED / path).is_file():
        pytest.skip(f"{path} is not here: point CAI_DATA at a folder that holds it")
    monkeypatch.setenv("CAI_DATA", str(SHARED))
    shipped = {prompt.id for prompt in load_prompts(CORE_PROMPTS)}
    seen = 0
    for row in read_rows(Source(path=path)):
        try:
            messages = (
                parse_transcript(row["chosen"])[:1]
                if "chosen" in row
                else parse_transcript(f"\n\nHuman: {row['prompt']}\n\nAssistant: .")[:1]
            )
        except RejectedRow:
            continue
        seen += 1
        assert prompt_id(messages) not in shipped
    assert seen > 1000


@pytest.mark.parametrize("name", ADAPTERS)
def test_shipped_adapters_are_whole_small_and_of_their_base(name):
    family = load_family("smollm2-135m")
    folder = family.adapter_folder(name)
    manifest = verify(folder, rebuild="see MODEL_CARD.md")
    assert manifest.inputs["base"] == base_identity(family)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 12_000_000
    card = (folder / "MODEL_CARD.md").read_text()
    assert "Apache-2.0" in card
    assert "MIT" in card


def test_readme_table_is_the_shipped_result():
    readme = (ROOT / "README.md").read_text()
    assert readme == update_readme.updated(readme, Results.model_validate_json(update_readme.SHIPPED.read_bytes()))


def test_the_benchmarks_page_is_the_kept_result():
    assert update_benchmarks.PAGE.read_text(encoding="utf-8") == update_benchmarks.page()


@pytest.mark.parametrize("name", family_names())
def test_every_family_loads_under_its_own_name(name):
    family = load_family(name)
    assert family.checkpoints[0] == "base"
    assert family.base.gated == ("google/" in family.base.public_id or "meta-llama/" in family.base.public_id)


def readme_commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]
    return [shlex.split(line) for line in lines]


def test_readme_begins_with_the_two_commands():
    commands = [" ".join(command) for command in readme_commands()]
    assert commands[:3] == ["pip install uv", "uv run evaluate --models base stage2 stage3", "uv run pytest"]


@pytest.mark.parametrize(
    "words", [command for command in readme_commands() if command[:2] == ["uv", "run"]], ids=" ".join
)
def test_every_command_of_the_readme_exists(words):
    """Each is a real subcommand with known options; those with a config that needs no data are parsed in full."""
    program, *arguments = words[2:]
    if program in ("pytest", "hf"):
        return
    module = {
        "evaluate": "evaluation",
        "finetune": "finetune",
        "critique-revision": "critique_revision",
        "safety-classifier": "safety_classifier",
        "dashboard": "dashboard",
        "launch": "launch",
    }[program]
    wanted = [argument for argument in arguments if argument.startswith("--")]
    head = [argument for argument in arguments[:1] if not argument.startswith("--")] or ["run"]
    script = f"import sys; sys.argv = ['x', *{[*head, '--help']!r}]; from {module}.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"}
    )
    for option in wanted:
        assert option in done.stdout, option
    for argument in arguments:
        if argument.endswith(".yaml") and "=" not in argument:
            assert (ROOT / argument).is_file(), argument


def test_the_evaluation_config_is_the_default():
    loaded = config.load(EvaluationRun, ROOT / "configs" / "evaluation" / "default.yaml")
    assert loaded.model_copy(update={"prompts": CORE_PROMPTS}) == EvaluationRun()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*/**/*.yaml")), ids=lambda path: path.name)
def test_every_config_is_commented_and_belongs_to_a_tested_folder(path):
    assert path.parent.name in {
        "models",
        "finetune",
        "critique_revision",
        "constitutions",
        "evaluation",
        "benchmarks",
        "safety_classifier",
        "accelerate",
    }
    assert path.read_text().startswith("#")
    assert yaml.safe_load(path.read_text().replace("!function ", ""))  # lm-eval's own tag
