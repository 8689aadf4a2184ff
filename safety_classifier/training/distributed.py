"""One process or many: joining ``jax.distributed`` when the launcher says so."""

from __future__ import annotations

import os

MARKS = ("JAX_COORDINATOR_ADDRESS", "TPU_WORKER_HOSTNAMES", "SLURM_JOB_NUM_NODES", "OMPI_COMM_WORLD_SIZE")
"""Environment variables by which a launcher announces several processes."""


def join_cluster() -> None:
    """Initialise ``jax.distributed`` when one of `MARKS` announces more than one process.

    ``JAX_COORDINATOR_ADDRESS`` goes with ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` (an Indexed Job's completion
    index serves as the latter); under TPU, Slurm and MPI JAX reads the cluster's own variables. On CPU the
    collectives are gloo's.
    """
    import jax

    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        if os.environ.get("JAX_PLATFORMS", "") == "cpu":
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
        index = os.environ.get("JAX_PROCESS_ID", os.environ.get("JOB_COMPLETION_INDEX", "0"))
        jax.distributed.initialize(address, int(os.environ.get("JAX_NUM_PROCESSES", "1")), int(index))
    elif _several():
        jax.distributed.initialize()


def _several() -> bool:
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    nodes = os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("OMPI_COMM_WORLD_SIZE") or "1"
    return "," in hosts or int(nodes) > 1
