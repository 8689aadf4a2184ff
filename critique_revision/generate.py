"""Runs a recipe: reads what its config names, makes its calls, and writes the manifest last.

Run it with ``uv run critique-revision generate --config configs/critique_revision/smollm2-135m.yaml``. The recipes are
in `critique_revision.recipes`, the calls on record in `critique_revision.calls`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from critique_revision import folder as folders
from critique_revision.calls import Calls
from critique_revision.config import RecipeConfig, locate
from critique_revision.constitution import constitution_digest, load_principles
from critique_revision.dialogue import dialogue_digest, load_exemplars
from critique_revision.folder import Setup
from critique_revision.principles import check_enough
from critique_revision.prompts import Selection, select_prompts
from critique_revision.recipes import recipe_of, stage_names
from inference.engines.base import Engine
from inference.engines.openai import OpenAIEngine
from runs.console import Reporter
from runs.folder import IDENTITY
from runs.identity import digest
from runs.job import Shard
from runs.manifest import NAME as MANIFEST
from runs.manifest import Manifest, verify, write_manifest
from runs.records import read_jsonl


def read_setup(config: RecipeConfig) -> tuple[Setup, Selection]:
    """Read and check what a config names: constitution, exemplars, prompts.

    Raises:
        UserError: one of them is missing or not valid, there are fewer principles than the recipe draws for a
            prompt, or the recipe cannot work from them.
    """
    constitution, recipe = load_principles(locate(config.constitution)), recipe_of(config)
    for source in config.prompts:
        check_enough(constitution, recipe.principles(config), source.categories)
    exemplars = load_exemplars(locate(config.exemplars.file), config.exemplars.count)
    selection = select_prompts(config)
    setup = Setup(config, constitution, exemplars, tuple(selection.prompts))
    recipe.check(setup)
    return setup, selection


def identity_parts(setup: Setup, engines: Mapping[str, Engine]) -> dict[str, Any]:
    """Everything that could change the records of a run."""
    config, recipe = setup.config, recipe_of(setup.config)
    return {
        "recipe": config.recipe,
        "version": recipe.version,
        "seed": config.seed,
        **recipe.identity(setup),
        "prompts": {
            "count": len(setup.prompts),
            "sha256": digest([[prompt.prompt_id, prompt.tag, prompt.categories] for prompt in setup.prompts]),
        },
        "roles": {
            name: {
                "model": engines[role.player].identity,
                "sampling": role.sampling(config.seed).model_dump(mode="json"),
            }
            for name, role in config.acting.items()
        },
    }


def run_recipe(
    setup: Setup,
    engines: Mapping[str, Engine],
    folder: Path,
    *,
    prompt_counts: Mapping[str, Mapping[str, int]],
    sources: Mapping[str, str],
    reporter: Reporter,
    command: str,
    shard: Shard | None = None,
) -> Manifest:
    """Make the calls of the config's recipe into ``folder``. The caller holds the folder's lock.

    Args:
        setup: what the run works from.
        engines: player → engine, for every checkpoint and server that a role names.
        prompt_counts: what became of each source's rows, for the manifest.
        sources: prompt source → digest, for the manifest.
        folder: the run's folder.
        reporter: shows progress.
        command: recorded as the command that makes the run again.
        shard: make only the calls of this part of the prompts; None makes all.

    Raises:
        UserError: the folder holds another run, or a call got no answer.
    """
    start = time.monotonic()
    config = setup.config
    calls = Calls(setup, engines, folder, reporter, identity=identity_parts(setup, engines), shard=shard)
    if (folder / MANIFEST).is_file():
        return verify(folder, rebuild=f"{command} --no-resume")
    recipe_of(config).carry_out(calls)
    return write_manifest(
        folder,
        kind=config.recipe,
        run_id=calls.run_id,
        command=command,
        config=config.model_dump(mode="json"),
        inputs={
            "constitution": {"name": setup.constitution.name, "sha256": constitution_digest(setup.constitution)},
            "exemplars": dialogue_digest(setup.exemplars),
            "models": {name: engines[name].identity for name in config.players},
            "sources": dict(sources),
        },
        seeds={"seed": config.seed},
        counts={
            "prompts": {name: dict(row) for name, row in prompt_counts.items()},
            **token_counts(folder, config),
        },
        metrics=_server_usage(engines),
        wall_seconds=time.monotonic() - start,
        files=[folder / name for name in (IDENTITY, *folders.SETUP, *stage_names(config))],
    )


def _server_usage(engines: Mapping[str, Engine]) -> dict[str, Any]:
    """What the servers counted in this process, by name; nothing where none took part."""
    used = {name: engine.usage for name, engine in engines.items() if isinstance(engine, OpenAIEngine)}
    return {"servers": used} if used else {}


class _Tokens(BaseModel):
    """The part of a call's record that is counted."""

    prompt_tokens: int = 0
    """0 for what no model wrote: scores."""
    completion_tokens: int = 0


def token_counts(folder: Path, config: RecipeConfig) -> dict[str, dict[str, int]]:
    """Calls and tokens of each stage."""
    counts = {}
    for name in stage_names(config):
        rows = read_jsonl(folder / name, _Tokens)
        counts[name.removesuffix(".jsonl")] = {
            "calls": len(rows),
            "prompt_tokens": sum(row.prompt_tokens for row in rows),
            "completion_tokens": sum(row.completion_tokens for row in rows),
        }
    return counts
