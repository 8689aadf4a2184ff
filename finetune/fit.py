"""The pieces that the stages share: identity, the trainer's arguments, the training loop with resume, the artifact.

`finetune.stage` puts them in order; `finetune.sft`, `dpo`, `reward` and `rl` bring their data, model and trainer.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from finetune import card, checkpoints, lora
from finetune.cluster import Cluster, Rhythm, rhythm
from finetune.config import DPORun, RewardRun, RLRun, SFTRun, TrainSection
from finetune.data import Examples
from finetune.speed import SPEED_LOG, Clock, rows_until, write_rows
from finetune.watch import Watch
from inference.families import Family
from runs import config as configs
from runs.atomic import write_text
from runs.console import Reporter, plain
from runs.errors import DataError, Preempted, UsageError, UserError
from runs.folder import differences
from runs.identity import digest
from runs.lock import run_lock
from runs.manifest import NAME as MANIFEST
from runs.manifest import Manifest, artifact_files, read_manifest, verify, write_manifest
from runs.metrics import Meter
from runs.paths import shown

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from finetune.policy import GRPO, RLOO
    from finetune.preferences import DPO, KTO
    from finetune.scores import Reward
    from finetune.trainers import SFT

    Trainer: TypeAlias = SFT | DPO | KTO | Reward | RLOO | GRPO

Run = SFTRun | DPORun | RewardRun | RLRun

METERS: dict[type, str] = {SFTRun: "sft", DPORun: "dpo", RewardRun: "reward", RLRun: "rl"}
"""What a run is called in its metrics."""

RECIPE_VERSION = 1
"""Raised when the code changes so that the same config trains another adapter."""

NO_EFFECT = ("output_dir", "train.report_to", "train.save_steps", "train.save_total_limit")
"""Keys that do not change the result, and so may differ when a run is resumed."""

YOUNGER = {
    "train.global_batch_size": None,
    "train.fsdp": False,
    "train.ld_alpha": None,
    "train.soft_labels": False,
    "train.desirable_weight": 1.0,
    "train.undesirable_weight": 1.0,
    "data.default_label_prob": None,
    "data.max_rejected_tokens": None,
    "data.sources.field": None,
    "data.sources.max_rows": None,
    "monitors": None,
    "interpolation": 1.0,
}
"""Keys that came later, and their defaults: runs without them keep their identity."""

TRAIN_LOG = "train_log.jsonl"


@dataclass(frozen=True)
class Options:
    """What the command line says besides the config."""

    command: str
    """The command that makes the artifact again."""
    resume: bool = True


@dataclass(frozen=True)
class Identity:
    """What a run is made of."""

    run_id: str
    described: dict[str, Any]
    """The config's keys that matter and the digests of the inputs."""
    inputs: dict[str, Any]


