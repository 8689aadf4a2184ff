"""`evaluate run --benchmarks …`: lm-eval's tasks on the models of the run, a resumable unit at a time."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.benchmarks.lm import as_lm
from evaluation.benchmarks.records import Benchmarks, BenchmarkSample, BenchmarkUnit
from runs.atomic import write_text
from runs.errors import UsageError, UserError, unknown_name
from runs.identity import digest, files_digest
from runs.paths import shown
from runs.records import RecordLog, write_jsonl

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from inference.engines.transformers import TransformersEngine
    from runs.console import Reporter

LOG = "benchmarks.jsonl"
SUMMARY, SAMPLES = "benchmarks.json", "benchmark_samples.jsonl"
BOOTSTRAP = 1_000
"""lm-eval's resamples for the standard errors of metrics that are no means; those of means are exact."""
_KEPT = (
    "results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config",
    "task_hashes", "transformers_version", "lm_eval_version", "chat_template_sha", "max_length",
)  # fmt: skip
"""Keys of lm-eval's results that are kept; the others hold the machine, the time, or whole answers."""


def benchmarks_identity(names: Sequence[str], path: Path | None, limit: int | None) -> dict[str, Any]:
    """What could change a benchmark's result beside the models: tasks, their YAML files, the limit, lm-eval itself."""
    from importlib.metadata import version

    files = (
        files_digest([file for file in path.rglob("*") if file.suffix in {".yaml", ".py"}], path) if path else "none"
    )
    return {"tasks": list(names), "files": files, "limit": limit, "lm_eval": version("lm_eval")}


def open_tasks(names: Sequence[str], path: Path | None) -> TaskManager:
    """lm-eval's index of tasks, after checking that it knows every one of ``names``.

    Args:
        names: tasks, groups or tags.
        path: a folder of YAML tasks, which come before lm-eval's own of the same name. Where it holds all of
            ``names``, lm-eval's thirteen thousand files are not read.

    Raises:
        UsageError: the folder is missing, or a name is unknown.
    """
    from lm_eval.tasks import TaskManager

    if path is not None:
        if not path.is_dir():
            raise UsageError(f"There is no folder {path} of benchmark tasks.")
        own = TaskManager(include_path=str(path), include_defaults=False)
        if set(names) <= set(own.all_tasks):
            return own
    manager = TaskManager(include_path=str(path) if path else None)
    for name in names:
        if name not in manager.all_tasks:
            raise unknown_name_of_many("benchmark", name, manager.all_tasks)
    return manager


def unknown_name_of_many(kind: str, name: str, known: Sequence[str]) -> UsageError:
    """As `unknown_name`, but lists only the nearest: lm-eval knows thousands."""
    import difflib

    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
    if len(known) <= 12 or not near:
        return unknown_name(kind, name, known if len(known) <= 12 else [])
    listing = "All: uv run lm-eval ls tasks"
    return UsageError(f"Unknown {kind} '{name}'.", mend=f"Did you mean '{near[0]}'? Near: {', '.join(near)}. {listing}")


def check_data(names: Sequence[str], models: Iterable[str], manager: TaskManager, work: Path) -> None:
    """Read the questions of every task that a model has yet to answer, before one has spent an hour on other answers.

    Raises:
        UserError: a task's data cannot be had.
    """
    with RecordLog(work / LOG, BenchmarkUnit) as log:
        needed = dict.fromkeys(name for _, name in _pending(names, models, log))
    for name in needed:
        with _quiet(), _data_of(name):
            manager.load(name)


def run_benchmarks(
    names: Sequence[str],
    engines: Mapping[str, TransformersEngine],
    manager: TaskManager,
    *,
    limit: int | None,
    work: Path,
    reporter: Reporter,
) -> list[BenchmarkUnit]:
    """Answer every task with every model; what an earlier process finished is not done again.

    Raises:
        UserError: a task's data cannot be had.
    """
    with RecordLog(work / LOG, BenchmarkUnit) as log:
        pending = _pending(names, engines, log)
        total = len(engines) * len(names)
        with reporter.progress("benchmarks", total=total, done=total - len(pending)) as advance:
            for model, name in pending:
                log.append(_unit(model, name, engines[model], manager, limit))
                advance(1, f"{model} {name}")
        return [log[_key(model, name)] for model in engines for name in names]


def _pending(names: Sequence[str], models: Iterable[str], log: RecordLog[BenchmarkUnit]) -> list[tuple[str, str]]:
    """Model and task of every unit that is not in ``log``."""
    return [(model, name) for model in models for name in names if _key(model, name) not in log]


def _key(model: str, name: str) -> str:
    return f"{model}:{name}"


