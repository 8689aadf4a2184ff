"""Who plays the roles of a run: the family's checkpoints in this process, and models behind servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from critique_revision.config import SELF, RecipeConfig
from inference.engines import open_engines
from inference.engines.base import Engine
from inference.engines.openai import OpenAIEngine
from inference.families import Family
from runs.errors import UsageError


def open_players(config: RecipeConfig, family: Family, folder: Path) -> dict[str, Engine]:
    """An engine for everyone who makes calls in the run, by name. Servers are not asked yet.

    Roles of one name share one engine, and so one spending limit. The base is loaded only if a role needs it.

    Raises:
        UsageError: a checkpoint that the family does not have, a server of a checkpoint's name, or no API key.
        UserError, IntegrityError: weights or adapters that are missing, damaged, or of another base.
    """
    engines: dict[str, Engine] = {}
    for name in dict.fromkeys(role.engine for role in config.acting.values() if role.engine != SELF):
        if name in family.checkpoints:
            raise UsageError(
                f"Server '{name}' has the name of a checkpoint of family {family.name}.",
                mend="Give it another name under 'servers': records name who wrote what.",
            )
        engines[name] = OpenAIEngine(config.servers[name], name, folder)
    if config.checkpoints:
        engines.update(open_engines(family, config.checkpoints, batch_size=config.batch_size, device=config.device))
    return engines


def cast(config: RecipeConfig, prompts: int) -> dict[str, dict[str, Any]]:
    """The acting roles of a run on so many prompts: player, model, number of calls, and their most tokens."""
    shown = {}
    for part, role in config.acting.items():
        calls = prompts if part == "generator" else prompts * config.revisions
        model = config.family if role.engine == SELF else config.servers[role.engine].model
        shown[part] = {
            "player": role.player,
            "model": model,
            "calls": calls,
            "most_completion_tokens": calls * role.max_new_tokens,
        }
    return shown