def identify(run: Run, *, kind: str, inputs: dict[str, Any], cluster: Cluster | None = None) -> Identity:
    """The identity of a run: everything that could change its result.

    The number of processes is part of it where the rows of a step depend on it.
    """
    settings = _settings(run.model_dump(mode="json"))
    described = {"kind": kind, "recipe_version": RECIPE_VERSION, "config": settings, "inputs": inputs}
    if cluster is not None and cluster.spread:
        described["sharded"] = cluster.sharded
        if run.train.global_batch_size is None:
            described["processes"] = cluster.size
    return Identity(digest(described), described, inputs)


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The config without the keys in `NO_EFFECT`, and without those in `YOUNGER` that have their default."""
    kept = copy.deepcopy(config)
    for dotted in NO_EFFECT:
        *sections, key = dotted.split(".")
        for values in _reached(kept, sections):
            values.pop(key, None)
    for dotted, default in YOUNGER.items():
        *sections, key = dotted.split(".")
        for values in _reached(kept, sections):
            if values.get(key, default) == default:
                values.pop(key, None)
    return kept


def _reached(config: dict[str, Any], sections: Sequence[str]) -> list[dict[str, Any]]:
    """The mappings at the end of a path; a list on the way stands for each of its entries, an absent key for none."""
    reached = [config]
    for name in sections:
        found = [values[name] for values in reached if values.get(name) is not None]
        reached = [entry for value in found for entry in (value if isinstance(value, list) else [value])]
    return reached


def already_done(output_dir: Path, identity: Identity, options: Options, reporter: Reporter) -> Manifest | None:
    """The manifest of a finished artifact of this very run, if it is there and whole.

    Raises:
        UserError: the folder holds the finished artifact of another run, and ``--no-resume`` was not given.
        IntegrityError: this run's artifact was changed after it was finished.
    """
    if not (output_dir / MANIFEST).is_file() or not options.resume:
        return None
    manifest = read_manifest(output_dir, rebuild=options.command)
    if manifest.run_id != identity.run_id:
        stored = {"config": _settings(manifest.config), "inputs": manifest.inputs}
        wanted = {key: identity.described[key] for key in stored}
        raise UserError(
            f"{shown(output_dir)} holds the finished adapter of another run.",
            why=f"They differ in {'; '.join(differences(stored, wanted))}.",
            mend="Choose another --output-dir, or replace it with --no-resume.",
        )
    verify(output_dir, rebuild=f"{options.command} --no-resume")
    reporter.say(f"[green]Already done:[/] {plain(shown(output_dir))} is the finished adapter of this run.")
    return manifest


def claim(run: Run, identity: Identity, options: Options, cluster: Cluster, stack: ExitStack) -> Path:
    """The work folder, held by the first process until ``stack`` ends.

    Raises:
        UserError: another process, or another run, holds the folder; or not all processes see it.
    """

    def take() -> Path:
        stack.enter_context(run_lock(run.output_dir))
        return checkpoints.open_work(
            run.output_dir, run_id=identity.run_id, described=identity.described, resume=options.resume
        )

    work = cluster.decided(take)
    if cluster.any(not (work / checkpoints.RUN).is_file()):
        raise UsageError(
            f"Not every process sees {shown(work)}.",
            why="Checkpoints are written by the first process and read by all.",
            mend="Put output_dir on a volume that all Pods mount (ReadWriteMany).",
        )
    return work


def planned_steps(rows: int, train: TrainSection, rhythm: Rhythm | None = None) -> int:
    """Optimiser steps of the whole run, as transformers counts them."""
    if train.max_steps > 0:
        return train.max_steps
    if rhythm is not None and rhythm.whole:
        per_epoch = rows // rhythm.rows
    else:
        batches = math.ceil(rows / train.per_device_train_batch_size)
        per_epoch = max(math.ceil(batches / train.gradient_accumulation_steps), 1)
    return math.ceil(train.num_train_epochs * per_epoch)


def share(run: Run, examples: Examples, cluster: Cluster) -> Rhythm:
    """How the rows of a step are shared among the processes.

    Raises:
        UsageError: they cannot be shared equally.
        DataError: there are fewer rows than one step takes.
    """
    shared = rhythm(
        cluster,
        per_device=run.train.per_device_train_batch_size,
        accumulation=run.train.gradient_accumulation_steps,
        total=run.train.global_batch_size,
    )
    if shared.whole and len(examples.train) < shared.rows:
        raise DataError(
            f"One step takes {shared.rows} rows over {cluster.size} process{'es' if cluster.spread else ''}, "
            f"and there are {len(examples.train)}.",
            mend="Lower train.global_batch_size or per_device_train_batch_size, or use fewer processes.",
        )
    return shared


def check_device(device: torch.device, train: TrainSection, cluster: Cluster | None = None) -> None:
    """Refuse what the machine cannot do.

    Raises:
        UserError: bfloat16 without hardware for it, or several visible GPUs for one process.
    """
    import torch

    if train.bf16 and device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    elif train.bf16 and device.type == "cpu":
        found = torch.cpu.get_capabilities()
        able = any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16"))
    else:
        able = True
    if not able:
        raise UserError(
            f"train.bf16 is set, but this {device.type} device has no bfloat16 arithmetic.",
            why="It would be emulated, slowly.",
            mend="Set train.bf16=false (and model.dtype=float32).",
        )
    if device.type == "cuda" and torch.cuda.device_count() > 1 and not (cluster is not None and cluster.spread):
        raise UserError(
            f"{torch.cuda.device_count()} GPUs are visible, and one process trains on one.",
            mend="Start one process a GPU (docs/distributed.md), or choose one, for example CUDA_VISIBLE_DEVICES=0.",
        )


def quiet_libraries() -> None:
    """Keep progress bars and advice of the libraries off the console; ours says what matters."""
    import warnings

    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def arguments(
    train: TrainSection, work: Path, device: torch.device, *, evaluated: bool, accumulation: int
) -> dict[str, Any]:
    """Keyword arguments for TRL's configs: the section's own, and what this project fixes.

    Named here because the defaults are wrong for us: TRL turns bf16 and activation checkpointing ON; the
    trainer hides NaN losses from the log (``logging_nan_inf_filter``).
    """
    ours = {"save_total_limit", "load_best_model_at_end", "global_batch_size", "fsdp"}
    own = train.model_dump(include=set(TrainSection.model_fields) - ours)
    return own | {
        "output_dir": str(work),
        "gradient_accumulation_steps": accumulation,
        "data_seed": train.seed,
        "eval_strategy": "steps" if evaluated and train.eval_steps else "no",
        "save_strategy": "steps",
        "save_total_limit": None,  # `finetune.trainers` removes old checkpoints once the new one is whole
        "gradient_checkpointing": train.activation_checkpointing,
        "fp16": False,
        "use_cpu": device.type == "cpu",
        "dataloader_pin_memory": device.type == "cuda",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
        "max_length": None,  # the rows were cut by `finetune.data`
    }


def prepare(trainer: Trainer, run: Run, examples: Examples, cluster: Cluster, shared: Rhythm) -> None:
    """Tell a trainer just built what it needs to know about rows, checkpoints and processes."""
    from transformers import PrinterCallback

    trainer.cluster, trainer.rhythm = cluster, shared
    trainer.lengths = [example.tokens for example in examples.train]
    trainer.save_total_limit = run.train.save_total_limit
    trainer.keep_best = run.train.load_best_model_at_end
    trainer.clock = Clock()
    trainer.remove_callback(PrinterCallback)
    if cluster.spread:
        # Nothing is dealt out with repeated rows here, so there is nothing to cut off a gathered metric.
        gather = trainer.accelerator.gather
        trainer.accelerator.gather_for_metrics = lambda values, *_, **__: gather(values)


def train(
    trainer: Trainer,
    run: Run,
    examples: Examples,
    work: Path,
    reporter: Reporter,
    *,
    before: Callable[[], dict[str, float]],
    stop: Sequence[bool] = (),
) -> dict[str, Any]:
    """Train to the end, from the newest whole checkpoint if there is one.

    Args:
        trainer: built and prepared, with the adapter in its starting state.
        run: the config.
        examples: for their lengths and counts.
        work: the work folder.
        reporter: shows the bar.
        before: measures the starting state; called once in the life of a run.
        stop: holds True once this process was asked to stop.

    Returns:
        What was measured: losses, seconds per step, steps.

    Raises:
        Preempted: one of the processes was asked to stop; all of them leave, and the state is saved.
    """
    from finetune.trainers import best_step, log_lines

    cluster = trainer.cluster
    total = planned_steps(len(examples.train), run.train, trainer.rhythm)
    measured = _once(work / "before.json", before, cluster)
    if cluster.any(bool(stop)):
        raise Preempted("Asked to stop before the first step.", mend="The same command goes on.")
    checkpoint = cluster.decided(lambda: checkpoints.latest(work, reporter))
    done, history = (checkpoint.step, checkpoint.log_history) if checkpoint else (0, [])
    if checkpoint is not None:
        reporter.say(f"Resuming at step {done} of {total}.")
        trainer.wall_before = checkpoint.wall_seconds
        # TRL counts tokens from zero in every process.
        trainer._total_train_tokens = next((e["num_tokens"] for e in reversed(history) if "num_tokens" in e), 0)
    trainer.started = time.monotonic()
    seconds: list[float] = []
    watch = Watch(run, measured)
    if done < total and watch.reason_to_stop(history) is None:
        done, history, seconds = _loop(trainer, run, work, checkpoint, total, reporter, stop, watch)
    elif checkpoint is not None:
        lora.load(policy(trainer), checkpoint.folder)
        trainer.restore_clock(checkpoint.folder)
    if cluster.first:
        write_text(work / TRAIN_LOG, log_lines(history))
        write_rows(work / SPEED_LOG, rows_until(work / SPEED_LOG, done))
    best = best_step(history) if run.train.load_best_model_at_end else None
    if best is not None and best != done:
        reporter.say(f"Keeping step {best}, whose held-out loss is the lowest.")
        lora.load(policy(trainer), work / f"checkpoint-{best}")
    losses = [entry["loss"] for entry in history if "loss" in entry]
    rate = trainer.clock.mean()
    return measured | {
        "steps": done,
        "step_kept": best if best is not None else done,
        "train_loss_first": losses[0] if losses else None,
        "train_loss_last": losses[-1] if losses else None,
        "seconds_per_step": round(statistics.fmean(seconds), 3) if seconds else None,
        "tokens_per_second": round(rate, 1) if rate is not None else None,
        **watch.outcome(history),
        **_device_peak(),
        "minutes": round((trainer.wall_before + time.monotonic() - trainer.started) / 60, 2),
        "training_seconds": round(trainer.wall_before + time.monotonic() - trainer.started, 1),
        **({"processes": cluster.size} if cluster.spread else {}),
    }


def _device_peak() -> dict[str, float]:
    """The GPU's largest allocation of this process, in GiB; the manifest has the machine's own memory."""
    import torch

    if not torch.cuda.is_available():
        return {}
    return {"peak_device_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)}


def _loop(
    trainer: Trainer,
    run: Run,
    work: Path,
    checkpoint: checkpoints.Checkpoint | None,
    total: int,
    reporter: Reporter,
    stop: Sequence[bool],
    watch: Watch,
) -> tuple[int, list[dict[str, Any]], list[float]]:
    """The steps that are left: the last one, the log, and the seconds of each."""
    from finetune.trainers import Progress

    meter = Meter(METERS[type(run)], trainer.cluster.rank)
    folder = checkpoint.folder if checkpoint else None
    with reporter.progress("training", total, checkpoint.step if checkpoint else 0) as advance:
        progress = Progress(
            trainer,
            advance,
            work / TRAIN_LOG,
            watch.reason_to_stop,
            stop=stop,
            resumed=folder,
            meter=meter.set,
            warn=watch.news(reporter.warn),
        )
        trainer.add_callback(progress)
        trainer.train(resume_from_checkpoint=str(folder) if folder else None)
        trainer.remove_callback(Progress)
    done = trainer.state.global_step
    if progress.stopped:
        trainer.cluster.wait()
        raise Preempted(
            f"Asked to stop at step {done} of {total}; the state is saved.", mend="The same command goes on from there."
        )
    return done, trainer.state.log_history, progress.step_seconds


def finish(
    trainer: Trainer,
    run: Run,
    *,
    kind: str,
    family: Family,
    identity: Identity,
    examples: Examples,
    measured: dict[str, Any],
    work: Path,
    options: Options,
    began: float,
) -> Manifest:
    """Store the adapter in bfloat16, load it back, evaluate what was loaded, and write card and manifest.

    The held-out numbers in the manifest are those of the stored bytes, not of the float32 weights before them.
    """
    import torch

    building, cluster = work / "artifact", trainer.cluster
    cluster.decided(lambda: shutil.rmtree(building, ignore_errors=True))
    lora.save(policy(trainer), building, public_id=family.base.public_id, dtype=torch.bfloat16, write=cluster.first)
    cluster.wait()
    lora.load(policy(trainer), building)
    metrics = measured | (held_out(trainer) if examples.holdout else {}) | trainer.final()

    def store() -> Manifest:
        return _store(
            run,
            building,
            kind=kind,
            family=family,
            identity=identity,
            examples=examples,
            metrics=metrics,
            work=work,
            options=options,
            seconds=trainer.wall_before + time.monotonic() - began,
        )

    return cluster.decided(store)


def _store(
    run: Run,
    building: Path,
    *,
    kind: str,
    family: Family,
    identity: Identity,
    examples: Examples,
    metrics: dict[str, Any],
    work: Path,
    options: Options,
    seconds: float,
) -> Manifest:
    """Card, config and manifest beside the stored weights; then the checkpoints go."""
    configs.save(run, building / "config.yaml")
    for name in (TRAIN_LOG, SPEED_LOG):
        shutil.copyfile(work / name, building / name)
    text = card.render(
        run,
        kind=kind,
        family=family,
        inputs=identity.inputs,
        counts=examples.counts(),
        metrics=metrics,
        command=options.command,
    )
    write_text(building / "MODEL_CARD.md", text)

    output = run.output_dir
    (output / MANIFEST).unlink(missing_ok=True)  # from here until the new one, the folder is unfinished
    for path in artifact_files(building):
        path.replace(output / path.name)
    manifest = write_manifest(
        output,
        kind="reward_model" if kind == "reward" else "adapter",
        run_id=identity.run_id,
        command=options.command,
        config=run.model_dump(mode="json"),
        inputs=identity.inputs,
        seeds={"train": run.train.seed, "data": run.data.seed},
        counts=examples.counts(),
        metrics=metrics,
        wall_seconds=seconds,
        files=[output / name for name in ARTIFACT],
    )
    shutil.rmtree(building)
    checkpoints.clear(work)
    return manifest


ARTIFACT = (lora.WEIGHTS, lora.CONFIG, "config.yaml", TRAIN_LOG, SPEED_LOG, "MODEL_CARD.md")
"""The files of a finished adapter, besides the manifest."""


def policy(trainer: Trainer) -> PeftModel:
    """The model that is trained, as what it is."""
    return cast("PeftModel", trainer.model)


def base_model(trainer: Trainer) -> PreTrainedModel:
    """The frozen base below the adapter."""
    return cast("PreTrainedModel", policy(trainer).get_base_model())


def held_out(trainer: Trainer) -> dict[str, float]:
    """The held-out numbers of the adapter as it is now, without timings."""
    from finetune.trainers import TIMINGS

    accelerator, sharded = trainer.accelerator, trainer.is_fsdp_enabled
    untrained = not accelerator._models
    if untrained:  # accelerate shards a model only together with its optimiser
        trainer.is_fsdp_enabled = False
    found = trainer.evaluate()
    trainer.is_fsdp_enabled = sharded
    if untrained and trainer.cluster.spread:
        # accelerate takes a model that was prepared for evaluation as prepared for training too, and would leave it
        # without DDP: every process would then train on its own rows alone.
        accelerator._models.clear()
        policy(trainer)._is_accelerate_prepared = False  # type: ignore[assignment]
    kept = {key: value for key, value in found.items() if key != "epoch" and not any(part in key for part in TIMINGS)}
    return {key: round(value, 6) for key, value in kept.items()}


def _once(path: Path, measure: Callable[[], dict[str, float]], cluster: Cluster) -> dict[str, Any]:
    """The stored measurement, or a new one that is then stored; all processes measure, the first one stores."""
    if not cluster.decided(path.is_file):
        value = measure()
        if cluster.first:
            write_text(path, json.dumps(value) + "\n")

    def read() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    return cluster.decided(read)


def result(manifest: Manifest, output: Path) -> tuple[dict[str, Any], list[str]]:
    """What the command answers: for machines, and in lines for people."""
    metrics = manifest.metrics
    value = {"output_dir": str(output), "run_id": manifest.run_id, "counts": manifest.counts, "metrics": metrics}
    lines = [f"[green]Adapter:[/] {plain(shown(output))} ({metrics.get('steps')} steps, {manifest.wall_seconds:.0f} s)"]
    accuracy = "eval_pairwise_accuracy"
    losses = ("eval_loss_before", "eval_loss", "eval_rewards/accuracies", "eval_rewards/margins")
    rewards = ("reward_at_start", "eval_reward", "eval_kl")
    for key in (*losses, *rewards, accuracy, f"{accuracy}_low", f"{accuracy}_high"):
        if metrics.get(key) is not None:
            lines.append(f"  {key}: {metrics[key]:.4f}")
    return value, lines
