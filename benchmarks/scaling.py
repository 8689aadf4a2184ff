"""How the work scales over processes of this machine, and how fast it stops: uv run python benchmarks/scaling.py.

    classifier   steps per second of one and of two jax.distributed processes, at the same rows per step
    evaluation   answers per second of one process and of N shards that run together
    stop         seconds from SIGTERM to the exit of every process, and that it was exit code 75

Efficiency is the rate of n processes over n times the rate of one. On one machine n processes share its cores: what is
measured is the overhead of the distribution, not the gain of more machines. Every command runs in processes of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runs.environment import hardware
from runs.job import Shard

CLASSIFIER = [sys.executable, "-c", "from safety_classifier.cli import main; main()", "train"]
CLASSIFIER += ["--config", "configs/safety_classifier/tiny.yaml"]
EVALUATE = [sys.executable, "-c", "from evaluation.cli import main; main()", "run", "--no-report", "--models", "base"]


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["classifier", "evaluation", "stop"], action="append")
    parser.add_argument("--steps", type=int, default=120, help="Training steps.")
    parser.add_argument("--prompts", type=int, default=48, help="Prompts of the evaluation.")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/scaling.json"))
    chosen = parser.parse_args()
    parts = chosen.only or ["classifier", "evaluation", "stop"]
    found: dict[str, Any] = {"hardware": hardware()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if "classifier" in parts:
            found["classifier"] = classifier(work, chosen.steps)
        if "evaluation" in parts:
            found["evaluation"] = evaluation(work, chosen.prompts, chosen.shards)
        if "stop" in parts:
            found["stop"] = {str(count): stop(work, count) for count in (1, 2)}
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def classifier(work: Path, steps: int) -> dict[str, Any]:
    """Steps per second of one and two processes; the same rows a step, so the same work."""
    rates = {}
    for count in (1, 2):
        folder = work / f"classifier-{count}"
        processes = train(folder, count, [f"train.max_steps={steps}"])
        rates[count] = rate(folder / "log.jsonl", processes)
        for process in processes:
            check(process, timeout=3600)
    return {"steps_per_second": rates, "efficiency": round(rates[2] / (2 * rates[1]), 3)}


def train(folder: Path, count: int, overrides: list[str]) -> list[subprocess.Popen[bytes]]:
    """The tiny classifier on ``count`` processes."""
    settings = [word for override in [*overrides, "checkpoints.every=1000"] for word in ("--set", override)]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "CAI_METRICS": ""}
    if count > 1:
        environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    return [
        subprocess.Popen(
            [*CLASSIFIER, "--quiet", "--output-dir", str(folder), *settings],
            env={**environment, "JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for index in range(count)
    ]


def rate(log: Path, processes: list[subprocess.Popen[bytes]]) -> float:
    """Steps per second while ``log`` grows: the median over its lines, without the first two, which compile."""
    seen: list[tuple[float, int]] = []
    while processes[0].poll() is None:
        lines = log.read_text().splitlines() if log.is_file() else []
        steps = [entry["step"] for entry in map(json.loads, lines) if "train/loss" in entry]
        if steps and (not seen or steps[-1] > seen[-1][1]):
            seen.append((time.monotonic(), steps[-1]))
        time.sleep(0.02)
    pairs = list(itertools.pairwise(seen[2:]))
    if not pairs:
        check(processes[0], timeout=60)
        sys.exit("Too few steps to time: raise --steps.")
    return round(statistics.median((after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs), 3)


def evaluation(work: Path, prompts: int, shards: int) -> dict[str, Any]:
    """Answers per second of one process, and of shards that run together: wall time, with loading."""
    one = timed([answer(work / "one", prompts, None)])
    many = timed([answer(work / f"shard-{i}", prompts, Shard(index=i, count=shards)) for i in range(shards)])
    return {
        "prompts": prompts,
        "shards": shards,
        "answers_per_second": {1: round(prompts / one, 3), shards: round(prompts / many, 3)},
        "efficiency": round(one / (shards * many), 3),
    }


def answer(folder: Path, prompts: int, shard: Shard | None) -> subprocess.Popen[bytes]:
    """One process of the evaluation; all together use the machine's cores."""
    arguments = ["--limit", str(prompts), "--batch-size", "8", "--max-new-tokens", "32", "--quiet"]
    if shard is not None:
        arguments += ["--shard", str(shard)]
    threads = max(1, (os.cpu_count() or 1) // (shard.count if shard else 1))
    return subprocess.Popen(
        [*EVALUATE, *arguments, "--output-dir", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def timed(processes: list[subprocess.Popen[bytes]]) -> float:
    """Seconds until all have ended well."""
    began = time.monotonic()
    for process in processes:
        check(process, timeout=3600)
    return time.monotonic() - began


def stop(work: Path, count: int) -> dict[str, Any]:
    """Seconds from SIGTERM (to the last process alone) to the exit of each."""
    folder = work / f"stop-{count}"
    processes = train(folder, count, ["train.max_steps=100000", "train.epochs=1000"])
    while not (folder / "log.jsonl").is_file() or "train/loss" not in (folder / "log.jsonl").read_text():
        if any(process.poll() is not None for process in processes):
            check(processes[0], timeout=60)
        time.sleep(0.2)
    began = time.monotonic()
    processes[-1].send_signal(signal.SIGTERM)
    seconds, codes = [], []
    for process in processes:
        codes.append(process.wait(timeout=600))
        seconds.append(round(time.monotonic() - began, 2))
    return {"seconds": max(seconds), "exit_codes": codes}


def check(process: subprocess.Popen[bytes], *, timeout: float) -> None:
    """Wait; a process that failed shows its words."""
    _, errors = process.communicate(timeout=timeout)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, process.args))}\n{errors.decode()[-3000:]}")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
