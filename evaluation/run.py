"""`evaluate run`: generate, score, compare; resumable at any point.

The run folder holds, while the work goes on, ``.work/answers.jsonl`` (append-only) and in the end
config.yaml, samples.jsonl, results.json, statistics.json, comparison.csv and manifest.json (written last).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.analysis import analyse
from evaluation.benchmarks.records import BenchmarkUnit
from evaluation.benchmarks.run import benchmarks_identity, check_data, write_benchmarks
from evaluation.compare import compare
from evaluation.config import EvaluationRun
from evaluation.evaluators import registry
from evaluation.evaluators.protocol import Evaluator
from evaluation.evaluators.response_mode import response_mode
from evaluation.outputs import complete, write_outputs
from evaluation.records import Answer, Results, Sample
from inference.engines.base import Engine
from inference.families import check_models, load_family
from inference.prompts import load_prompts
from inference.records import Completion, Prompt, Request
from inference.sources import needs_conversion
from runs import config as configs
from runs.atomic import make_folder, write_text
from runs.console import Reporter, plain
from runs.errors import UserError
from runs.folder import IDENTITY, claim
from runs.identity import digest, file_digest
from runs.job import parse_shard
from runs.lock import run_lock
from runs.manifest import NAME as MANIFEST
from runs.manifest import verify, write_manifest
from runs.metrics import Meter
from runs.paths import shown
from runs.records import RecordLog

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

WORK = ".work"
SHARD = "shard.json"
"""In the folder of a shard: the ids of all prompts of the whole run, in their order."""
FILES = (
    IDENTITY, SHARD, "config.yaml", "samples.jsonl", "results.json", "statistics.json", "comparison.csv",
    "benchmarks.json", "benchmark_samples.jsonl",
)  # fmt: skip
"""What belongs to a run; its manifest vouches for them. A report is made from them, again and again."""
REPORT_FILES = ("report.html", "samples.parquet", "model_card.md")
REPORT_FOLDERS = ("figures", "comparator", "lm_eval")
CODE_VERSION = "2"
"""Raised when this package changes what a run would write."""


def choose_prompts(run: EvaluationRun) -> list[Prompt]:
    """The prompts of the whole run; with a limit, every k-th one of the file, so that all categories stay in.

    Raises:
        UsageError: the prompts file is faulty.
    """
    prompts = load_prompts(run.prompts)
    if run.limit is None or run.limit >= len(prompts):
        return prompts
    return [prompts[index * len(prompts) // run.limit] for index in range(run.limit)]


def evaluate(
    run: EvaluationRun, *, output_dir: Path | None, results_root: Path, resume: bool, reporter: Reporter, command: str
) -> tuple[Path, Results]:
    """Carry an evaluation to its end, from wherever an earlier process left it.

    Returns:
        The run folder and its results.

    Raises:
        UserError: bad input, a folder that holds another run, or a disk that refuses.
    """
    started = time.monotonic()
    family = load_family(run.family)
    check_models(family, run.models)
    evaluators = registry.get(run.evaluators)
    prompts = choose_prompts(run)
    tasks = _benchmark_tasks(run)
    make_folder(output_dir or results_root)

    from inference.engines import open_engines

    if needs_conversion(family):
        reporter.say(f"Converting the model file of {family.base.wheel} to safetensors, once (about half a minute)")
    reporter.say(f"Loading [bold]{plain(family.name)}[/] ({', '.join(run.models)})")
    engines = open_engines(
        family, run.models, batch_size=run.batch_size, device=run.device, quantization=run.quantization
    )
    mine = own_prompts(run, prompts, engines[run.models[0]])
    identity = run_identity(run, mine, engines, evaluators)
    if run.shard is not None:
        identity["whole"] = prompts_digest(prompts)
    folder = output_dir or results_root / f"{family.name}-{digest(identity)[:12]}"
    reporter.say(f"[dim]A prompt begins with {plain(engines[run.models[0]].opening(prompts[0].messages))}[/]")
    with run_lock(folder):
        if not resume:
            clear(folder)
        run_id = claim(folder, identity)
        if (folder / MANIFEST).is_file():
            verify(folder, rebuild=f"{command} --no-resume")
            shutil.rmtree(folder / WORK, ignore_errors=True)
            reporter.say(f"This run is complete already: {plain(shown(folder))}")
            return folder, Results.model_validate_json((folder / "results.json").read_bytes())
        configs.save(run, folder / "config.yaml")
        if run.shard is not None:
            write_text(folder / SHARD, json.dumps([prompt.id for prompt in prompts]) + "\n")
        work = make_folder(folder / WORK)
        if tasks is not None:
            check_data(run.benchmarks, run.models, tasks, work)
        answers, throughput = _generate(run, prompts, mine, engines, work, reporter)
        units = _benchmarks(run, tasks, engines, work, reporter)
        results = finish(
            Finished(
                run=run,
                samples=score(mine, run.models, answers, evaluators),
                evaluators=evaluators,
                run_id=run_id,
                identity=identity,
                command=command,
                inputs={"prompts": identity["prompts"], **{name: engine.identity for name, engine in engines.items()}},
                metrics={"tokens_per_second": throughput},
                benchmarks=units,
                stamp=f"Shard {run.shard} of the prompts: merge the shards before reading." if run.shard else "",
            ),
            folder,
            started=started,
        )
        # Last: killed before this, the answers are still there to go on from.
        shutil.rmtree(work)
    return folder, results


@dataclass(frozen=True)
class Finished:
    """All that a run has once every answer is scored."""

    run: EvaluationRun
    samples: Sequence[Sample]
    evaluators: Sequence[Evaluator]
    run_id: str
    identity: dict[str, Any]
    command: str
    inputs: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    benchmarks: Sequence[BenchmarkUnit] = ()
    stamp: str = ""
    asked: Sequence[str] = ()
    """Ids of all prompts, where some may have no answer at all; empty: those of the samples."""


def finish(done: Finished, folder: Path, *, started: float) -> Results:
    """Compare, and write what a finished run holds; the manifest last.

    Args:
        done: answers and scores.
        folder: the run's folder, claimed.
        started: `time.monotonic` at the start of the work.

    Raises:
        UserError: a score that is no number, or a disk that refuses.
    """
    run = done.run
    compared = compare(done.samples, run, run_id=done.run_id, identity=done.identity, evaluators=done.evaluators)
    results = complete(compared, done.samples, stamp=done.stamp, asked=done.asked)
    analysis = analyse(
        done.samples,
        run.models,
        [evaluator.name for evaluator in done.evaluators],
        seed=run.sampling.seed,
        benchmarks=[sample for unit in done.benchmarks for sample in unit.samples],
        constitution=run.constitution_file,
    )
    write_outputs(folder, done.samples, results, analysis)
    if done.benchmarks:
        write_benchmarks(folder, done.benchmarks, run.benchmark_limit)
    write_manifest(
        folder,
        kind="evaluation",
        run_id=done.run_id,
        command=done.command,
        config=run.model_dump(mode="json"),
        inputs=done.inputs,
        seeds={"sampling": run.sampling.seed},
        counts={
            "prompts": results.n_samples["prompts"],
            "answers": len(done.samples),
            "missing": {model: len(keys) for model, keys in results.missing.items()},
            "benchmark_questions": sum(len(unit.samples) for unit in done.benchmarks),
        },
        metrics=done.metrics,
        wall_seconds=time.monotonic() - started,
        files=[folder / name for name in FILES if (folder / name).is_file()],
    )
    return results


def own_prompts(run: EvaluationRun, prompts: Sequence[Prompt], engine: Engine) -> list[Prompt]:
    """This shard's part of ``prompts``, in their order: whole batches of the engine's.

    Raises:
        UsageError: there are more shards than batches.
    """
    if run.shard is None:
        return list(prompts)
    requests = [Request(key=_key(run.models[0], prompt), messages=prompt.messages) for prompt in prompts]
    mine = {key for batch in parse_shard(run.shard).of(engine.batches(requests)) for key in batch}
    return [prompt for prompt in prompts if _key(run.models[0], prompt) in mine]


def _benchmark_tasks(run: EvaluationRun) -> TaskManager | None:
    if not run.benchmarks or (run.shard is not None and parse_shard(run.shard).index > 0):
        return None  # the first shard answers them for all
    from evaluation.benchmarks.run import open_tasks

    return open_tasks(run.benchmarks, run.benchmarks_path)


def _benchmarks(
    run: EvaluationRun, tasks: TaskManager | None, engines: dict[str, Any], work: Path, reporter: Reporter
) -> list[BenchmarkUnit]:
    if tasks is None:
        return []
    from evaluation.benchmarks.run import run_benchmarks

    return run_benchmarks(run.benchmarks, engines, tasks, limit=run.benchmark_limit, work=work, reporter=reporter)


def run_identity(
    run: EvaluationRun, prompts: Sequence[Prompt], engines: dict[str, Any], evaluators: Sequence[Evaluator]
) -> dict[str, Any]:
    """Everything that could change the run's result; its digest is the run id."""
    identity: dict[str, Any] = {
        "code": CODE_VERSION,
        "models": {name: engines[name].identity for name in run.models},
        "prompts": prompts_digest(prompts),
        "sampling": run.sampling.model_dump(mode="json"),
        "evaluators": {evaluator.name: evaluator.version for evaluator in evaluators},
        "constitution": file_digest(run.constitution_file),
        "limited": run.limit is not None,
    }
    if run.benchmarks:
        identity["benchmarks"] = benchmarks_identity(run.benchmarks, run.benchmarks_path, run.benchmark_limit)
    return identity


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """sha256 over everything about the prompts, in their order."""
    return digest([prompt.model_dump(mode="json") for prompt in prompts])


