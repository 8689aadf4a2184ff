"""`evaluate run --responses FILE`: score answers that were made elsewhere and compare them. No model is loaded."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.config import EvaluationRun
from evaluation.evaluators import registry
from evaluation.joining import check_settings
from evaluation.records import Answer, Results
from evaluation.responses import ResponseRow, read_responses
from evaluation.run import CODE_VERSION, Finished, clear, finish, judge, prompts_digest
from inference.prompts import load_prompts
from inference.records import Prompt, prompt_id
from runs import config as configs
from runs.atomic import make_folder
from runs.console import Reporter, plain
from runs.errors import UsageError, unknown_name
from runs.folder import claim
from runs.identity import digest, file_digest
from runs.lock import run_lock
from runs.manifest import NAME as MANIFEST
from runs.manifest import verify
from runs.paths import shown

_SHOWN = 5
"""Missing prompts that are named on the screen; results.json has all."""


def evaluate_responses(
    run: EvaluationRun,
    path: Path,
    *,
    all_prompts: bool,
    allow_different_settings: bool,
    output_dir: Path | None,
    results_root: Path,
    resume: bool,
    reporter: Reporter,
    command: str,
) -> tuple[Path, Results]:
    """Score the answers in ``path`` and compare their models on the prompts that both answered.

    Args:
        run: settings; ``models`` names which of the file's models to take, in which order (empty: all of them).
        path: the responses.
        all_prompts: whether every prompt of ``run.prompts`` should have an answer; else those of the file should.
        allow_different_settings: stamp a difference in generation settings instead of refusing.
        output_dir: the run's folder.
        results_root: where a folder is made otherwise.
        resume: whether a finished run in the folder is kept.
        reporter: what is said on the way.
        command: what was typed, for the manifest.

    Returns:
        The run folder and its results.

    Raises:
        UsageError: a faulty file, an unknown model, or settings that differ.
    """
    started = time.monotonic()
    rows = read_responses(path)
    models = _models(run.models, rows)
    rows = [row for row in rows if row.model in models]
    stamp = check_settings({model: _settings(model, rows) for model in models}, allow=allow_different_settings)
    prompts = _prompts(rows, load_prompts(run.prompts), all_prompts=all_prompts)
    evaluators = registry.get(run.evaluators)
    run = run.model_copy(update={"models": tuple(models), "family": path.stem})
    identity = {
        "code": CODE_VERSION,
        "models": {model: _identity(model, rows) for model in models},
        "prompts": prompts_digest(list(prompts.values())),
        "sampling": run.sampling.model_dump(mode="json"),
        "evaluators": {evaluator.name: evaluator.version for evaluator in evaluators},
        "constitution": file_digest(run.constitution_file),
        "limited": False,
    }
    folder = make_folder(output_dir or results_root / f"responses-{digest(identity)[:12]}")
    with run_lock(folder):
        if not resume:
            clear(folder)
        run_id = claim(folder, identity)
        if (folder / MANIFEST).is_file():
            verify(folder, rebuild=f"{command} --no-resume")
            reporter.say(f"This run is complete already: {plain(shown(folder))}")
            return folder, Results.model_validate_json((folder / "results.json").read_bytes())
        configs.save(run, folder / "config.yaml")
        answers = _answers(rows)
        ordered = [answer for key in prompts for model in models for answer in answers[model, key]]
        samples = []
        with reporter.progress("scoring", total=len(ordered)) as advance:
            for answer in ordered:
                samples.append(judge(prompts[answer.prompt_id], answer, evaluators))
                advance()
        done = Finished(
            run=run,
            samples=samples,
            evaluators=evaluators,
            run_id=run_id,
            identity=identity,
            command=command,
            inputs={"prompts": identity["prompts"], "responses": file_digest(path)},
            stamp=stamp,
            asked=tuple(prompts),
        )
        results = finish(done, folder, started=started)
    _tell_missing(results, prompts, reporter)
    return folder, results


def _models(wanted: Sequence[str], rows: Sequence[ResponseRow]) -> list[str]:
    """The models to compare: ``wanted``, or all of the file in order of appearance."""
    found = list(dict.fromkeys(row.model for row in rows))
    for name in wanted:
        if name not in found:
            raise unknown_name("model in the responses file", name, found)
    return list(wanted) or found


def _settings(model: str, rows: Sequence[ResponseRow]) -> dict[str, Any]:
    """How a model's answers were generated.

    Raises:
        UsageError: not all of them in one way.
    """
    own = [row.settings for row in rows if row.model == model]
    unlike = next((settings for settings in own if settings != own[0]), None)
    if unlike is not None:
        raise UsageError(
            f"The answers of {model} were generated under more than one setting.",
            why=f"{own[0] or 'not stated'} and {unlike or 'not stated'}.",
            mend="Give each setting a model name of its own.",
        )
    return dict(own[0])


def _identity(model: str, rows: Sequence[ResponseRow]) -> dict[str, Any]:
    own = [row.model_dump(mode="json") for row in rows if row.model == model]
    return {"engine": "responses", "model": model, "answers": digest(own), "sampling": _settings(model, rows)}


def _prompts(rows: Sequence[ResponseRow], known: Sequence[Prompt], *, all_prompts: bool) -> dict[str, Prompt]:
    """The prompts by id: those of the prompts file first, in its order, then what only the responses hold.

    A prompt that the file knows keeps what it says about it; of any other the row says category and expectation.
    """
    asked = {prompt_id(row.asked): row for row in rows}
    kept = {prompt.id: prompt for prompt in known if all_prompts or prompt.id in asked}
    for key, row in asked.items():
        if key not in kept:
            about = {"category": row.category, "expected": row.expected}
            kept[key] = Prompt(
                messages=row.asked, source="responses", **{name: value for name, value in about.items() if value}
            )
    return kept


def _answers(rows: Sequence[ResponseRow]) -> Mapping[tuple[str, str], list[Answer]]:
    """(Model, prompt id) → its answers by sample number; rows without a response are no answers."""
    found: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.sample):
        if row.response is None:
            continue
        key = prompt_id(row.asked)
        found[row.model, key].append(
            Answer(
                key=f"{row.model}:{key}:{row.sample}",
                model=row.model,
                prompt_id=key,
                sample=row.sample,
                text=row.response,
                finish_reason=row.finish_reason,
                prompt_tokens=row.prompt_tokens,
                completion_tokens=row.completion_tokens,
                seed=row.seed,
            )
        )
    return found


def _tell_missing(results: Results, prompts: Mapping[str, Prompt], reporter: Reporter) -> None:
    for model, keys in results.missing.items():
        texts = "; ".join(f"{key[:12]} {prompts[key].text[:50]!r}" for key in keys[:_SHOWN])
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        reporter.warn(plain(f"{model} has no answer to {len(keys)} of {len(prompts)} prompts: {texts}{more}."))
    if results.missing:
        reporter.warn("Contrasts use the prompts that both models answered; results.json lists the others.")
