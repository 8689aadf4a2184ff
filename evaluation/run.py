"""`evaluate run`: generate, score, compare; resumable at any point.

The run folder holds, while the work goes on, ``.work/answers.jsonl`` (append-only) and in the end
config.yaml, samples.jsonl, results.json, comparison.csv and manifest.json (written last).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.compare import compare
from evaluation.config import EvaluationRun
from evaluation.evaluators import registry
from evaluation.evaluators.protocol import Evaluator
from evaluation.evaluators.response_mode import response_mode
from evaluation.outputs import write_outputs
from evaluation.records import Answer, Results, Sample
from inference.engines.base import Engine
from inference.families import check_models, load_family
from inference.prompts import load_prompts
from inference.records import Completion, Prompt, Request
from inference.sources import needs_conversion
from runs import config as configs
from runs.atomic import make_folder
from runs.console import Reporter, plain
from runs.errors import UserError
from runs.folder import IDENTITY, claim
from runs.identity import digest
from runs.lock import run_lock
from runs.manifest import NAME as MANIFEST
from runs.manifest import verify, write_manifest
from runs.paths import shown
from runs.records import RecordLog

WORK = ".work"
CODE_VERSION = "1"
"""Raised when this package changes what a run would write."""


def choose_prompts(run: EvaluationRun) -> list[Prompt]:
    """The run's prompts; with a limit, every k-th one, so that all categories stay in.

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
    make_folder(output_dir or results_root)

    from inference.engines import open_engines

    if needs_conversion(family):
        reporter.say(f"Converting the model file of {family.base.wheel} to safetensors, once (about half a minute)")
    reporter.say(f"Loading [bold]{plain(family.name)}[/] ({', '.join(run.models)})")
    engines = open_engines(
        family, run.models, batch_size=run.batch_size, device=run.device, quantization=run.quantization
    )
    identity = run_identity(run, prompts, engines, evaluators)
    folder = output_dir or results_root / f"{family.name}-{digest(identity)[:12]}"
    reporter.say(f"[dim]A prompt begins with {plain(engines[run.models[0]].opening(prompts[0].messages))}[/]")
    with run_lock(folder):
        if not resume:
            _clear(folder)
        run_id = claim(folder, identity)
        if (folder / MANIFEST).is_file():
            verify(folder, rebuild=f"{command} --no-resume")
            shutil.rmtree(folder / WORK, ignore_errors=True)
            reporter.say(f"This run is complete already: {plain(shown(folder))}")
            return folder, Results.model_validate_json((folder / "results.json").read_bytes())
        configs.save(run, folder / "config.yaml")
        answers, throughput = _generate(run, prompts, engines, folder, reporter)
        samples = score(prompts, run.models, answers, evaluators)
        results = compare(samples, run, run_id=run_id, identity=identity, evaluators=evaluators)
        write_outputs(folder, samples, results)
        write_manifest(
            folder,
            kind="evaluation",
            run_id=run_id,
            command=command,
            config=run.model_dump(mode="json"),
            inputs={"prompts": identity["prompts"], **{name: engine.identity for name, engine in engines.items()}},
            seeds={"sampling": run.sampling.seed},
            counts={"prompts": len(prompts), "answers": len(samples)},
            metrics={"tokens_per_second": throughput},
            wall_seconds=time.monotonic() - started,
        )
        # Last: killed before this, the answers are still there to go on from.
        shutil.rmtree(folder / WORK)
    return folder, results


def run_identity(
    run: EvaluationRun, prompts: Sequence[Prompt], engines: dict[str, Any], evaluators: Sequence[Evaluator]
) -> dict[str, Any]:
    """Everything that could change the run's result; its digest is the run id."""
    return {
        "code": CODE_VERSION,
        "models": {name: engines[name].identity for name in run.models},
        "prompts": digest([prompt.model_dump(mode="json") for prompt in prompts]),
        "sampling": run.sampling.model_dump(mode="json"),
        "evaluators": {evaluator.name: evaluator.version for evaluator in evaluators},
        "limited": run.limit is not None,
    }


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
    run: EvaluationRun, prompts: Sequence[Prompt], engines: dict[str, Any], folder: Path, reporter: Reporter
) -> tuple[dict[str, Answer], dict[str, float]]:
    """Answer every prompt with every model; returns the answers and tokens per second by model (this process's)."""
    work = make_folder(folder / WORK)
    throughput = {}
    with RecordLog(work / "answers.jsonl", Answer) as log:
        for model in run.models:
            begun, tokens = time.monotonic(), 0
            requests = [Request(key=_key(model, prompt), messages=prompt.messages) for prompt in prompts]
            finished = frozenset(request.key for request in requests if request.key in log)
            engine: Engine = engines[model]
            with reporter.progress(f"{model}", total=len(requests), done=len(finished)) as advance:
                for completion in engine.generate(requests, run.sampling, skip=finished):
                    log.append(_answer(model, completion))
                    tokens += completion.completion_tokens
                    advance(1, f"{tokens / (time.monotonic() - begun):.0f} tokens/s")
            if tokens:
                throughput[model] = round(tokens / (time.monotonic() - begun), 1)
        return {answer.key: answer for answer in log}, throughput


def _answer(model: str, completion: Completion) -> Answer:
    fields = completion.model_dump()
    return Answer(model=model, prompt_id=completion.key.split(":")[-2], **fields)


def _clear(folder: Path) -> None:
    """Remove what an earlier run of ours left in ``folder``; never anything else."""
    if not (folder / IDENTITY).is_file():
        return
    for name in (IDENTITY, MANIFEST, "config.yaml", "samples.jsonl", "results.json", "comparison.csv"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)
