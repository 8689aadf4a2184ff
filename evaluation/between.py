"""`evaluate compare RUN_A RUN_B`: two runs' models on the prompts that both answered. No model is loaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks.records import BenchmarkUnit
from evaluation.benchmarks.run import stored_units
from evaluation.config import EvaluationRun
from evaluation.joining import check_evaluators, check_settings, common_prompts, settings_of
from evaluation.records import Results, Sample
from evaluation.report.data import RunData
from evaluation.run import CODE_VERSION, Finished, clear, finish
from evaluation.scores import Judgement, unscored
from inference.records import FinishReason, Prompt
from runs import config as configs
from runs.atomic import make_folder
from runs.errors import UsageError, unknown_name
from runs.folder import claim
from runs.identity import digest
from runs.lock import run_lock

_LABEL = 6
"""Characters of a run id that tell models of one name apart."""


@dataclass(frozen=True)
class Joined:
    """Two models, each of its own run, on common prompts."""

    control: str
    """The first run's model, under a name of its own."""
    treatment: str
    samples: tuple[Sample, ...]
    """Of both, with their new names; scores by the common evaluators only."""
    asked: tuple[str, ...]
    """Ids of the prompts that both were asked."""
    benchmarks: tuple[BenchmarkUnit, ...]
    """What lm-eval said of each, where the run has benchmarks."""
    evaluators: tuple[str, ...]
    seed: int
    dropped: dict[str, int]
    """Name → prompts of its run that the other run does not have."""
    stamp: str
    identity: dict[str, Any]
    same: bool
    """Both are one model under the same settings: their answers cannot differ but by chance."""


def pick_model(run: RunData, wanted: str | None) -> str:
    """``wanted``, or the last of the run's lineage. Raises `UsageError` if the run has no such model."""
    if wanted is None:
        return run.models[-1]
    if wanted not in run.models:
        raise unknown_name(f"model of run {run.results.run_id[:12]}", wanted, run.models)
    return wanted


def join(first: RunData, second: RunData, models: tuple[str, str], *, allow_different_settings: bool) -> Joined:
    """Put one model of each run side by side.

    Args:
        first: the run of the control (the baseline).
        second: the run of the treatment (the candidate).
        models: their models.
        allow_different_settings: stamp a difference in generation settings instead of refusing.

    Raises:
        UsageError: other settings, other evaluator versions, no prompt in common, or one model of one run twice.
    """
    runs, ids = (first, second), (first.results.run_id, second.results.run_id)
    if ids[0] == ids[1] and models[0] == models[1]:
        names = (f"{models[0]} (baseline)", f"{models[1]} (candidate)")
    elif models[0] == models[1]:
        names = (f"{models[0]}@{ids[0][:_LABEL]}", f"{models[1]}@{ids[1][:_LABEL]}")
    else:
        names = models
    evaluators = check_evaluators(first.results.versions, second.results.versions)
    settings = {
        name: settings_of(run.results.identity, model) for name, run, model in zip(names, runs, models, strict=True)
    }
    stamp = check_settings(settings, allow=allow_different_settings)
    asked = [_asked(run, model) for run, model in zip(runs, models, strict=True)]
    common = common_prompts(*asked)
    engines = [run.results.identity["models"][model] for run, model in zip(runs, models, strict=True)]
    return Joined(
        control=names[0],
        treatment=names[1],
        samples=_ordered(common, [
            _renamed(run.by_model[model], name, evaluators)
            for run, model, name in zip(runs, models, names, strict=True)
        ]),
        benchmarks=tuple(
            unit
            for run, model, name in zip(runs, models, names, strict=True)
            for unit in stored_units(run.folder, {model: name})
        ),
        asked=tuple(common),
        evaluators=tuple(evaluators),
        seed=int(first.results.config["sampling"]["seed"]),
        dropped={name: len(keys) - len(common) for name, keys in zip(names, asked, strict=True)},
        stamp=stamp,
        identity={
            "code": CODE_VERSION,
            "runs": list(ids),
            "models": dict(zip(names, engines, strict=True)),
            "sampling": first.results.identity["sampling"],
            "evaluators": {name: first.results.versions[name] for name in evaluators},
            "limited": first.limited or second.limited,
        },
        same=engines[0] == engines[1] and not stamp,
    )  # fmt: skip


