"""Makes a tiny family with data in a folder, for training in processes of their own: ``python -m … FOLDER``."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import yaml

from tests import tiny


def _text(words: random.Random, count: int) -> str:
    return " ".join(words.choice(tiny.WORDS) for _ in range(count))


def prepare(folder: Path) -> None:
    """A tiny Llama, 70 conversations, 40 pairs, and a config for each stage in ``folder``."""
    words = random.Random(0)
    base = tiny.build_llama(folder / "base")
    family = tiny.write_family(folder, "tiny-llama", base)
    turns = [
        {"chosen": f"\n\nHuman: {_text(words, 5)}\n\nAssistant: {_text(words, words.randint(2, 9))}"} for _ in range(70)
    ]
    pairs = [
        {
            "prompt": [{"role": "user", "content": _text(words, 5)}],
            "chosen": [{"role": "assistant", "content": _text(words, 6)}],
            "rejected": [{"role": "assistant", "content": _text(words, 3)}],
        }
        for _ in range(40)
    ]
    for name, rows in (("conversations", turns), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {"family": str(family), "output_dir": str(folder / "out")}
    train = {"learning_rate": 1e-2, "per_device_train_batch_size": 4, "global_batch_size": 8, "save_steps": 4}
    train |= {"logging_steps": 2, "num_train_epochs": 2, "warmup_steps": 2}
    data = {"holdout_fraction": 0.1, "max_tokens": 160}
    sft = shared | {
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
        "data": {"sources": [{"path": str(folder / "conversations.jsonl")}], "field": "chosen"} | data,
        "train": train | {"eval_steps": 4},
    }
    dpo = shared | {
        "init_adapter": None,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
        "data": {"sources": [{"path": str(folder / "pairs.jsonl")}]} | data,
        "train": train | {"learning_rate": 1e-3, "loss_type": ["sigmoid"], "eval_steps": 4},
    }
    (folder / "sft.yaml").write_text(yaml.safe_dump(sft))
    (folder / "dpo.yaml").write_text(yaml.safe_dump(dpo))


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
