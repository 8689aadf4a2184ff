"""Runs the recipe with a scripted engine; dies by SIGKILL after a given number of calls. A helper of the tests here."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
from pathlib import Path

from critique_revision.config import RecipeConfig
from critique_revision.generate import read_setup, run_recipe
from inference.engines.scripted import ScriptedLabeller
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
    if any(turn.role == "assistant" and turn.content.startswith("I'm sorry") for turn in request.messages[:-1]):
        return f"I'm sorry, but I can't help with the matter of {mark}."
    if request.messages[0].role == "system":
        return f"A taught answer has several careful words about {mark} in it."
    if request.sample:
        return f"Sample {request.sample} holds other careful words about {mark} and {mark}."
    if "ewrite" in last:
        topic = max(last.split("\n", 1)[0].strip("?").split(), key=len)
        return f"A calmer and safer thing to try with {topic} is number {mark} today."
    if not last.startswith("Message:"):
        return f"Here are five careful words about {mark} for you."
    return f"It lacks one concrete step near {mark}."


def engines(kill_after: int | None = None) -> dict[str, ScriptedLabeller]:
    calls = 0

    def answer(request: Request) -> str:
        nonlocal calls
        calls += 1
        if kill_after is not None and calls > kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return reply(request)

    def letters(request: Request) -> dict[str, float]:
        """A labeller that prefers the shorter answer, and A by a little."""
        answer(request)
        shown = re.search(r"\n\(A\) (.*)\n\(B\) (.*)\nPrinciple", _question(request))
        assert shown is not None
        a = 0.6 if len(shown[1]) < len(shown[2]) else 0.45
        return {"A": math.log(a), "B": math.log(1 - a)}

    return {"base": ScriptedLabeller(answer, letters)}


def _question(request: Request) -> str:
    return next(turn.content for turn in reversed(request.messages) if turn.content.startswith("Message:"))


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