def _unit(model: str, name: str, engine: TransformersEngine, manager: TaskManager, limit: int | None) -> BenchmarkUnit:
    from lm_eval.evaluator import simple_evaluate

    with _quiet(), _data_of(name):
        found: Any = simple_evaluate(
            model=as_lm(engine),
            tasks=[name],
            limit=limit,
            batch_size=int(engine.identity["batch_size"]),
            use_cache=None,
            cache_requests=False,
            bootstrap_iters=BOOTSTRAP,
            log_samples=True,
            task_manager=manager,
        )
    samples = [
        _sample(model, task, row)
        for task, rows in found["samples"].items()
        for row in sorted(rows, key=lambda row: (row["filter"], row["doc_id"]))
    ]
    if not samples:
        raise UserError(f"Benchmark '{name}' has no questions.")
    kept = _plain({key: found[key] for key in _KEPT if key in found})
    # lm-eval's name for a model in memory is the folder that it was read from: no path of a machine goes on.
    kept["config"] |= {"model": model, "model_source": engine.identity["base"]}
    for config in kept["configs"].values():
        config.get("metadata", {}).pop("config_source", None)
    kept["task_hashes"] = {
        task: digest([[row["prompt_hash"], row["target_hash"]] for row in rows])
        for task, rows in found["samples"].items()
    }
    return BenchmarkUnit(key=_key(model, name), model=model, name=name, lm_eval=kept, samples=tuple(samples))


def _sample(model: str, task: str, row: Mapping[str, Any]) -> BenchmarkSample:
    metrics = {
        metric: float(row[metric])
        for metric in row["metrics"]
        if isinstance(row[metric], (bool, int, float)) or hasattr(row[metric], "item")
    }
    return BenchmarkSample(
        model=model,
        task=task,
        metrics=metrics,
        target=str(row["target"]),
        **{name: row[name] for name in ("filter", "doc_id", "doc_hash", "prompt_hash", "target_hash")},
    )


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it: functions and numbers of other libraries become text and plain numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value != value:
        return None  # JSON has no NaN
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "item"):
        return _plain(value.item())
    return getattr(value, "__name__", type(value).__name__)


@contextmanager
def _data_of(name: str) -> Iterator[None]:
    """Raise `UserError` where the data of benchmark ``name`` is neither on the disk nor to be fetched."""
    try:
        yield
    except (ConnectionError, FileNotFoundError) as error:
        raise UserError(
            f"The data of benchmark '{name}' cannot be had.",
            why=str(error).split("\n", 1)[0],
            mend="Connect to the hub, or point --benchmarks-path at tasks with local files (docs/evaluation.md).",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's log to errors, and its many small progress bars off the screen, for a while."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


def write_benchmarks(folder: Path, units: Sequence[BenchmarkUnit], limit: int | None) -> Benchmarks:
    """Write benchmarks.json and benchmark_samples.jsonl. Raises `UserError` if the disk refuses."""
    from importlib.metadata import version

    models: dict[str, dict[str, Any]] = {}
    for unit in units:
        merged = models.setdefault(unit.model, {})
        for key, value in unit.lm_eval.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    summary = Benchmarks(lm_eval_version=version("lm_eval"), limit=limit, models=models)
    write_jsonl(folder / SAMPLES, (sample for unit in units for sample in unit.samples))
    write_text(folder / SUMMARY, summary.model_dump_json(indent=2) + "\n")
    return summary


def read_benchmarks(folder: Path) -> tuple[Benchmarks, list[BenchmarkSample]] | None:
    """What `write_benchmarks` left in ``folder``; None where the run had no benchmarks.

    Raises:
        IntegrityError: a damaged file.
    """
    from pydantic import ValidationError

    from runs.errors import IntegrityError
    from runs.records import read_jsonl

    if not (folder / SUMMARY).is_file():
        return None
    try:
        summary = Benchmarks.model_validate_json((folder / SUMMARY).read_bytes())
    except ValidationError as error:
        raise IntegrityError(f"{shown(folder / SUMMARY)} is damaged.", why=str(error.errors()[0]["msg"])) from error
    return summary, read_jsonl(folder / SAMPLES, BenchmarkSample)


def stored_units(folder: Path, names: Mapping[str, str] | None = None) -> list[BenchmarkUnit]:
    """A finished run's benchmarks, one unit a model, to be written into another run.

    Args:
        folder: the run.
        names: model → the name that it gets; models that are not in it are left out. None keeps all.
    """
    found = read_benchmarks(folder)
    if found is None:
        return []
    summary, samples = found
    kept = {model: model for model in summary.models} if names is None else names
    return [
        BenchmarkUnit(
            key=_key(kept[model], "all"),
            model=kept[model],
            name="all",
            lm_eval=shape,
            samples=tuple(s.model_copy(update={"model": kept[model]}) for s in samples if s.model == model),
        )
        for model, shape in summary.models.items()
        if model in kept
    ]
