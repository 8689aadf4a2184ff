"""Where a run's curves go: ``log.jsonl``, Prometheus, and TensorBoard or Weights & Biases when asked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from runs.errors import UserError
from runs.metrics import Meter
from safety_classifier.config import ClassifierRun


class Trackers:
    """Writers of scalars; only the first process writes.

    Args:
        run: the config.
        step: where the run goes on; later lines of an earlier process are dropped from ``log.jsonl``.
        steps: of the whole run.
    """

    def __init__(self, run: ClassifierRun, step: int, steps: int) -> None:
        self._silent = jax.process_index() != 0
        self._meter = Meter("classifier", jax.process_index())
        self._steps, self._last = steps, (time.monotonic(), step)
        self._path = run.output_dir / "log.jsonl"
        self._board: Any = None
        self._wandb: Any = None
        if self._silent:
            return
        _cut(self._path, step)
        if "tensorboard" in run.track.report_to:
            from tensorboard.summary import Writer  # needs numpy only

            self._board = Writer(str(run.output_dir / "tensorboard"))
        if "wandb" in run.track.report_to:
            self._wandb = _wandb(run)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record scalars at a step."""
        self._measure(step, values)
        if self._silent:
            return
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, **{name: round(value, 6) for name, value in values.items()}}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def _measure(self, step: int, values: dict[str, float]) -> None:
        """For Prometheus: every process's own, with the seconds that a step takes."""
        gauges = {name.removeprefix("train/"): value for name, value in values.items()}
        now, (then, before) = time.monotonic(), self._last
        if "loss" in gauges and step > before:
            gauges["seconds"] = (now - then) / (step - before)
            self._last = (now, step)
        self._meter.set({"step": step, "steps": self._steps, **gauges})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


@contextmanager
def profiled(run: ClassifierRun, step: int) -> Iterator[None]:
    """Trace the steps of ``track.profile_steps`` into the run folder; open them in TensorBoard or Perfetto."""
    first_last = run.track.profile_steps
    if first_last is not None and step == first_last[0]:
        jax.profiler.start_trace(str(run.output_dir / "profile"))
    yield
    if first_last is not None and step == first_last[1]:
        jax.profiler.stop_trace()


def _cut(path: Path, step: int) -> None:
    """Drop the lines after ``step``, and a torn last line: they are written again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["step"] <= step:
            kept.append(line)
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _wandb(run: ClassifierRun) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            "track.report_to names wandb, which is not installed.", mend="Install it with: uv sync --extra trackers"
        ) from error
    return wandb.init(project="safety-classifier", dir=str(run.output_dir), config=run.model_dump(mode="json"))
