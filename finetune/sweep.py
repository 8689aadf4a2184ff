"""Sweeps: ``--set train.learning_rate=[1e-4,2e-4]`` is two runs, and all lists together are their product.

A list where the config wants one value is an axis; where it wants a list (``train.loss_type``), a list of lists is.
Each run is a process of its own, so that its peak memory is its own, and has a folder of its own below ``output_dir``;
a sweep that was interrupted goes on like its runs do. ``sweep.json`` beside them has the table.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml

from runs.atomic import make_folder, write_text
from runs.config import StrictModel
from runs.console import Reporter, plain
from runs.errors import Preempted, UsageError, UserError
from runs.job import stop_flag
from runs.manifest import read_manifest
from runs.paths import shown

RESULTS = "sweep.json"
SHOWN = (
    "eval_loss",
    "eval_rewards/accuracies",
    "eval_rewards/margins",
    "eval_pairwise_accuracy",
    "eval_reward",
    "eval_kl",
    "tokens_per_second",
    "minutes",
)
"""Metrics of the table, where runs have them."""
SEEDS = frozenset({"train.seed", "data.seed"})
MOST = 64
"""Runs of a sweep: a longer list is a slip more often than a wish."""


@dataclass(frozen=True)
class Sweep:
    """Axes, in the order given, and the overrides that all runs share."""

    axes: tuple[tuple[str, tuple[str, ...]], ...]
    """Key and values, each as it would be written after ``--set``."""
    fixed: tuple[str, ...]

    def points(self) -> list[dict[str, str]]:
        """The product of the axes; the last one changes fastest."""
        names = [name for name, _ in self.axes]
        return [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis for _, axis in self.axes))]


def read_sweep(model: type[StrictModel], overrides: Sequence[str]) -> Sweep | None:
    """The sweep that ``overrides`` ask for, or None where they ask for one run.

    Raises:
        UsageError: an axis is empty or has one value twice, or there are too many runs.
    """
    axes: dict[str, tuple[str, ...]] = {}
    fixed: list[str] = []
    for override in overrides:
        name, separator, text = override.partition("=")
        value = yaml.safe_load(text) if separator and text.lstrip().startswith("[") else None
        wants_list = takes_list(model, name.strip())
        if not isinstance(value, list) or (wants_list and not (value and all(isinstance(one, list) for one in value))):
            fixed.append(override)
            continue
        values = tuple(_written(one) for one in value)
        if not values or len(set(values)) != len(values):
            raise UsageError(f"--set {override}: a sweep needs values, each once.")
        axes[name.strip()] = values
    if not axes:
        return None
    sweep = Sweep(tuple(axes.items()), tuple(fixed))
    if len(sweep.points()) > MOST:
        raise UsageError(f"The sweep has {len(sweep.points())} runs; at most {MOST} are started.")
    return sweep


def _written(value: Any) -> str:
    """A value as it is written after ``--set``; YAML's block style would not fit a line."""
    return value if isinstance(value, str) else json.dumps(value)


def takes_list(model: type[StrictModel], dotted: str) -> bool:
    """Whether the config has a list at ``dotted``; False for a key that it does not know."""
    annotation: Any = model
    for part in dotted.split("."):
        fields = getattr(_model(annotation), "model_fields", {})
        if part not in fields:
            return False
        annotation = fields[part].annotation
    return any(get_origin(one) in (tuple, list) for one in _alternatives(annotation))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _model(annotation: Any) -> Any:
    return next((one for one in _alternatives(annotation) if hasattr(one, "model_fields")), None)


def folder_name(point: dict[str, str]) -> str:
    """A run's folder: its values, fit for a path."""
    words = (f"{name.rpartition('.')[2]}={value}" for name, value in point.items())
    return ",".join("".join(char if char.isalnum() or char in "=.-_" else "_" for char in word) for word in words)


