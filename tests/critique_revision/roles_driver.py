"""Runs a recipe with the engines that its config names. A helper of the tests here, and the process that they kill."""

from __future__ import annotations

import sys
from pathlib import Path

from critique_revision.config import RecipeConfig
from critique_revision.generate import read_setup, run_recipe
from critique_revision.roles import open_players
from inference.families import load_family
from runs import config
from runs.console import Reporter
from runs.lock import run_lock
from runs.manifest import Manifest


def run(path: Path, folder: Path, overrides: tuple[str, ...] = ()) -> Manifest:
    setup, selection = read_setup(config.load(RecipeConfig, path, overrides))
    with run_lock(folder):
        return run_recipe(
            setup,
            open_players(setup.config, load_family(setup.config.family), folder),
            folder,
            prompt_counts=selection.counts,
            sources={},
            reporter=Reporter(quiet=True),
            command="test",
        )


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
