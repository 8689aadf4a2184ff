"""One process or many: joining ``jax.distributed`` when the launcher says so."""

from __future__ import annotations

import os
from typing import Any

from runs.errors import UsageError
from runs.job import INDEX

SHUTDOWN_S = 7200
"""How long a process that is done waits for the first one, which calibrates and writes the artifact."""
HEARTBEAT_S = 30
"""Silence after which a process counts as dead, and the others leave to be started again; JAX waits 100 seconds."""
MARKS = ("JAX_COORDINATOR_ADDRESS", "TPU_WORKER_HOSTNAMES", "SLURM_JOB_NUM_NODES", "OMPI_COMM_WORLD_SIZE")
"""Environment variables by which a launcher announces several processes."""


def join_cluster() -> None:
    """Initialise ``jax.distributed`` when one of `MARKS` announces more than one process.

    ``JAX_COORDINATOR_ADDRESS`` goes with ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` (an Indexed Job's completion
    index serves as the latter); under TPU, Slurm and MPI JAX reads the cluster's own variables. On CPU the
    collectives are gloo's.

    Raises:
        UsageError: the numbers of processes do not fit together.
    """
    import jax

    limits: dict[str, Any] = {"shutdown_timeout_seconds": SHUTDOWN_S, "heartbeat_timeout_seconds": HEARTBEAT_S}
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        if os.environ.get("JAX_PLATFORMS", "") == "cpu":
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
        count = _number("JAX_NUM_PROCESSES", "1")
        index = _number("JAX_PROCESS_ID", os.environ.get(INDEX, "0"))
        if index >= count:
            raise UsageError(
                f"Process {index} is not one of {count}: they are numbered from 0.",
                mend=f"JAX_NUM_PROCESSES must be the Job's completions; JAX_PROCESS_ID (or {INDEX}) is below it.",
            )
        jax.distributed.initialize(address, count, index, **limits)
    elif _several():
        jax.distributed.initialize(**limits)


def _number(name: str, default: str) -> int:
    value = os.environ.get(name, default)
    if not value.isdigit():
        raise UsageError(f"{name} is {value!r}, not a number.")
    return int(value)


def _several() -> bool:
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    nodes = os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("OMPI_COMM_WORLD_SIZE") or "1"
    return "," in hosts or int(nodes) > 1
