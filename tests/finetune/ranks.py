"""Runs trainings one after the other, each with its ranks as forks of this process: torch is imported once.

``python -m tests.finetune.ranks FOLDER JSON``: the list of trainings, each with ``name``, ``stage``, ``size`` and,
if it is to be disturbed, ``signal`` and ``rank`` (sent once a checkpoint is whole). Prints each one's exit codes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


def load() -> None:
    """Import what every rank needs, before the first fork."""
    import trl.trainer.dpo_trainer
    import trl.trainer.sft_trainer  # noqa: F401

    import finetune.dpo
    import finetune.sft
    import finetune.trainers  # noqa: F401
    import inference.loading  # noqa: F401


def rank(folder: Path, plan: dict[str, Any], number: int, port: int) -> int:
    """One rank, in its own process: its exit code."""
    from finetune.config import DPORun, SFTRun
    from finetune.dpo import run_dpo
    from finetune.fit import Options
    from finetune.sft import run_sft
    from runs import config
    from runs.console import Reporter, guard

    if plan["size"] > 1:
        os.environ |= {"RANK": str(number), "WORLD_SIZE": str(plan["size"]), "LOCAL_RANK": str(number)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["CAI_METRICS"] = str(folder / f"{plan['name']}.prom")
    overrides = [f"output_dir={folder / plan['name']}", *plan.get("set", [])]
    model, train = (SFTRun, run_sft) if plan["stage"] == "sft" else (DPORun, run_dpo)

    def action() -> int:
        run = config.load(model, folder / f"{plan['stage']}.yaml", overrides)
        if plan.get("slow"):
            slow_down(plan["slow"])
        train(run, Options(command="a test"), Reporter(quiet=True))  # type: ignore[arg-type, operator]
        return 0

    return guard(action)


def slow_down(seconds: float) -> None:
    """Wait in every step, so that a signal finds the loop at work."""
    from finetune import trainers

    original = trainers.Progress.on_step_begin

    def waiting(self: Any, *rest: Any, **named: Any) -> None:
        time.sleep(seconds)
        original(self, *rest, **named)

    trainers.Progress.on_step_begin = waiting  # type: ignore[method-assign]


def train(folder: Path, plan: dict[str, Any]) -> list[int]:
    """All ranks of one training: their exit codes, as a shell counts them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    children = []
    for number in range(plan["size"]):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = rank(folder, plan, number, port)
            except BaseException:  # noqa: BLE001 (the fork must not run the parent's code)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    if "signal" in plan:
        work = folder / plan["name"] / ".work"
        while not list(work.glob("checkpoint-*/complete.json")):
            time.sleep(0.05)
        time.sleep(plan.get("after", 0.0))
        os.kill(children[plan["rank"]], getattr(signal, plan["signal"]))
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main() -> None:
    """Run the plans; one JSON line each."""
    folder, plans = Path(sys.argv[1]), json.loads(sys.argv[2])
    load()
    for plan in plans:
        began = time.monotonic()
        codes = train(folder, plan)
        sys.stdout.write(
            json.dumps({"name": plan["name"], "codes": codes, "s": round(time.monotonic() - began, 1)}) + "\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
