"""Who plays the roles of a run: the family's checkpoints in this process, models behind servers, answers on file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from critique_revision.config import SELF, RecipeConfig, Role
from critique_revision.recipes import recipe_of
from inference.engines import open_engines
from inference.engines.base import Engine
from inference.engines.openai import OpenAIEngine
from inference.engines.recorded import RecordedEngine
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
            kind = "Server" if name in config.servers else "Recorded model"
            raise UsageError(
                f"{kind} '{name}' has the name of a checkpoint of family {family.name}.",
                mend="Give it another name in the config: records name who wrote what.",
            )
        if name in config.recorded:
            engines[name] = RecordedEngine(config.recorded[name], name)
        else:
            engines[name] = OpenAIEngine(config.servers[name], name, folder)
    if config.checkpoints:
        engines.update(open_engines(family, config.checkpoints, batch_size=config.batch_size, device=config.device))
    return engines


def cast(config: RecipeConfig, prompts: int) -> dict[str, dict[str, Any]]:
    """The acting roles of a run on so many prompts: player, model, number of calls, and their most tokens."""
    shown = {}
    for part, calls in recipe_of(config).calls(config).items():
        role = config.acting[part]
        made = 0 if role.engine in config.recorded else calls * prompts
        shown[part] = {
            "player": role.player,
            "model": _model(config, role),
            "calls": made,
            "most_completion_tokens": made * role.max_new_tokens,
        }
    return shown


def _model(config: RecipeConfig, role: Role) -> str:
    if role.engine == SELF:
        return config.family
    return (config.recorded[role.engine] if role.engine in config.recorded else config.servers[role.engine]).model
