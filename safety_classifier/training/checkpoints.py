"""Checkpoints of a training run: Orbax, asynchronous, the latest and the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from safety_classifier.training.step import State


class Checkpoints:
    """Two Orbax managers over one folder: ``latest`` to resume from, ``best`` to ship.

    Args:
        folder: the run folder.
        keep: latest checkpoints kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._latest = _manager(folder / "checkpoints", keep)
        self._best = _manager(folder / "best", 1)

    def save(self, step: int, state: State, progress: dict[str, Any]) -> None:
        """Start writing the whole state; returns while the disk works. Saving a step twice keeps the first."""
        if step in self._latest.all_steps():
            return
        self._best.wait_until_finished()  # several processes agree on one save at a time
        self._latest.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(_tree(state)), progress=ocp.args.JsonSave(progress)),
        )

    def save_best(self, step: int, weights: list[Any], metrics: dict[str, Any]) -> None:
        """Keep these weights as the best so far."""
        self._latest.wait_until_finished()
        self._best.save(
            step,
            args=ocp.args.Composite(weights=ocp.args.StandardSave(weights), progress=ocp.args.JsonSave(metrics)),
        )

    def restore(self, like: State) -> tuple[State, dict[str, Any]] | None:
        """The latest state and its progress, or None when there is none."""
        step = self._latest.latest_step()
        if step is None:
            return None
        restored = self._latest.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, _tree(like))),
                progress=ocp.args.JsonRestore(),
            ),
        )
        flat = jax.tree.leaves(restored["state"])
        return jax.tree.unflatten(jax.tree.structure(like), flat), restored["progress"]

    def best(self, like: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The best weights and their metrics."""
        self._best.wait_until_finished()
        restored = self._best.restore(
            self._best.latest_step(),
            args=ocp.args.Composite(
                weights=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like)),
                progress=ocp.args.JsonRestore(),
            ),
        )
        return list(restored["weights"]), restored["progress"]

    def leaving(self, step: int, stopped: bool) -> bool:
        """Whether to save and go after ``step``: this process alone, or all of them at the same step.

        With several processes a SIGTERM to any of them reaches jax.distributed's preemption service, which names the
        step at which all stop; a process that left by itself would leave the others waiting.
        """
        if jax.process_count() > 1:
            return bool(self._latest.reached_preemption(step))
        return stopped

    def close(self) -> None:
        """Wait for the disk."""
        self._latest.close()
        self._best.close()


def _tree(state: State) -> list[Any]:
    """Plain lists: Orbax stores containers by name, and optax's are its own affair."""
    return jax.tree.leaves(state)


def _manager(folder: Path, keep: int) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
    return ocp.CheckpointManager(folder.absolute(), options=options)
