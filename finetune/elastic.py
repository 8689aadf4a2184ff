"""`torchrun` and `accelerate launch` with exit codes that a Job understands.

    python -m finetune.elastic torchrun --nproc-per-node 2 -m finetune.cli sft --config …
    python -m finetune.elastic accelerate --config_file configs/finetune/accelerate/fsdp2.yaml -m finetune.cli sft …

Both starters turn every failure of a process into exit code 1, and at SIGTERM they kill the processes without asking
how they ended. Here SIGTERM is handed on, the processes save and leave with 75, and so does this one: a Pod that was
preempted looks like one, and a config that is wrong (2, 64) fails the Job at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from types import FrameType

from runs.console import guard
from runs.environment import prepare_process
from runs.errors import ExitCode, UsageError, unknown_name

FINAL = (ExitCode.USAGE, ExitCode.DATA)


def exit_code(codes: Iterable[int]) -> int:
    """One exit code for several processes: a final fault, else 75 where a process asked for it, else 1.

    A process that is ended because another one left first (a negative code, a broken connection) says nothing.
    """
    found = set(codes)
    for final in FINAL:
        if final in found:
            return int(final)
    return int(ExitCode.PREEMPTED) if ExitCode.PREEMPTED in found else int(ExitCode.ERROR)


def run(starter: str, arguments: Sequence[str]) -> int:
    """Start the processes, wait for them, and give their exit code.

    Raises:
        UsageError: the starter is neither of the two.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    start = _starter(starter)
    # The agent leaves this signal to us: its own handler would kill the processes.
    os.environ["PET_SIGNALS_TO_HANDLE"] = "SIGINT,SIGHUP,SIGQUIT"
    signal.signal(signal.SIGTERM, _hand_on)
    try:
        start(arguments)
    except ChildFailedError as error:
        return exit_code(failure.exitcode for failure in error.failures.values())
    except SignalException:
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.DONE)


def _starter(name: str) -> Callable[[Sequence[str]], None]:
    if name == "torchrun":
        from torch.distributed import run as torchrun

        return lambda arguments: torchrun.run(torchrun.parse_args(list(arguments)))  # type: ignore[no-untyped-call]
    if name == "accelerate":
        from accelerate.commands.launch import launch_command, launch_command_parser

        return lambda arguments: launch_command(launch_command_parser().parse_args(list(arguments)))
    raise unknown_name("starter", name, ["torchrun", "accelerate"])


def _hand_on(number: int, frame: FrameType | None) -> None:
    """Send the signal to the processes; the agent waits for them as before."""
    for child in _children(os.getpid()):
        os.kill(child, number)


def _children(parent: int) -> list[int]:
    with open(f"/proc/{parent}/task/{parent}/children") as listed:  # noqa: PTH123
        return [int(child) for child in listed.read().split()]


def main() -> None:
    """Entry point of ``python -m finetune.elastic``."""
    prepare_process()

    def action() -> int:
        if len(sys.argv) < 2:
            raise UsageError("Name a starter: torchrun or accelerate.", mend="See docs/distributed.md.")
        return run(sys.argv[1], sys.argv[2:])

    sys.exit(guard(action))


if __name__ == "__main__":
    main()