def run_sweep(
    sweep: Sweep, words: Sequence[str], output: Path, reporter: Reporter, *, resume: bool
) -> tuple[dict[str, Any], list[str]]:
    """Run all points, one after the other, and write the table.

    Args:
        sweep: what is varied.
        words: the command of one run without ``--set`` and folder: stage, ``--config`` and so on.
        output: folder of the sweep.
        reporter: shows the progress.
        resume: False starts every run afresh.

    Returns:
        The command's result, for machines and for people.

    Raises:
        Preempted: SIGTERM came; the run at work saved its state, and the same command goes on.
        UserError: runs failed. The table has the others, and the reasons.
    """
    points = sweep.points()
    make_folder(output)
    done: list[dict[str, Any]] = []
    with stop_flag() as stop:
        for number, point in enumerate(points, start=1):
            folder = output / folder_name(point)
            asked = [*sweep.fixed, *(f"{name}={value}" for name, value in point.items()), f"output_dir={folder}"]
            reporter.say(f"Run {number} of {len(points)}: {plain(folder.name)}")
            command = [sys.executable, "-m", "finetune.cli", *words, "--quiet", "--json"]
            command += [word for one in asked for word in ("--set", one)] + ([] if resume else ["--no-resume"])
            done.append({"set": point, "output_dir": shown(folder), **_one(command, folder, stop)})
            write_text(output / RESULTS, json.dumps(summary(sweep, done), indent=2) + "\n")
    value = summary(sweep, done)
    reporter.table("Sweep", *table(sweep, done))
    failed = [run for run in done if run["error"] is not None]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(done)} runs failed; the table is in {shown(output / RESULTS)}.",
            why=f"{Path(failed[0]['output_dir']).name}: {failed[0]['error']}",
            mend="Mend or remove those values. The same command goes on; finished runs are not repeated.",
        )
    return value, [f"[green]Sweep:[/] {len(done)} runs, {plain(shown(output / RESULTS))}"]


def _one(command: list[str], folder: Path, stop: Sequence[bool]) -> dict[str, Any]:
    """Run one point; its metrics, or why there are none."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while True:
        try:
            _, errors = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            if stop:
                process.terminate()
    if stop:
        raise Preempted("The sweep was asked to stop.", mend="The same command goes on.")
    if process.returncode:
        return {"error": _reason(errors) or f"exit code {process.returncode}", "metrics": {}}
    manifest = read_manifest(folder, rebuild="run the sweep again")
    return {
        "error": None,
        "run_id": manifest.run_id,
        "seeds": manifest.seeds,
        "peak_memory_gib": manifest.peak_memory_gib,
        "metrics": manifest.metrics,
    }


def _reason(errors: str) -> str:
    """What a command's error panel says, in one line; without a panel, the last line, as of a traceback."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    panel = [line.strip("│ ") for line in lines if line.startswith("│")]
    return " ".join(panel) if panel else (lines[-1] if lines else "")


def summary(sweep: Sweep, done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sweep's results; where seeds were varied, with mean and standard deviation over them."""
    value: dict[str, Any] = {
        "schema_version": 1,
        "axes": {name: list(values) for name, values in sweep.axes},
        "fixed": list(sweep.fixed),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "runs": list(done),
    }
    if SEEDS & {name for name, _ in sweep.axes}:
        value["over_seeds"] = over_seeds(done)
    return value


def over_seeds(done: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each setting but the seeds: how many runs finished, mean and sample standard deviation of their metrics."""
    groups: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
    for run in done:
        if run["error"] is None:
            key = tuple((name, value) for name, value in run["set"].items() if name not in SEEDS)
            groups.setdefault(key, []).append(run["metrics"])
    found = []
    for setting, members in groups.items():
        shared = [name for name in SHOWN if all(isinstance(one.get(name), int | float) for one in members)]
        values = {name: [float(one[name]) for one in members] for name in shared}
        numbers = {
            name: {"mean": statistics.fmean(many), "sd": statistics.stdev(many) if len(many) > 1 else None}
            for name, many in values.items()
        }
        found.append({"set": dict(setting), "runs": len(members), "metrics": numbers})
    return found


def table(sweep: Sweep, done: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people."""
    names = [name for name, _ in sweep.axes]
    metrics = [name for name in SHOWN if any(run["metrics"].get(name) is not None for run in done)]
    columns = [name.rpartition(".")[2] for name in names] + [*metrics, "peak GiB"]
    rows = []
    for run in done:
        numbers = [run["metrics"].get(name) for name in metrics]
        cells = [f"{number:.4g}" if number is not None else "" for number in numbers]
        peak = "failed" if run["error"] is not None else f"{run['peak_memory_gib']:.2f}"
        rows.append([run["set"][name] for name in names] + [*cells, peak])
    return columns, rows
