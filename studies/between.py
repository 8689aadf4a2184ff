"""Checkpoints on the straight line between two adapters: what a stage gains and costs on its way.

    uv run finetune dpo --config configs/finetune/smollm2-135m-dpo.yaml --set train.bf16=true \
        --set interpolation=1 --output-dir results/stage3-whole
    uv run python -m studies.between make --start stage2 --end results/stage3-whole --shares 55 70 85 100 \
        --output results/between
    uv run python -m studies.run studies/between.yaml --jobs 2
    uv run evaluate --family results/studies/between/family.yaml --models base stage2 at55 at70 at85 at100 \
        --limit 24 --benchmarks arc_easy --benchmarks-path configs/evaluation/benchmarks \
        --no-report --output-dir results/between/benchmarks
    uv run python -m studies.between draw results/studies/between/study.json \
        results/between/benchmarks/benchmark_samples.jsonl --skip 1000 --output artifacts/smollm2-135m/studies

Between a model and its fine-tuning lie models that trade what was learnt for what it cost (Wortsman et al. 2022, Robust
fine-tuning of zero-shot models, §3). A share is chosen here, so the prompts are not those of the result.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.benchmarks.records import BenchmarkSample
from finetune import lora
from inference.adapters import check_adapter
from inference.families import BASE, Family, load_family
from inference.loading import base_identity
from runs.atomic import folder as whole_folder
from runs.atomic import write_text
from runs.config import StrictModel
from runs.errors import DataError, UsageError
from runs.identity import digest
from runs.manifest import write_manifest
from runs.palette import FAINT, SERIES
from runs.paths import shown
from runs.records import read_jsonl
from studies.capability import answered
from studies.measure import BENIGN, HARMFUL, Estimate, Outcome, estimate

NAME = "between"


class Point(StrictModel):
    """One checkpoint of the curve."""

    name: str
    refused_harmful: Estimate
    refused_benign: Estimate
    helpfulness: Estimate
    accuracy: float
    """On the benchmark, 0 to 1."""
    cost: Estimate | None
    """Accuracy minus base's, paired; None for base itself."""


class Between(StrictModel):
    """The curve."""

    task: str
    skipped: int
    """Questions at the benchmark's beginning that were left out."""
    questions: int
    prompts: int
    points: list[Point]


def make(family: Family, names: tuple[str, str], shares: Sequence[int], output: Path, command: str) -> list[Path]:
    """Write the adapters that stand so many percent of the way from one checkpoint to the other, as ``at25`` and so on.

    They are what `finetune dpo` stores with ``interpolation``, but for its rounding: here both ends are stored ones.

    Raises:
        IntegrityError: the second was not trained from the first; their tensors differ in name or shape.
        UsageError: one of them is there already; it may be of another end.
    """
    from safetensors.torch import load_file, save_file

    base = base_identity(family)
    ends = [lora.resolve_adapter(name, family) for name in names]
    found = [check_adapter(end, base_identity=base) for end in ends]
    start, end = (load_file(folder / lora.WEIGHTS) for folder in ends)
    made = []
    for percent in shares:
        began, target = time.monotonic(), output / f"at{percent}"
        if target.exists():
            raise UsageError(f"{shown(target)} is there already.", mend="Remove it, or choose another --output.")
        with whole_folder(target) as building:
            save_file(lora.interpolated(start, end, percent / 100), building / lora.WEIGHTS, metadata={"format": "pt"})
            shutil.copyfile(ends[1] / lora.CONFIG, building / lora.CONFIG)
            write_manifest(
                building,
                kind="adapter",
                run_id=digest([*(one.run_id for one in found), percent]),
                command=command,
                config={"start": names[0], "end": names[1], "percent": percent},
                inputs={"base": base, **{name: one.run_id for name, one in zip(names, found, strict=True)}},
                seeds={},
                counts=found[1].counts,
                metrics={},
                wall_seconds=time.monotonic() - began,
            )
        made.append(target)
    return made


