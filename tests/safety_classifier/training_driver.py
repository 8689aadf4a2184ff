"""Trains a very small classifier on templates, in a process of its own: ``python -m … FOLDER [KEY=VALUE …]``.

The tests kill it, and give it other devices and processes. Its last line is the digest of the trained arrays.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runs.config import parse
from runs.console import Reporter
from runs.identity import digest

CONFIG = {
    "data": {"sources": "configs/safety_classifier/sources-synthetic.yaml", "max_rows": 1200},
    "model": {
        "pretrained": None,
        "gram_bits": 10,
        "max_tokens": 64,
        "encoder": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 64,
        },
    },
    "train": {
        "epochs": 1,
        "buckets": [64],
        "tokens_per_batch": 2048,
        "precision": "float32",
        "dropout": 0.1,
        "max_steps": 12,
    },
    "checkpoints": {"every": 3, "validation_rows": 200},
    "track": {"report_to": []},
}


def main() -> None:
    """Train, and stop before the artifact: what it is made of is the state."""
    from runs.config import apply_overrides
    from safety_classifier.config import ClassifierRun
    from safety_classifier.training import run as training
    from safety_classifier.training.checkpoints import Checkpoints
    from safety_classifier.training.setup import open_session

    folder, *overrides = sys.argv[1:]
    config = parse(ClassifierRun, apply_overrides({**CONFIG, "output_dir": folder}, overrides), source="the driver")
    delay = float(os.environ.get("STEP_DELAY", "0"))
    if delay:
        slow_down(training, delay)
    try:
        training.train(config, Reporter(quiet=True), command="a test", finish=False)
    except training.Preempted as stopped:
        sys.stdout.write(f"{stopped.what}\n")
        sys.exit(int(stopped.exit_code))
    session = open_session(config, Reporter(quiet=True))
    state, _ = Checkpoints(Path(folder), 2).restore(session.state) or (None, None)
    assert state is not None
    import numpy as np

    sys.stdout.write(digest([np.asarray(array).tobytes().hex() for array in state.trained]) + "\n")


def slow_down(training: object, delay: float) -> None:
    """Wait before each step, so that a signal finds the loop at work."""
    import time

    profiled = training.profiled  # type: ignore[attr-defined]

    def waiting(run: object, step: int) -> object:
        time.sleep(delay)
        return profiled(run, step)

    training.profiled = waiting  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
