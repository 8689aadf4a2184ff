"""``safety-classifier train``: the loop, with checkpoints, validation and exact resume."""

from __future__ import annotations

import shutil
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from runs.config import save as save_config
from runs.console import Reporter, plain
from runs.errors import Preempted, UserError
from runs.folder import claim
from runs.job import stop_flag
from runs.lock import run_lock
from runs.paths import cache_dir, shown
from safety_classifier.config import ClassifierRun
from safety_classifier.training import scoring
from safety_classifier.training.checkpoints import Checkpoints
from safety_classifier.training.distributed import join_cluster
from safety_classifier.training.setup import Session, open_session
from safety_classifier.training.trackers import Trackers, profiled

if TYPE_CHECKING:
    import pandas

LOG_EVERY = 10
"""Steps between lines of the log."""


@dataclass
class Progress:
    """Where the run stands; it is saved beside the state."""

    step: int = 0
    best: float = -1.0
    """The best macro AUPRC so far."""
    best_step: int = 0
    stale: int = 0
    """Validations since the best one."""
    seconds: float = 0.0
    """Training time over all of the run's processes."""


def train(
    run: ClassifierRun,
    reporter: Reporter,
    *,
    command: str,
    resume: bool = True,
    steps: bool = True,
    finish: bool = True,
) -> Path | None:
    """Train, resume or finish a classifier.

    Args:
        run: the config.
        reporter: shows progress.
        command: makes the artifact again; it goes into the manifest.
        resume: go on from the run's latest checkpoint; else start anew.
        steps: train; else the artifact is written from the best weights so far, and the run can go on later.
        finish: calibrate the best weights and write the artifact; else only the checkpoints are made.

    Returns:
        The folder of the artifact; None where none was asked for, and in every process but the first.

    Raises:
        UserError: data or encoder are missing, or another process or another run holds the folder.
        Preempted: SIGTERM came; the same command goes on from the saved state.
    """
    join_cluster()
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "jax"))
    with ExitStack() as stack:
        if jax.process_index() == 0:  # the first process speaks for all of them
            stack.enter_context(run_lock(run.output_dir))
            if not resume:
                _clear(run.output_dir)
        session = open_session(run, reporter)
        if jax.process_index() == 0:
            claim(run.output_dir, session.identity)
            save_config(run, run.output_dir / "config.yaml")
        checkpoints = Checkpoints(run.output_dir, run.checkpoints.keep)
        stack.callback(checkpoints.close)
        progress = _loop(session, checkpoints, reporter) if steps else _reached(session, checkpoints)
        if not finish:
            return None
        weights, metrics = checkpoints.best(session.weights)  # Orbax restores in all processes together
        if jax.process_index() != 0:
            return None
        from safety_classifier.training.finish import write_artifact

        return write_artifact(
            session,
            weights,
            {**metrics, "reached": progress.step, "seconds": progress.seconds},
            reporter,
            command=command,
        )