def curve(outcome: Outcome, rows: Sequence[BenchmarkSample], *, skip: int = 0) -> Between:
    """Join a study of the checkpoints with their answers to one benchmark, without its first ``skip`` questions.

    Raises:
        DataError: there is more than one task, or the checkpoints did not answer the same questions.
    """
    tasks = answered(rows, [one.name for one in outcome.rows], skip=skip)
    if len(tasks) != 1:
        raise DataError(
            f"The curve has one benchmark, and the answers have {len(tasks)}: {', '.join(tasks)}.",
            mend="Evaluate with --benchmarks and one task.",
        )
    [(task, right)] = tasks.items()
    base = right[BASE]
    points = [
        Point(
            name=one.name,
            refused_harmful=one.values[HARMFUL],
            refused_benign=one.values[BENIGN],
            helpfulness=one.values["helpfulness"],
            accuracy=fmean(right[one.name].values()),
            cost=None if one.name == BASE else estimate([right[one.name][key] - base[key] for key in base]),
        )
        for one in outcome.rows
    ]
    return Between(task=task, skipped=skip, questions=len(base), prompts=sum(outcome.prompts.values()), points=points)


def draw(found: Between, folder: Path) -> None:
    """Harmful requests refused against the accuracy that they cost, as PNG and SVG."""
    from runs import drawing

    priced = [(point, cost) for point in found.points if (cost := point.cost) is not None]

    def plot(axes: Any) -> None:
        axes.axvspan(-1, 1, color=FAINT, alpha=0.12, linewidth=0)
        x = [100 * cost.mean for _, cost in priced]
        y = [100 * point.refused_harmful.mean for point, _ in priced]
        axes.plot(x, y, color=SERIES[1], marker="o", linewidth=1.2)
        for height, (_, cost) in zip(y, priced, strict=True):
            if cost.low is not None and cost.high is not None:
                axes.hlines(height, 100 * cost.low, 100 * cost.high, color=SERIES[1], linewidth=0.8)
        for (point, _), left, height in zip(priced, x, y, strict=True):
            axes.annotate(drawing.literal(point.name), (left, height), xytext=(4, 5), textcoords="offset points")
        axes.set(
            xlabel=f"{found.task}, points against base", ylabel="harmful requests refused, %", ylim=(0, 1.15 * max(y))
        )

    below = (
        f"Adapters on the straight line between two checkpoints. {found.questions} questions, 95 % intervals; "
        f"{found.prompts} prompts. The band is within one point of base."
    )
    folder.mkdir(parents=True, exist_ok=True)
    drawing.save(NAME, "What refusing costs on the way", below, 3.6, plot, folder, line=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_subparsers(dest="step", required=True)
    making = asked.add_parser("make", help="write the adapters")
    making.add_argument("--family", default="smollm2-135m-bf16")
    making.add_argument("--start", default="stage2")
    making.add_argument("--end", default="stage3")
    making.add_argument("--shares", type=int, nargs="+", required=True, help="percent of the way")
    joining = asked.add_parser("draw", help="join the results and draw them")
    joining.add_argument("study", type=Path, help="study.json")
    joining.add_argument("answers", type=Path, help="benchmark_samples.jsonl of the evaluation with --benchmarks")
    joining.add_argument("--skip", type=int, default=0, help="leave out the first so many questions")
    for one in (making, joining):
        one.add_argument("--output", type=Path, required=True, help="folder")
    options = parser.parse_args(arguments)
    if options.step == "make":
        line = f"uv run python -m studies.between make --start {options.start} --end {options.end} --shares …"
        family, ends = load_family(options.family), (options.start, options.end)
        print(*make(family, ends, options.shares, options.output, line), sep="\n")
        return
    found = curve(
        Outcome.model_validate_json(options.study.read_bytes()),
        read_jsonl(options.answers, BenchmarkSample),
        skip=options.skip,
    )
    draw(found, options.output)
    write_text(options.output / f"{NAME}.json", found.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
