"""Runs the recipe with a scripted engine; dies by SIGKILL after a given number of calls. A helper of the tests here."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from critique_revision.config import RecipeConfig
from critique_revision.generate import read_setup, run_recipe
from inference.engines.scripted import ScriptedEngine
from inference.records import Request
from runs import config
from runs.console import Reporter
from runs.identity import text_digest
from runs.job import Shard
from runs.lock import run_lock
from runs.manifest import Manifest


def reply(request: Request) -> str:
    """A model that answers, criticises or revises, according to what it is asked."""
    last = request.messages[-1].content
    mark = text_digest(last)[:6]
    if "ewrite" in last:
        topic = max(last.split("\n", 1)[0].strip("?").split(), key=len)
        return f"A calmer and safer thing to try with {topic} is number {mark} today."
    if not last.startswith("Message:"):
        return f"Here are five careful words about {mark} for you."
    return f"It lacks one concrete step near {mark}."


def engines(kill_after: int | None = None) -> dict[str, ScriptedEngine]:
    calls = 0

    def answer(request: Request) -> str:
        nonlocal calls
        calls += 1
        if kill_after is not None and calls > kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return reply(request)

    return {"base": ScriptedEngine(answer)}


def run(
    path: Path,
    folder: Path,
    overrides: tuple[str, ...] = (),
    kill_after: int | None = None,
    shard: Shard | None = None,
) -> Manifest:
    setup, selection = read_setup(config.load(RecipeConfig, path, overrides))
    with run_lock(folder):
        return run_recipe(
            setup,
            engines(kill_after),
            folder,
            prompt_counts=selection.counts,
            sources={},
            reporter=Reporter(quiet=True),
            command="test",
            shard=shard,
        )


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), kill_after=int(sys.argv[3]))
