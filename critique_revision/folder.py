"""The folder of a run: whose it is, and which files it holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from critique_revision.config import RecipeConfig
from critique_revision.constitution import PrinciplesConstitution, load_principles
from critique_revision.dialogue import Exemplar, ExemplarFile
from critique_revision.records import Answer, ChosenPrompt, RevisionStep
from inference.engines.openai import FAILURES, REPLIES
from inference.remote.journal import Failure
from runs import config as configs
from runs import folder as run_folder
from runs.atomic import write_bytes
from runs.errors import IntegrityError, UsageError, UserError
from runs.folder import IDENTITY
from runs.manifest import NAME as MANIFEST
from runs.manifest import Manifest, verify
from runs.paths import shown
from runs.records import read_jsonl, write_jsonl

CONFIG = "config.yaml"
CONSTITUTION = "constitution.yaml"
EXEMPLARS = "exemplars.yaml"
"""Copies of what the run was made from: the user's files may change afterwards."""
PROMPTS = "prompts.jsonl"
ANSWERS = "answers.jsonl"
TAUGHT = "taught.jsonl"
REFUSALS = "refusals.jsonl"
SAMPLES = "samples.jsonl"
SCORES = "scores.jsonl"
REASONS = "reasons.jsonl"
LABELS = "labels.jsonl"
PAIRS = "pairs.jsonl"
ACCEPTED = "accepted.jsonl"
REJECTED = "rejected.jsonl"
STATS = "stats.json"
SETUP = (CONFIG, CONSTITUTION, EXEMPLARS, PROMPTS)
FILTERED = (PAIRS, ACCEPTED, REJECTED, STATS)
"""What the filters write; a new run of the filters replaces them."""
CALIBRATION = "calibration"
LABELLING = "labelling"
BESIDE = (CALIBRATION, LABELLING, "export", "figures")
"""Folders in a run's folder with jobs of their own: they may be there before the run, and stay when it starts over."""
CALLS = (ANSWERS, "critiques-*.jsonl", "revisions-*.jsonl", TAUGHT, REFUSALS, SAMPLES, SCORES, REASONS, LABELS)
"""Patterns of the files of stages, of every recipe."""


def critiques_name(step: int) -> str:
    """The file of step ``step``'s critiques."""
    return f"critiques-{step}.jsonl"


def revisions_name(step: int) -> str:
    """The file of step ``step``'s revisions."""
    return f"revisions-{step}.jsonl"


@dataclass(frozen=True)
class Setup:
    """What a run works from, read and checked."""

    config: RecipeConfig
    constitution: PrinciplesConstitution
    exemplars: tuple[Exemplar, ...]
    prompts: tuple[ChosenPrompt, ...]


def claim(folder: Path, parts: dict[str, Any], setup: Setup) -> str:
    """Make ``folder`` the run's own, or check that it is, and give the run id.

    Args:
        folder: the run's folder.
        parts: everything that could change the run's records; the run id is its digest.
        setup: kept in the folder, so that later commands need nothing else.

    Raises:
        UsageError: the folder holds another run (what differs is named), or files that belong to none.
    """
    run_id = run_folder.claim(folder, parts, BESIDE)
    if not all((folder / name).is_file() for name in SETUP):
        configs.save(setup.config, folder / CONFIG)
        configs.save(setup.constitution, folder / CONSTITUTION)
        configs.save(ExemplarFile(exemplars=setup.exemplars), folder / EXEMPLARS)
        write_jsonl(folder / PROMPTS, setup.prompts)
    return run_id


def clear(folder: Path) -> None:
    """Remove a run's files, its identity last: killed half-way, the folder still says whose the rest is."""
    if not (folder / IDENTITY).is_file():
        return
    files = [folder / name for name in (MANIFEST, *FILTERED, *SETUP)]
    files += [path for pattern in CALLS for path in folder.glob(pattern)]
    files += [*folder.glob(f"{FAILURES}*.jsonl"), *(folder / REPLIES).glob("*.jsonl"), folder / IDENTITY]
    for path in files:
        path.unlink(missing_ok=True)


def failure_counts(folder: Path) -> str:
    """The reasons in the servers' ledgers of failed attempts, counted, and where they stand; empty without any."""
    lines = []
    for path in sorted(folder.glob(f"{FAILURES}*.jsonl")):
        reasons = Counter(failure.reason for failure in read_jsonl(path, Failure) if failure.final)
        counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        lines.append(f"Given up so far, by {shown(path)}: {counted or 'none'}.")
    return "\n".join(lines)