def score(
    prompts: Sequence[Prompt],
    models: Sequence[str],
    answers: dict[str, Answer],
    evaluators: Sequence[Evaluator],
) -> list[Sample]:
    """Judge every answer, in the order of prompts and models.

    Raises:
        UserError: an answer is missing.
    """
    samples = []
    for prompt in prompts:
        for model in models:
            key = _key(model, prompt)
            if key not in answers:
                raise UserError(f"Model {model} has no answer to prompt {prompt.id[:12]}.", mend="Run it again.")
            answer = answers[key]
            samples.append(judge(prompt, answer, evaluators))
    return samples


def judge(prompt: Prompt, answer: Answer, evaluators: Sequence[Evaluator]) -> Sample:
    """One answer with every applicable evaluator's judgement."""
    return Sample(
        prompt_id=prompt.id,
        model=answer.model,
        sample=answer.sample,
        prompt=prompt,
        response=answer.text,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        seed=answer.seed,
        mode=response_mode(prompt.text, answer.text).label,
        scores={
            evaluator.name: evaluator.score(prompt, answer.text, answer.finish_reason)
            for evaluator in evaluators
            if evaluator.applies_to(prompt)
        },
    )


def _key(model: str, prompt: Prompt) -> str:
    return f"{model}:{prompt.id}:0"