def _loop(session: Session, checkpoints: Checkpoints, reporter: Reporter) -> Progress:
    """Train to the last step, or until the validation stops improving."""
    progress, source = Progress(), session.stream.iterator()
    restored = checkpoints.restore(session.state)
    if restored is not None:
        session.state, saved = restored
        progress = Progress(**saved["progress"])
        source.set_state(saved["stream"])
        reporter.say(f"Going on from step {progress.step} of {session.steps}.")
    validation = scoring.validation_rows(
        session.frame, "validation", session.run.checkpoints.validation_rows, session.run.train.seed
    )
    # jax.distributed has a handler of its own, which Python's would push aside.
    watched: AbstractContextManager[list[bool]] = stop_flag() if jax.process_count() == 1 else nullcontext([])
    with (
        Trackers(session.run, progress.step, session.steps) as trackers,
        watched as stopped,
        reporter.progress("training", session.steps, progress.step) as advance,
    ):
        clock = time.monotonic()
        while progress.step < session.steps and not _exhausted(session, progress):
            with profiled(session.run, progress.step):
                batch = session.place(next(source))
                session.state, metrics = session.compiled.step(
                    session.state, session.parts.frozen, batch, jnp.int32(progress.step)
                )
            progress.step += 1
            if progress.step % LOG_EVERY == 0 or progress.step == session.steps:
                values = {name: float(value) for name, value in metrics.items()}
                trackers.log(progress.step, {f"train/{name}": value for name, value in values.items()})
                advance(0, f"loss {values['loss']:.4f}")
            advance()
            due = progress.step % session.run.checkpoints.every == 0 or progress.step == session.steps
            leaving = checkpoints.leaving(progress.step, bool(stopped))
            if due:
                _validate(session, checkpoints, progress, validation, trackers, reporter)
            if due or leaving:
                progress.seconds, clock = progress.seconds + time.monotonic() - clock, time.monotonic()
                checkpoints.save(
                    progress.step, session.state, {"progress": asdict(progress), "stream": source.get_state()}
                )
            if leaving:
                checkpoints.close()
                raise Preempted(
                    f"Asked to stop at step {progress.step} of {session.steps}; the state is saved.",
                    mend="The same command goes on from there.",
                )
    return progress


def _reached(session: Session, checkpoints: Checkpoints) -> Progress:
    """Where an interrupted run stands. Raises `UserError` when it has no checkpoint yet."""
    restored = checkpoints.restore(session.state)
    if restored is None:
        raise UserError(f"{shown(session.run.output_dir)} holds no checkpoint yet.", mend="Train first.")
    return Progress(**restored[1]["progress"])


def _validate(
    session: Session,
    checkpoints: Checkpoints,
    progress: Progress,
    validation: pandas.DataFrame,
    trackers: Trackers,
    reporter: Reporter,
) -> None:
    """Score the validation rows and keep the weights if the macro AUPRC over headline categories is the best so far."""
    run = session.run
    logits = scoring.frame_logits(
        validation,
        session.featuriser,
        session.forward(session.weights),
        run.train.buckets,
        run.train.tokens_per_batch,
        len(session.labels.names),
    )
    metrics = scoring.quick_metrics(validation, logits, session.labels.names)
    score = scoring.headline_macro(metrics, session.labels)
    trackers.log(
        progress.step, {f"validation/{name}": value for name, value in {**metrics, "macro_auprc": score}.items()}
    )
    better = score > progress.best
    line = ", ".join(f"{name.split('/')[1]} {value:.3f}" for name, value in metrics.items())
    reporter.say(
        f"step {progress.step}: macro AUPRC {score:.4f}{' [green]best[/]' if better else ''} [dim]({plain(line)})[/]"
    )
    if better:
        progress.best, progress.best_step, progress.stale = score, progress.step, 0
        checkpoints.save_best(progress.step, session.weights, {"step": progress.step, "macro_auprc": score, **metrics})
    else:
        progress.stale += 1


def _exhausted(session: Session, progress: Progress) -> bool:
    patience = session.run.checkpoints.patience
    return patience is not None and progress.stale >= patience


def _clear(folder: Path) -> None:
    """Remove what an earlier run left, but not files that are no run's."""
    for name in ("checkpoints", "best", "artifact", "evaluation", "tensorboard", "profile"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("run.json", "config.yaml", "log.jsonl"):
        (folder / name).unlink(missing_ok=True)


def describe(session: Session) -> dict[str, Any]:
    """What a run would do, for ``--dry-run``."""
    counts = session.frame["split"].value_counts()
    return {
        "steps": session.steps,
        "rows": {str(split): int(count) for split, count in counts.items()},
        "rows_per_batch": round(session.rows_per_batch, 1),
        "padding": round(session.stream.plan(0).padding, 4),
        "devices": session.mesh.size,
        "precision": session.precision,
        "trained_parameters": int(sum(array.size for array in session.state.trained)),
        "output_dir": shown(session.run.output_dir),
    }
