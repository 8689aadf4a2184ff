"""All statistics of a run in one record, statistics.json: made once from samples, read by reports and dashboards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from evaluation.benchmarks.records import BenchmarkSample
from evaluation.compare import contrasts, drill_down, plane, primary, principles
from evaluation.config import CONSTITUTION
from evaluation.metrics import metrics_for
from evaluation.records import Sample, Summary
from evaluation.statistics.contrast import Question, adjust, contrast
from evaluation.statistics.mean import mean_interval
from evaluation.statistics.records import Contrast, Kind, NonInferiority, Plane, PrincipleIndex, Verdict
from evaluation.verdicts import decide, non_inferiority
from runs.config import StrictModel
from runs.errors import IntegrityError
from runs.paths import shown

FILE = "statistics.json"
CAPABILITY_MARGIN = 0.02
"""Losses of two points or more on a benchmark are a price worth naming."""
_PREFERRED = ("acc", "exact_match", "mc2", "f1", "acc_norm")
"""Which of a task's metrics stands for it: lm-eval's own usage; the first that the task has."""


class Capability(StrictModel):
    """One contrast on one benchmark, and whether its loss stays under the margin."""

    verdict: Verdict
    price: NonInferiority


class Analysis(StrictModel):
    """What the statistics say about a run."""

    schema_version: int = 1
    primary: tuple[Verdict, ...]
    """The declared contrasts on every metric, Holm-adjusted: the run's claims."""
    by_category: tuple[Verdict, ...] = ()
    by_principle: tuple[Verdict, ...] = ()
    """Drill-downs, adjusted by Benjamini and Hochberg: leads."""
    plane: Plane | None = None
    """None where the prompts have no unsafe ones with benign twins."""
    principles: PrincipleIndex | None = None
    benchmarks: tuple[Capability, ...] = ()
    """Their own family, Holm-adjusted."""
    benchmark_levels: tuple[Summary, ...] = ()
    """Each model on each task; ``metric`` is the task's name."""


def analyse(
    samples: Sequence[Sample],
    models: Sequence[str],
    evaluators: Sequence[str],
    *,
    seed: int,
    benchmarks: Sequence[BenchmarkSample] = (),
    constitution: Path = CONSTITUTION,
) -> Analysis:
    """Everything that follows from answers and scores.

    Args:
        samples: of all models; a model may lack some prompts.
        models: in the order of their lineage.
        evaluators: names, in the order of the tables.
        seed: of bootstraps and sign flips.
        benchmarks: lm-eval's questions, where the run has any.
        constitution: whose principles the prompts name.

    Raises:
        UserError: a score is not a number in [0, 1].
        UsageError: the constitution cannot be read.
    """
    from critique_revision.constitution import load_principles

    metrics = metrics_for(evaluators)
    order = [principle.id for principle in load_principles(constitution).principles]
    index = principles(samples, models, metrics, order=order)
    return Analysis(
        primary=tuple(primary(samples, models, metrics, seed=seed)),
        by_category=tuple(drill_down(samples, models, metrics, by="category", seed=seed)),
        by_principle=tuple(drill_down(samples, models, metrics, by="principle", seed=seed)),
        plane=_plane(samples, models, seed),
        principles=index,
        benchmarks=tuple(benchmark_contrasts(benchmarks, models, seed=seed)),
        benchmark_levels=tuple(benchmark_levels(benchmarks, models)),
    )


def _plane(samples: Sequence[Sample], models: Sequence[str], seed: int) -> Plane | None:
    made = plane(samples, models, seed=seed)
    return made if any(point.harm is not None and point.refusal is not None for point in made.points) else None


def benchmark_contrasts(
    samples: Sequence[BenchmarkSample], models: Sequence[str], *, seed: int, confidence: float = 0.95
) -> list[Capability]:
    """The lineage's contrasts on every benchmark, paired on its questions, with the capability margin.

    Questions are paired by index and digest, so that a changed data set cannot be compared by accident.
    """
    tables = _tables(samples)
    made: list[Contrast] = []
    for later, earlier in contrasts(models):
        for task, metric in tables:
            first, second = (tables[task, metric].get(model, {}) for model in (later, earlier))
            questions = list(dict.fromkeys([*first, *second]))
            values = [value for side in (first, second) for value in side.values()]
            kind: Kind = "rate" if all(value in (0.0, 1.0) for value in values) else "mean"
            made.append(
                contrast(
                    Question(treatment=later, control=earlier, metric=task, kind=kind),
                    [first.get(question) for question in questions],
                    [second.get(question) for question in questions],
                    rows=[f"{task} question {number}" for number, _ in questions],
                    confidence=confidence,
                    seed=seed,
                    bootstrap=False,
                )
            )
    return [
        Capability(verdict=decide(one, margin=CAPABILITY_MARGIN), price=non_inferiority(one, CAPABILITY_MARGIN))
        for one in adjust(made, "benchmarks")
    ]


def benchmark_levels(samples: Sequence[BenchmarkSample], models: Sequence[str]) -> list[Summary]:
    """Every model's mean on every benchmark."""
    tables = _tables(samples)
    made = []
    for task, metric in tables:
        for model in models:
            values = list(tables[task, metric].get(model, {}).values())
            if values:
                interval = mean_interval(values)
                made.append(
                    Summary(
                        model=model,
                        metric=task,
                        mean=interval.mean,
                        low=interval.low,
                        high=interval.high,
                        scored=len(values),
                        unscored={},
                    )
                )
    return made


_Question = tuple[int, str]


def _tables(samples: Sequence[BenchmarkSample]) -> dict[tuple[str, str], dict[str, dict[_Question, float]]]:
    """(Task, its metric) → model → question → value in [0, 1]; tasks whose metric is on another scale are left out."""
    by_task: dict[str, list[BenchmarkSample]] = defaultdict(list)
    for sample in samples:
        by_task[sample.task].append(sample)
    tables: dict[tuple[str, str], dict[str, dict[_Question, float]]] = {}
    for task, own in by_task.items():
        metric = main_metric(own[0].metrics)
        chosen = own[0].filter
        if metric is None or not all(0.0 <= sample.metrics.get(metric, 0.0) <= 1.0 for sample in own):
            continue
        table: dict[str, dict[_Question, float]] = defaultdict(dict)
        for sample in own:
            if sample.filter == chosen and metric in sample.metrics:
                table[sample.model][sample.doc_id, sample.doc_hash] = sample.metrics[metric]
        tables[task, metric] = dict(table)
    return tables


def main_metric(metrics: Mapping[str, float]) -> str | None:
    """The metric that stands for a task; None where it has none that is one number a question."""
    return next((name for name in _PREFERRED if name in metrics), next(iter(metrics), None))


def read_analysis(folder: Path) -> Analysis | None:
    """A run's statistics.json; None where it has none (it can be made again from the samples).

    Raises:
        IntegrityError: the file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        return Analysis.model_validate_json((folder / FILE).read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        raise IntegrityError(
            f"{shown(folder / FILE)} is not valid.",
            why=f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}",
            mend="Delete it; `uv run evaluate report` makes it again from the samples.",
        ) from error
