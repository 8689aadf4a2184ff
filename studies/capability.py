"""What the stages cost on lm-eval's tasks, the seeds of stage3 together.

    uv run evaluate --family results/studies/seeds/family.yaml --models base stage2 seed0 seed1 seed2 --limit 8 \
        --benchmarks arc_easy,piqa,winogrande --benchmarks-path configs/evaluation/benchmarks \
        --no-report --output-dir results/capability
    uv run python -m studies.capability results/capability/benchmark_samples.jsonl \
        --seeds seed0 seed1 seed2 --output artifacts/smollm2-135m/studies

The checkpoints are those of `studies/seeds.yaml`. Each answers the same questions, so differences are paired. Several
runs may be named: they add questions, tasks or checkpoints to each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

from evaluation.analysis import main_metric
from evaluation.benchmarks.records import BenchmarkSample
from inference.families import BASE
from runs.atomic import write_text
from runs.config import StrictModel
from runs.errors import DataError
from runs.records import read_jsonl
from studies.measure import Estimate, estimate

NAME = "capability"
BAR = 0.01
"""A stage may cost so much of each task's accuracy."""

Answered: TypeAlias = dict[str, dict[int, float]]
"""Checkpoint → question → its value in the task's main metric, 0 or 1."""


class Level(StrictModel):
    """One checkpoint, or the seeds of one recipe, on one task."""

    name: str
    accuracy: Estimate
    cost: Estimate | None
    """Accuracy minus base's, paired by question; None for base itself."""
    by_seed: list[float]
    """Each seed's own difference; the interval is over questions and does not hold what seeds add."""


class Task(StrictModel):
    """One task."""

    name: str
    questions: int
    levels: list[Level]


class Capability(StrictModel):
    """All tasks."""

    tasks: list[Task]


def answered(rows: Sequence[BenchmarkSample], models: Sequence[str], *, skip: int = 0) -> dict[str, Answered]:
    """The answers of ``models`` by task, without each task's first ``skip`` questions.

    Raises:
        DataError: they did not answer the same questions as base, or none.
    """
    tasks: dict[str, Answered] = {row.task: {model: {} for model in (BASE, *models)} for row in rows}
    for row in rows:
        metric = main_metric(row.metrics)
        if row.model in tasks[row.task] and metric is not None and row.doc_id >= skip:
            tasks[row.task][row.model][row.doc_id] = row.metrics[metric]
    for task, found in tasks.items():
        missing = [model for model, values in found.items() if not values or values.keys() != found[BASE].keys()]
        if missing:
            raise DataError(
                f"The answers to {task} cannot be compared.",
                why=f"These checkpoints have other questions than base, or none: {', '.join(missing)}.",
                mend="Evaluate all of them in one run.",
            )
    return tasks


def measure(rows: Sequence[BenchmarkSample], groups: Mapping[str, Sequence[str]]) -> Capability:
    """Accuracy and cost of each group of checkpoints; a question's value is the mean of a group.

    Raises:
        DataError: as `answered`.
    """
    tables = answered(rows, [model for group in groups.values() for model in group])
    return Capability(
        tasks=[
            Task(
                name=task,
                questions=len(found[BASE]),
                levels=[_level(name, [found[model] for model in group], found[BASE]) for name, group in groups.items()],
            )
            for task, found in tables.items()
        ]
    )


def _level(name: str, runs: Sequence[Mapping[int, float]], base: Mapping[int, float]) -> Level:
    apart = [[run[question] - base[question] for question in base] for run in runs]
    accuracy = estimate([fmean(run[question] for run in runs) for question in base])
    assert accuracy is not None  # `answered` gives every checkpoint questions
    cost = None if name == BASE else estimate([fmean(values) for values in zip(*apart, strict=True)])
    return Level(name=name, accuracy=accuracy, cost=cost, by_seed=[fmean(values) for values in apart])


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "answers", type=Path, nargs="+", help="benchmark_samples.jsonl of evaluations with --benchmarks"
    )
    parser.add_argument("--seeds", nargs="+", required=True, help="checkpoints that are stage3 together")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    options = parser.parse_args(arguments)
    groups = {BASE: [BASE], "stage2": ["stage2"], "stage3": options.seeds}
    found = measure([row for path in options.answers for row in read_jsonl(path, BenchmarkSample)], groups)
    write_text(options.output / f"{NAME}.json", found.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
