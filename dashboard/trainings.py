"""Training runs and their logs, as panels of curves. Reads only; no user interface here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboard.store import Store, folders_with
from runs.errors import IntegrityError
from runs.manifest import NAME as MANIFEST
from runs.paths import shown

LOGS = ("train_log.jsonl", "log.jsonl")
"""What `finetune` and `safety-classifier train` write; the first while it works in the hidden folder below."""
SPEED = "train_speed.jsonl"
"""Beside `finetune`'s log: tokens a second, which differ from run to run and so are no part of the log."""
WORK = ".work"
DEPTH = 4
LARGEST_LOG = 64 << 20
MOST_POINTS = 1500
"""Points of a curve that are drawn: longer ones are thinned evenly, and keep their last point."""


@dataclass(frozen=True)
class Training:
    """A training run."""

    name: str
    """``artifacts/…`` or ``results/…``."""
    folder: Path
    log: Path
    finished: bool
    facts: dict[str, str]
    """What its manifest says: steps, rows, tokens, tokens a second, held-out loss."""


@dataclass(frozen=True)
class Curve:
    """One quantity of one training."""

    training: str
    label: str
    """The log's own name."""
    held_out: bool
    points: tuple[tuple[float, float], ...]
    """(step, value)."""


@dataclass(frozen=True)
class Panel:
    """Curves on one axis."""

    name: str
    title: str
    curves: tuple[Curve, ...]


PANELS: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("loss", "Loss", lambda key: key == "loss"),
    ("pairs", "Pairs ranked right", lambda key: key in {"rewards/accuracies", "pairwise_accuracy"}),
    ("accuracy", "Token accuracy", lambda key: key in {"mean_token_accuracy", "accuracy"}),
    ("margins", "Reward margin", lambda key: key == "rewards/margins"),
    ("kl", "KL from the reference", lambda key: "kl" in key.replace("_", "/").split("/")),
    ("rewards", "Rewards", lambda key: key in {"rewards/chosen", "rewards/rejected", "reward"}),
    ("length", "Tokens of an answer", lambda key: key in {"answer_tokens", "completions/mean_length"}),
    ("repetition", "Repeated 4-grams", lambda key: key == "repetition"),
    ("speed", "Tokens a second", lambda key: key in {"tokens_per_second", "tokens/s"}),
    ("gradient", "Gradient norm", lambda key: key == "grad_norm"),
    ("rate", "Learning rate", lambda key: key == "learning_rate"),
)
"""Name, title, and which of a log's quantities belong to it, without their split's prefix."""
_HELD_OUT = ("eval_", "eval/", "validation/", "valid/", "dev/")


def find_trainings(store: Store) -> list[Training]:
    """Every training under the artifacts and the results root, artifacts first."""
    found = []
    for root, label in ((store.artifacts, "artifacts"), (store.root, "results")):
        if not root.is_dir():
            continue
        names = (*LOGS, *(f"{WORK}/{name}" for name in LOGS))
        for folder in folders_with(names, root, depth=DEPTH):
            log = next(folder / name for name in names if (folder / name).is_file())
            if store.inside(log):
                found.append(_training(f"{label}/{folder.relative_to(root).as_posix()}", folder, log))
    return found


def _training(name: str, folder: Path, log: Path) -> Training:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return Training(name, folder, log, False, {})
    facts = _facts(manifest) if isinstance(manifest, dict) else {}
    return Training(name, folder, log, True, facts)


def _facts(manifest: dict[str, Any]) -> dict[str, str]:
    metrics, counts = manifest.get("metrics") or {}, manifest.get("counts") or {}
    seconds, rate = metrics.get("training_seconds"), metrics.get("tokens_per_second")
    took = float(seconds) if isinstance(seconds, int | float) else 0.0
    found: dict[str, Any] = {
        "kind": manifest.get("kind"),
        "made": str(manifest.get("created", ""))[:10],
        "steps": metrics.get("steps"),
        "rows": counts.get("rows_trained"),
        "held-out rows": counts.get("rows_held_out"),
        "tokens": counts.get("tokens"),
        "tokens a second": round(rate) if isinstance(rate, int | float) else None,
        "minutes": round(took / 60, 1) if took else None,
        "held-out loss": metrics.get("eval_loss"),
        "held-out accuracy": metrics.get("eval_rewards/accuracies", metrics.get("eval_mean_token_accuracy")),
    }
    return {
        key: f"{value:,}" if isinstance(value, int | float) else str(value) for key, value in found.items() if value
    }


def read_log(path: Path) -> list[dict[str, float]]:
    """The numbers of a training log, one mapping a line; a torn last line is left out.

    Raises:
        IntegrityError: a line in the middle is not JSON, or the file is too large.
    """
    if path.stat().st_size > LARGEST_LOG:
        raise IntegrityError(f"{shown(path)} is too large to be drawn.", mend="Look at it in TensorBoard.")
    lines = path.read_bytes().splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break  # being written
            raise IntegrityError(f"{shown(path)}, line {number}: not JSON.", mend="The file was damaged.") from error
        if isinstance(value, dict):
            numbers = {key: float(held) for key, held in value.items() if isinstance(held, int | float)}
            rows.append({key: held for key, held in numbers.items() if math.isfinite(held)})
    return rows


def panels(trainings: Sequence[Training]) -> list[Panel]:
    """The panels that at least one of ``trainings`` has numbers for. Raises `IntegrityError` as `read_log`."""
    logs = {training.name: _rows(training) for training in trainings}
    made = []
    for name, title, belongs in PANELS:
        curves = [curve for training, rows in logs.items() for curve in _curves(training, rows, belongs)]
        if curves:
            made.append(Panel(name, title, tuple(curves)))
    return made


def _rows(training: Training) -> list[dict[str, float]]:
    """The log's numbers, and those of the speed file beside it."""
    beside = training.log.with_name(SPEED)
    inside = beside.is_file() and not beside.is_symlink()
    return read_log(training.log) + (read_log(beside) if inside else [])


def _curves(training: str, rows: Sequence[dict[str, float]], belongs: Callable[[str], bool]) -> list[Curve]:
    keys = dict.fromkeys(key for row in rows for key in row if key != "step")
    made = []
    for key in keys:
        held_out = key.startswith(_HELD_OUT)
        if belongs(plain_name(key)):
            points = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
            made.append(Curve(training, key, held_out, tuple(_thinned(points))))
    return made


def plain_name(key: str) -> str:
    """The name of a quantity without its split: ``eval_loss`` is ``loss``."""
    for prefix in (*_HELD_OUT, "train/", "train_"):
        key = key.removeprefix(prefix)
    return key


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = max(1, math.ceil(len(points) / MOST_POINTS))
    kept = list(points[::stride])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]
