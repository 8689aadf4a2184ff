"""A tiny stage 2, trained once for the whole folder, and configs that train in a second."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune.config import DPORun, RewardRun, RLRun, SFTRun
from finetune.fit import Options
from finetune.sft import run_sft
from inference.families import load_family
from runs.console import Reporter
from tests import tiny

OPTIONS = Options(command="uv run finetune … (test)")
QUIET = Reporter(quiet=True)


@dataclass(frozen=True)
class Place:
    """A family with data, and where its adapters go."""

    folder: Path
    family: str
    conversations: Path
    pairs: Path

    def sft(self, output: str | Path = "stage2", data: dict[str, Any] | None = None, **train: Any) -> SFTRun:
        values = {
            "family": self.family,
            "output_dir": self.folder / output,
            "lora": {"r": 4, "alpha": 8},
            "data": {"sources": [{"path": str(self.conversations)}], "field": "chosen", "holdout_fraction": 0.1}
            | {"max_tokens": 160}
            | (data or {}),
            "train": {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "save_steps": 5, "eval_steps": 5}
            | train,
        }
        return SFTRun.model_validate(values)

    def dpo(self, output: str | Path = "stage3", **train: Any) -> DPORun:
        values = {
            "family": self.family,
            "output_dir": self.folder / output,
            "data": {"sources": [{"path": str(self.pairs)}], "holdout_fraction": 0.1},
            "train": {
                "learning_rate": 1e-3,
                "per_device_train_batch_size": 8,
                "save_steps": 5,
                "loss_type": ["sigmoid"],
            }
            | train,
        }
        return DPORun.model_validate(values)

    def reward(self, output: str | Path = "reward", **train: Any) -> RewardRun:
        values = {
            "family": self.family,
            "output_dir": self.folder / output,
            "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
            "data": {"sources": [{"path": str(self.pairs)}], "holdout_fraction": 0.1},
            "train": {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "save_steps": 5, "num_train_epochs": 3}
            | train,
        }
        return RewardRun.model_validate(values)

    def rl(self, output: str | Path = "rl", **train: Any) -> RLRun:
        values = {
            "family": self.family,
            "output_dir": self.folder / output,
            "rewards": [{"evaluator": "helpfulness"}],
            "watched": ["refusal"],
            "data": {"sources": [{"path": str(self.pairs)}], "holdout_fraction": 0.1, "max_rows": 16},
            "train": {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "num_generations": 4}
            | {"max_completion_length": 8, "logging_steps": 2, "save_steps": 4, "eval_steps": 4}
            | train,
        }
        return RLRun.model_validate(values)


def _text(words: random.Random, count: int) -> str:
    return " ".join(words.choice(tiny.WORDS) for _ in range(count))


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def place(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The tiny Llama with 100 conversations and 40 pairs."""
    folder, words = tmp_path_factory.mktemp("finetune"), random.Random(0)
    turns = [
        "".join(
            f"\n\nHuman: {_text(words, 5)}\n\nAssistant: {_text(words, words.randint(2, 9))}"
            for _ in range(words.randint(1, 3))
        )
        for _ in range(100)
    ]
    conversations = _write(folder / "conversations.jsonl", [{"chosen": text} for text in turns])
    pairs = _write(
        folder / "pairs.jsonl",
        [
            {
                "prompt": [{"role": "user", "content": _text(words, 5)}],
                "chosen": [{"role": "assistant", "content": _text(words, 6)}],
                "rejected": [{"role": "assistant", "content": _text(words, 3)}],
            }
            for _ in range(40)
        ],
    )
    family = tiny.write_family(folder, "tiny-llama", tiny_llama, {"stage2": folder / "stage2"})
    return Place(folder, str(family), conversations, pairs)


@pytest.fixture(scope="session")
def stage2(place: Place) -> Path:
    """The adapter of an uninterrupted SFT run."""
    run_sft(place.sft(), OPTIONS, QUIET)
    return place.folder / "stage2"


@pytest.fixture(scope="session")
def tokenizer(place: Place):
    from inference.loading import load_tokenizer

    return load_tokenizer(load_family(place.family))


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Make the run in this block stop like Ctrl-C just after ``step``."""
    from finetune import trainers

    original = trainers.Progress.on_step_end

    def stop(self, args, state, control, **rest):
        original(self, args, state, control, **rest)
        if state.global_step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainers.Progress, "on_step_end", stop)
        yield