def _asked(run: RunData, model: str) -> list[str]:
    """Ids of the prompts that ``model`` was asked, answered or not: a missing answer must not leave the comparison."""
    answered = [sample.prompt_id for sample in run.by_model[model]]
    return list(dict.fromkeys([*answered, *run.results.missing.get(model, ())]))


def _renamed(samples: Sequence[Sample], name: str, evaluators: Sequence[str]) -> dict[str, list[Sample]]:
    """Prompt id → the samples under their new name."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        scores = {key: judgement for key, judgement in sample.scores.items() if key in evaluators}
        found.setdefault(sample.prompt_id, []).append(sample.model_copy(update={"model": name, "scores": scores}))
    return found


def _ordered(keys: Sequence[str], sides: Sequence[dict[str, list[Sample]]]) -> tuple[Sample, ...]:
    return tuple(sample for key in keys for side in sides for sample in side.get(key, ()))


def compare_runs(
    joined: Joined,
    config: EvaluationRun,
    *,
    output_dir: Path | None,
    results_root: Path,
    command: str,
) -> tuple[Path, Results]:
    """Write the comparison as a run of its own, which `evaluate report` and the dashboard read like any other.

    Args:
        joined: two models side by side.
        config: of the first run.
        output_dir: the folder; an earlier comparison of other runs in it is refused.
        results_root: where a folder is made otherwise.
        command: what was typed, for the manifest.

    Raises:
        UsageError: the folder holds something else.
    """
    started = time.monotonic()
    run = config.model_copy(
        update={
            "models": (joined.control, joined.treatment),
            "evaluators": joined.evaluators,
            "limit": config.limit if joined.identity["limited"] else None,
            "shard": None,
        }
    )
    folder = make_folder(output_dir or results_root / f"compare-{digest(joined.identity)[:12]}")
    with run_lock(folder):
        clear(folder)
        run_id = claim(folder, joined.identity)
        configs.save(run, folder / "config.yaml")
        dropped = [
            f"{count} prompts of {name} are not in the other run" for name, count in joined.dropped.items() if count
        ]
        stamp = " ".join(part for part in (joined.stamp, f"{'; '.join(dropped)}." if dropped else "") if part)
        done = Finished(
            run=run,
            samples=joined.samples,
            evaluators=[Recorded(*entry) for entry in joined.identity["evaluators"].items()],
            run_id=run_id,
            identity=joined.identity,
            command=command,
            inputs={"runs": joined.identity["runs"]},
            benchmarks=joined.benchmarks if len(joined.benchmarks) > 1 else (),
            stamp=stamp,
            asked=joined.asked,
        )
        results = finish(done, folder, started=started)
    return folder, results


class Recorded:
    """An evaluator whose judgements are stored: its name and version as they were, and no new judgement."""

    def __init__(self, name: str, version: str) -> None:
        self._name, self._version = name, version

    @property
    def name(self) -> str:
        """As in the run."""
        return self._name

    @property
    def version(self) -> str:
        """As in the run."""
        return self._version

    def applies_to(self, prompt: Prompt) -> bool:
        """To nothing new."""
        return False

    def score(self, prompt: Prompt, response: str, finish_reason: FinishReason = "stop") -> Judgement:
        """Never asked: the judgements are in the samples."""
        return unscored("stored judgements are not made again")


def check_two(first: str, second: str) -> None:
    """Raise `UsageError` where a run would be compared with itself by oversight."""
    if first == second:
        raise UsageError(
            "Both are the same model of the same run.",
            mend="Name two runs, or two models of one: --model-a base --model-b stage3",
        )