@dataclass(frozen=True)
class FinishedRun:
    """A run whose generation is complete and whose bytes are what they were."""

    folder: Path
    setup: Setup
    manifest: Manifest
    answers: dict[str, Answer]
    """By prompt id; empty where the recipe samples several answers."""
    steps: list[RevisionStep]
    """Step by step, each in the order of the prompts; empty where the recipe revises nothing."""

    @property
    def run_id(self) -> str:
        """The run's identity."""
        return self.manifest.run_id

    @property
    def config(self) -> RecipeConfig:
        """The run's config."""
        return self.setup.config

    @property
    def prompts(self) -> tuple[ChosenPrompt, ...]:
        """The run's prompts."""
        return self.setup.prompts


def read_setup(folder: Path) -> Setup:
    """What the run in ``folder`` works from, by its own copies. Raises `UserError` where one is not valid."""
    return Setup(
        configs.load(RecipeConfig, folder / CONFIG),
        load_principles(folder / CONSTITUTION),
        configs.load(ExemplarFile, folder / EXEMPLARS).exemplars,
        tuple(read_jsonl(folder / PROMPTS, ChosenPrompt)),
    )


class _Owned(BaseModel):
    """The part of a record that says whose it is."""

    prompt_id: str


def write_stage(path: Path, parts: Sequence[Path], setup: Setup) -> None:
    """Write a stage's file from the shards' own, in the order of the prompts; lines stay as they are.

    Raises:
        IntegrityError: the shards do not hold each prompt once.
    """
    lines: dict[str, list[bytes]] = {}
    for part in parts:
        own: dict[str, list[bytes]] = {}
        for record, line in zip(read_jsonl(part, _Owned), part.read_bytes().splitlines(keepends=True), strict=True):
            own.setdefault(record.prompt_id, []).append(line)
        for prompt_id in own.keys() & lines.keys():
            raise IntegrityError(f"{shown(part)}: prompt {prompt_id[:12]} is in two shards.")
        lines |= own
    if lines.keys() != {prompt.prompt_id for prompt in setup.prompts}:
        raise IntegrityError(f"{path.name}: the shards do not hold all prompts of the run.")
    write_bytes(path, b"".join(line for prompt in setup.prompts for line in lines[prompt.prompt_id]))


def open_finished(folder: Path) -> FinishedRun:
    """Read a finished run.

    Raises:
        UserError: there is no run, or it is not finished; the command that finishes it is named.
        IntegrityError: a file is missing, changed or not valid.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{shown(folder)} holds no critique-revision run.",
            mend="Make one: uv run critique-revision generate --config …",
        )
    config = configs.load(RecipeConfig, folder / CONFIG)
    rebuild = f"uv run critique-revision generate --config {shown(folder / CONFIG)} --output-dir {shown(folder)}"
    if not (folder / MANIFEST).is_file():
        raise UserError(f"The run in {shown(folder)} is not finished.", mend=f"Finish it: {rebuild}")
    shard = json.loads((folder / IDENTITY).read_bytes())["identity"].get("shard")
    if shard is not None:
        raise UsageError(
            f"{shown(folder)} is shard {shard} of a run.",
            mend="Put the shards together first: uv run critique-revision merge SHARD … --output-dir RUN",
        )
    manifest = verify(folder, rebuild=rebuild)
    setup = read_setup(folder)
    answers, steps = _answers(folder), _steps(folder, config)
    if answers and set(answers) != {prompt.prompt_id for prompt in setup.prompts}:
        raise IntegrityError(
            f"{shown(folder)}: {ANSWERS} and {PROMPTS} do not belong together.", mend=f"Rebuild: {rebuild}"
        )
    return FinishedRun(folder, setup, manifest, answers, steps)


def _answers(folder: Path) -> dict[str, Answer]:
    path = folder / ANSWERS
    return {answer.prompt_id: answer for answer in read_jsonl(path, Answer)} if path.is_file() else {}


def _steps(folder: Path, config: RecipeConfig) -> list[RevisionStep]:
    if config.recipe != "critique-revision":
        return []
    steps = range(1, config.revisions + 1)
    return [row for step in steps for row in read_jsonl(folder / revisions_name(step), RevisionStep)]