def _generate(
    run: EvaluationRun,
    prompts: Sequence[Prompt],
    mine: Sequence[Prompt],
    engines: dict[str, Any],
    work: Path,
    reporter: Reporter,
) -> tuple[dict[str, Answer], dict[str, float]]:
    """Answer ``mine`` with every model, in the batches of all ``prompts``.

    Returns:
        The answers, and tokens per second by model (this process's).
    """
    throughput: dict[str, float] = {}
    meter = Meter("evaluate", parse_shard(run.shard).index if run.shard else 0)
    with RecordLog(work / "answers.jsonl", Answer) as log:
        for model in run.models:
            begun, tokens = time.monotonic(), 0
            requests = [Request(key=_key(model, prompt), messages=prompt.messages) for prompt in prompts]
            own = {_key(model, prompt) for prompt in mine}
            finished = frozenset(request.key for request in requests if request.key in log or request.key not in own)
            done = len(own & finished)
            engine: Engine = engines[model]
            with reporter.progress(f"{model}", total=len(own), done=done) as advance:
                for completion in engine.generate(requests, run.sampling, skip=finished):
                    log.append(_answer(model, completion))
                    tokens, done = tokens + completion.completion_tokens, done + 1
                    speed = tokens / (time.monotonic() - begun)
                    advance(1, f"{speed:.0f} tokens/s")
                    meter.set({"answers": len(log), "answers_wanted": len(own) * len(run.models), "tokens_rate": speed})
            if tokens:
                throughput[model] = round(tokens / (time.monotonic() - begun), 1)
        return {answer.key: answer for answer in log}, throughput


def _answer(model: str, completion: Completion) -> Answer:
    fields = completion.model_dump()
    return Answer(model=model, prompt_id=completion.key.split(":")[-2], **fields)


def clear(folder: Path) -> None:
    """Remove what an earlier run of ours, and its report, left in ``folder``; never anything else."""
    if not (folder / IDENTITY).is_file():
        return
    for name in (*FILES, MANIFEST, *REPORT_FILES):
        (folder / name).unlink(missing_ok=True)
    for name in (WORK, *REPORT_FOLDERS):
        shutil.rmtree(folder / name, ignore_errors=True)
