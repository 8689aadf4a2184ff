"""The processes that train together: who is first, what all agree on, when all stop.

One process needs nothing. Under `torchrun`, `accelerate launch`, or an Indexed Job that sets ``RANK``, ``WORLD_SIZE``,
``MASTER_ADDR`` and ``MASTER_PORT``, every process runs the same command. The first one owns the folder: it alone locks,
writes and speaks; a fault that it finds is raised in all of them, so that none waits for another that has left.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from runs.errors import UsageError, UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Cluster:
    """The processes of a run.

    Args:
        rank: this one's number, from 0.
        size: how many there are.
        local_rank: this one's number on its machine: its GPU.
        sharded: whether FSDP2 cuts the weights into parts; also when `accelerate launch` asks for it.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, *, sharded: bool = False) -> None:
        self.rank, self.size, self.local_rank, self.sharded = rank, size, local_rank, sharded

    @property
    def first(self) -> bool:
        """Whether this process owns the folder."""
        return self.rank == 0

    @property
    def spread(self) -> bool:
        """Whether there is more than one process."""
        return self.size > 1

    def device(self, name: str) -> str:
        """The device of this process where the config says ``auto`` or ``cuda``: its own GPU."""
        import torch

        if self.spread and name in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local_rank}"
        return name

    def join(self, device: torch.device) -> None:
        """Meet the other processes: gloo on CPUs, NCCL on GPUs.

        Raises:
            UserError: there are fewer GPUs than processes on this machine, or the others do not come.
        """
        if not self.spread:
            return
        import torch
        from accelerate import PartialState

        os.environ.setdefault("LOCAL_RANK", str(self.local_rank))
        if self.sharded:
            # Rank 0 alone would load the weights, and the first evaluation needs them everywhere.
            os.environ |= {
                "ACCELERATE_USE_FSDP": "true",
                "FSDP_VERSION": "2",
                "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
            }
            os.environ.setdefault("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
        if device.type == "cuda":
            if self.local_rank >= torch.cuda.device_count():
                raise UsageError(
                    f"Process {self.local_rank} of this machine has no GPU: {torch.cuda.device_count()} are visible.",
                    mend="Start one process a GPU (--nproc-per-node).",
                )
            torch.cuda.set_device(self.local_rank)
        elif device.type == "cpu":
            os.environ.setdefault("ACCELERATE_USE_CPU", "true")
        try:
            PartialState(cpu=device.type == "cpu")
        except (torch.distributed.DistError, socket.gaierror) as error:
            address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise UserError(
                f"The {self.size} processes of this run did not meet at {address}.",
                why=str(error).splitlines()[0],
                mend="Check that all of them run, and that the address resolves (a headless Service in Kubernetes).",
            ) from error

    def wait(self) -> None:
        """Until all processes are here."""
        if self.spread:
            import torch

            torch.distributed.barrier()

    def decided(self, decide: Callable[[], T]) -> T:
        """What ``decide`` gives in the first process, in all of them; a `UserError` of its is raised in all."""
        if not self.spread:
            return decide()
        import torch

        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = decide()
            except UserError as error:
                box[1] = error
        torch.distributed.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return cast(T, box[0])

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in one of the processes; all of them must ask."""
        if not self.spread:
            return flag
        import torch

        value = torch.tensor([float(flag)], device="cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX)
        return bool(value.item())


def announced(*, fsdp: bool = False) -> Cluster:
    """The cluster that the environment announces; one process where it announces none.

    Args:
        fsdp: whether the config asks for FSDP2.

    Raises:
        UsageError: the variables do not fit together.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        return Cluster()
    if "RANK" not in os.environ:
        raise UsageError(
            f"WORLD_SIZE is {size}, but RANK is not set.", mend="Start with torchrun or accelerate launch."
        )
    rank = _number("RANK", 0)
    if rank >= size:
        raise UsageError(f"RANK {rank} is not below WORLD_SIZE {size}.", mend="Ranks start at 0.")
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("true", "1")
    return Cluster(rank, size, _number("LOCAL_RANK", 0), sharded=fsdp or asked)


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdigit():
        raise UsageError(f"{name} is {value!r}, not a number.")
    return int(value)


class Rhythm(NamedTuple):
    """How a step's rows are shared."""

    accumulation: int
    """Forward passes of each process per optimiser step."""
    rows: int
    """Rows of one optimiser step, over all processes."""
    whole: bool
    """Whether an epoch is cut to whole steps."""


def rhythm(cluster: Cluster, *, per_device: int, accumulation: int, total: int | None) -> Rhythm:
    """Share the rows of an optimiser step among the processes.

    Args:
        cluster: the processes.
        per_device: rows in one forward pass.
        accumulation: forward passes per step, where ``total`` does not say.
        total: rows of one step over all processes, or None.

    Raises:
        UsageError: ``total`` cannot be cut into equal forward passes.
    """
    if total is None:
        return Rhythm(accumulation, per_device * accumulation * cluster.size, cluster.spread)
    if total % (per_device * cluster.size):
        raise UsageError(
            f"train.global_batch_size {total} cannot be cut into forward passes of {per_device} rows "
            f"for {cluster.size} process{'es' if cluster.spread else ''}.",
            mend=f"Make it a multiple of {per_device * cluster.size}, or lower train.per_device_train_batch_size.",
        )
    return Rhythm(total // (per_device * cluster.size), total, True)
