"""`evaluate score`: judge stored answers again, and merge the shards of a run. No model is loaded."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.run import stored_units
from evaluation.config import EvaluationRun
from evaluation.evaluators import registry
from evaluation.records import Answer, Results, Sample
from evaluation.report.data import SAMPLES_FILE, read_identity
from evaluation.run import CODE_VERSION, SHARD, Finished, clear, finish, judge, prompts_digest
from runs import config as configs
from runs.atomic import make_folder
from runs.console import Reporter, plain
from runs.errors import UsageError, UserError
from runs.folder import claim, differences
from runs.identity import digest
from runs.lock import run_lock
from runs.manifest import NAME as MANIFEST
from runs.manifest import read_manifest, verify
from runs.paths import shown
from runs.records import read_jsonl


def rescore(
    folders: Sequence[Path],
    *,
    evaluators: Sequence[str] | None,
    output_dir: Path | None,
    results_root: Path,
    resume: bool,
    reporter: Reporter,
    command: str,
) -> tuple[Path, Results]:
    """Score the answers of one run again, or of several shards as one run.

    Args:
        folders: finished runs; more than one must be shards: alike in everything but the prompts.
        evaluators: names; None takes those that the first run asked for.
        output_dir: where the new run goes; the old ones stay.
        results_root: where a folder is made otherwise.
        resume: whether a finished run in the folder is kept.
        reporter: what is said on the way.
        command: what was typed, for the manifest.

    Raises:
        UsageError: the runs are not shards of one, or answer the same prompt.
        IntegrityError: a run whose files are not what its manifest says.
    """
    started = time.monotonic()
    for folder in folders:
        verify(folder, rebuild=read_manifest(folder, rebuild="uv run evaluate").command)
    identities = [read_identity(folder) for folder in folders]
    _check_shards(folders, identities)
    parts = sorted(
        zip(
            folders,
            identities,
            [configs.load(EvaluationRun, folder / "config.yaml") for folder in folders],
            strict=True,
        ),
        key=lambda part: _place(part[2]),
    )
    folders, identities, configured = [list(column) for column in zip(*parts, strict=True)]
    run = _merged_run(configured)
    stored = _in_order(folders, [s for folder in folders for s in read_jsonl(folder / SAMPLES_FILE, Sample)])
    _check_disjoint(stored)
    judges = registry.get(evaluators if evaluators is not None else run.evaluators)
    run = run.model_copy(update={"evaluators": tuple(evaluators) if evaluators is not None else run.evaluators})
    prompts = list({sample.prompt_id: sample.prompt for sample in stored}.values())
    identity = {
        **{key: value for key, value in identities[0].items() if len(folders) == 1 or key != "whole"},
        "code": CODE_VERSION,
        "prompts": prompts_digest(prompts),
        "evaluators": {evaluator.name: evaluator.version for evaluator in judges},
    }
    target = output_dir or results_root / f"{run.family}-{digest(identity)[:12]}"
    make_folder(target)
    with run_lock(target):
        if not resume:
            clear(target)
        run_id = claim(target, identity)
        if (target / MANIFEST).is_file():
            verify(target, rebuild=f"{command} --no-resume")
            reporter.say(f"These answers are scored already: {plain(shown(target))}")
            return target, Results.model_validate_json((target / "results.json").read_bytes())
        configs.save(run, target / "config.yaml")
        samples = []
        with reporter.progress("scoring", total=len(stored)) as advance:
            for sample in stored:
                samples.append(judge(sample.prompt, _answer(sample), judges))
                advance()
        done = Finished(
            run=run,
            samples=samples,
            evaluators=judges,
            run_id=run_id,
            identity=identity,
            command=command,
            inputs={"runs": {folder.name: read_manifest(folder, rebuild="").run_id for folder in folders}},
            benchmarks=next((units for folder in folders if (units := stored_units(folder))), []),
            stamp=_stamp(configured),
        )
        results = finish(done, target, started=started)
    return target, results


def _in_order(folders: Sequence[Path], samples: list[Sample]) -> list[Sample]:
    """``samples`` in the order of the whole run's prompts, where its shards say what that is."""
    if not (folders[0] / SHARD).is_file():
        return samples
    place = {key: index for index, key in enumerate(json.loads((folders[0] / SHARD).read_bytes()))}
    return sorted(samples, key=lambda sample: place[sample.prompt_id])


def _check_shards(folders: Sequence[Path], identities: Sequence[dict[str, Any]]) -> None:
    """Raise `UsageError` unless all runs are alike in everything but prompts and evaluators."""
    first, *others = [
        {k: v for k, v in one.items() if k not in {"prompts", "evaluators", "code"}} for one in identities
    ]
    for folder, other in zip(folders[1:], others, strict=True):
        unlike = differences(first, other)
        if unlike:
            raise UsageError(
                f"{shown(folder)} is not a shard of the same run as {shown(folders[0])}.",
                why="They differ in " + "; ".join(unlike) + ".",
                mend="To compare two runs: uv run evaluate compare RUN_A RUN_B",
            )


def _check_disjoint(samples: Sequence[Sample]) -> None:
    seen: set[tuple[str, str, int]] = set()
    for sample in samples:
        key = (sample.prompt_id, sample.model, sample.sample)
        if key in seen:
            raise UsageError(
                f"Two of the runs answer the prompt {sample.prompt_id[:12]} with {sample.model}.",
                why="Shards hold disjoint prompts.",
                mend="Name each shard once.",
            )
        seen.add(key)


def _merged_run(runs: Sequence[EvaluationRun]) -> EvaluationRun:
    """The config of the whole: the first one's, with the shard kept only where there is one alone."""
    return runs[0] if len(runs) == 1 else runs[0].model_copy(update={"shard": None})


def _place(run: EvaluationRun) -> int:
    """A shard's index, so that the prompts come back in their file's order."""
    return int(run.shard.split("/")[0]) if run.shard else 0


def _stamp(parts: Sequence[EvaluationRun]) -> str:
    """Which shards are missing; empty where none is."""
    found = {part.shard for part in parts if part.shard is not None}
    if not found:
        return ""
    counts = {shard.split("/")[1] for shard in found}
    if len(counts) != 1:
        raise UsageError("The runs are shards of different divisions.", why=f"Found: {', '.join(sorted(found))}.")
    count = int(counts.pop())
    missing = [f"{index}/{count}" for index in range(count) if f"{index}/{count}" not in found]
    return f"Shards are missing: {', '.join(missing)}. Merge all before reading." if missing else ""


def _answer(sample: Sample) -> Answer:
    return Answer(
        key=f"{sample.model}:{sample.prompt_id}:{sample.sample}",
        model=sample.model,
        prompt_id=sample.prompt_id,
        sample=sample.sample,
        text=sample.response,
        finish_reason=sample.finish_reason,
        prompt_tokens=sample.prompt_tokens,
        completion_tokens=sample.completion_tokens,
        seed=sample.seed,
    )


def shard_folders(folders: Sequence[Path]) -> list[Path]:
    """``folders``, with a folder that only holds finished runs replaced by them, in the order of their names.

    Raises:
        UserError: a folder holds neither a run nor runs.
    """
    found: list[Path] = []
    for folder in folders:
        if (folder / MANIFEST).is_file():
            found.append(folder)
            continue
        inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
        if not inside:
            raise UserError(f"{shown(folder)} holds no finished run.", mend="Name run folders, or a folder of shards.")
        found += inside
    return found
