"""How the work scales over processes of this machine, and how fast it stops: uv run python benchmarks/scaling.py.

    classifier   steps per second of one and of two jax.distributed processes, at the same rows per step
    evaluation   answers per second of one process and of N shards that run together
    stop         seconds from SIGTERM to the exit of every process, its exit code, and what was lost

Each of n processes has a core of its own (on Linux, by its affinity), so that two have twice what one has. Efficiency
is the rate of n processes over n times the rate of one. Beside it stands one process with all cores. A second machine
adds a network, which this does not have. Every command runs in processes of its own.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import itertools
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from runs.environment import hardware
from runs.job import Shard
from runs.paths import PROJECT_ROOT

Processes = list[subprocess.Popen[bytes]]

TINY = ["--config", "configs/safety_classifier/tiny.yaml", "--set", "train.epochs=8"]
MINILM = ["--config", "configs/safety_classifier/minilm.yaml"]
MINILM += ["--set", "data.sources=configs/safety_classifier/sources-synthetic.yaml", "--set", "artifact=null"]
MINILM += ["--set", "model.max_tokens=64", "--set", "train.buckets=[64]"]
MINILM += ["--set", "track.report_to=[]", "--set", "train.augment=null"]
CLASSIFIERS = {
    "tiny": (TINY, 10),
    "minilm-512": ([*MINILM, "--set", "train.tokens_per_batch=512"], 5),
    "minilm-4096": ([*MINILM, "--set", "train.tokens_per_batch=4096"], 3),
}
"""Config, and how many lines of its log (ten steps each) are timed; the first one compiles and is left out."""

LIMIT_S = 900.0

STARTED: Processes = []
"""Every process, so that none outlives the benchmark."""

SAID: dict[int, str] = {}
"""What each process wrote to stderr, by its number."""


def main() -> None:
    """Measure, print, and write JSON."""
    parts = {"classifier": classifier, "evaluation": evaluation, "stop": stop}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(parts), action="append")
    parser.add_argument("--prompts", type=int, default=24, help="Prompts of the evaluation.")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/scaling.json"))
    chosen = parser.parse_args()
    found: dict[str, Any] = json.loads(chosen.output.read_text()) if chosen.only and chosen.output.is_file() else {}
    found |= {"hardware": hardware(), "pinned": hasattr(os, "sched_setaffinity")}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    atexit.register(lambda: [process.kill() for process in STARTED if process.poll() is None])
    for name in chosen.only or parts:
        load, began = round(os.getloadavg()[0], 1), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found[name] = parts[name](Path(folder), chosen.prompts)
        # What else the machine was doing in the minute before.
        found[name] |= {"load_before": load, "seconds": round(time.monotonic() - began)}
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def cores() -> list[int]:
    """The processor cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def start(command: list[str], use: list[int], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process on the cores ``use``."""
    pin: Callable[[], None] | None = None
    if hasattr(os, "sched_setaffinity"):
        pin = functools.partial(os.sched_setaffinity, 0, use)
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": str(len(use)), "CAI_METRICS": "", **environment},
        cwd=PROJECT_ROOT,
        preexec_fn=pin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    STARTED.append(process)
    return process


def program(package: str, *words: str) -> list[str]:
    """A command of the project, by this Python."""
    return [sys.executable, "-c", f"from {package}.cli import main; main()", *words]


def free_port() -> int:
    """A port of the loopback interface."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# Training the classifier


def classifier(work: Path, _: int) -> dict[str, Any]:
    """Steps per second of one process and of two; the same rows a step, so the same work."""
    found = {}
    for name, (_, lines) in CLASSIFIERS.items():
        rates: dict[str, float] = {}
        for label, count, use in (("one", 1, cores()[:1]), ("two", 2, cores()[:2]), ("one with all cores", 1, cores())):
            processes = train(work / f"{name}-{label.replace(' ', '-')}", name, count, use)
            rates[label] = rate(work / f"{name}-{label.replace(' ', '-')}" / "log.jsonl", processes, lines)
            end(processes)
        found[name] = {"steps_per_second": rates, "efficiency": round(rates["two"] / (2 * rates["one"]), 3)}
    return {"trainings": found}


def train(folder: Path, name: str, count: int, use: list[int]) -> Processes:
    """A classifier on ``count`` processes that share the cores ``use``; it has more steps than are waited for."""
    words = [
        "train",
        *CLASSIFIERS[name][0],
        "--set",
        "checkpoints.every=100000",
        "--quiet",
        "--output-dir",
        str(folder),
    ]
    together = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    shares = [use[index::count] for index in range(count)]
    return [
        start(
            program("safety_classifier", *words),
            share,
            {"JAX_PLATFORMS": "cpu", "JOB_COMPLETION_INDEX": str(index), **(together if count > 1 else {})},
        )
        for index, share in enumerate(shares)
    ]


def rate(log: Path, processes: Processes, lines: int) -> float:
    """Steps per second by the times at which ``lines`` lines reach the log: the median between neighbours."""
    seen: list[tuple[float, int]] = []
    while len(seen) <= lines:
        alive(processes)
        steps = logged(log)
        if steps and (not seen or steps[-1] > seen[-1][1]):
            seen.append((time.monotonic(), steps[-1]))
        time.sleep(0.01)
    pairs = itertools.pairwise(seen[1:])
    return round(statistics.median((after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs), 3)


def logged(log: Path) -> list[int]:
    """The training steps that a log holds so far."""
    lines = log.read_text().splitlines() if log.is_file() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}") and '"train/loss"' in line]


# Shards of the evaluation


def evaluation(work: Path, prompts: int) -> dict[str, Any]:
    """Answers per second, as wall time with loading, and while decoding alone."""
    both = cores()[:2]
    seconds, decoding = {}, {}
    for label, shares in (("one", [both[:1]]), ("two", [[core] for core in both]), ("one with all cores", [cores()])):
        folders = [work / label.replace(" ", "-") / str(index) for index in range(len(shares))]
        shards = [Shard(index=i, count=len(shares)) if len(shares) > 1 else None for i in range(len(shares))]
        began = time.monotonic()
        processes = [answer(f, prompts, s, use) for f, s, use in zip(folders, shards, shares, strict=True)]
        for process in processes:
            finished(process, 0)
        seconds[label] = time.monotonic() - began
        manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
        decoding[label] = round(sum(found["metrics"]["tokens_per_second"]["base"] for found in manifests), 1)
    return {
        "prompts": prompts,
        "answers_per_second": {label: round(prompts / spent, 3) for label, spent in seconds.items()},
        "efficiency": round(seconds["one"] / (2 * seconds["two"]), 3),
        "tokens_per_second": decoding,
        "efficiency_decoding": round(decoding["two"] / (2 * decoding["one"]), 3),
    }


def answer(folder: Path, prompts: int, shard: Shard | None, use: list[int]) -> subprocess.Popen[bytes]:
    """One process of the evaluation."""
    words = ["run", "--models", "base", "--limit", str(prompts), "--batch-size", "8", "--max-new-tokens", "32"]
    words += ["--no-report", "--quiet", "--output-dir", str(folder)]
    return start(program("evaluation", *words, *(["--shard", str(shard)] if shard else [])), use, {})


# SIGTERM


def stop(work: Path, prompts: int) -> dict[str, Any]:
    """Seconds from SIGTERM, sent to one process alone, to the exit of all; and the finished work that was lost."""
    found = {}
    for count in (1, 2):
        folder = work / f"classifier-{count}"
        processes = train(folder, "minilm-512", count, cores()[:2])
        until(processes, folder / "log.jsonl", '"train/loss"')
        found[f"classifier, {count} process{'es' if count > 1 else ''}"] = {
            **end(processes),
            "lost": f"{steps_lost(processes, (folder / 'checkpoints').glob('[0-9]*'))} steps",
        }
    folder = work / "sft"
    processes = finetune(work, folder)
    until(processes, folder / ".work" / "train_log.jsonl", '"loss"')
    found["SFT of 135M, 2 processes"] = {
        **end(processes),
        "lost": f"{steps_lost(processes, (folder / '.work').glob('checkpoint-*'))} steps",
    }
    folder = work / "evaluate"
    processes = [answer(folder, prompts, None, cores())]
    records = folder / ".work" / "answers.jsonl"
    until(processes, records, "}\n")
    seen = len(records.read_bytes().splitlines())
    ended = end(processes)
    kept = [json.loads(line) for line in records.read_bytes().splitlines()]  # a torn line would be no JSON
    found["evaluation, 1 process"] = {**ended, "lost": f"{max(0, seen - len(kept))} answers"}
    return {"runs": found}


def until(processes: Processes, path: Path, text: str) -> None:
    """Wait until a file holds ``text``."""
    while not (path.is_file() and text in path.read_text()):
        alive(processes)
        time.sleep(0.05)


def steps_lost(processes: Processes, checkpoints: Iterable[Path]) -> int:
    """Steps that the processes say they had done, less those of the newest checkpoint."""
    said = re.search(r"Asked to stop at step (\d+)", "".join(SAID[process.pid] for process in processes))
    if said is None:
        sys.exit("No process said at which step it stopped.")
    return int(said[1]) - max(int(path.name.rpartition("-")[2]) for path in checkpoints)


def finetune(work: Path, folder: Path) -> Processes:
    """SFT of the embedded model on two ranks, over a few hundred dialogues that are made here."""
    rows = [f"\n\nHuman: What is {n} plus {n}?\n\nAssistant: That makes {2 * n}, as you may check." for n in range(400)]
    data = work / "dialogues.jsonl"
    data.write_text("".join(json.dumps({"chosen": row}) + "\n" for row in rows))
    run = yaml.safe_load((PROJECT_ROOT / "configs/finetune/smollm2-135m-sft.yaml").read_text())
    run["output_dir"] = str(folder)
    run["data"] |= {"sources": [{"path": str(data)}], "max_rows": None, "max_holdout_rows": 4}
    run["train"] |= {"logging_steps": 1, "save_steps": 1000, "eval_steps": None}
    config = work / "sft.yaml"
    config.write_text(yaml.safe_dump(run))
    ranks = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        start(
            program("finetune", "sft", "--config", str(config), "--quiet"),
            [core],
            {**ranks, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank, core in enumerate(cores()[:2])
    ]


def end(processes: Processes) -> dict[str, Any]:
    """SIGTERM to the last process alone; seconds until all have left, and their exit codes."""
    began = time.monotonic()
    processes[-1].send_signal(signal.SIGTERM)
    seconds = []
    for process in processes:
        finished(process, 75)
        seconds.append(time.monotonic() - began)
    return {"seconds": round(max(seconds), 2), "exit_codes": [process.returncode for process in processes]}


def alive(processes: Processes) -> None:
    """Leave with the words of a process that has ended."""
    for process in processes:
        if process.poll() is not None:
            finished(process, None)


def finished(process: subprocess.Popen[bytes], code: int | None) -> None:
    """Wait; another exit code than ``code`` ends the benchmark with the process's words."""
    _, errors = process.communicate(timeout=LIMIT_S)
    SAID[process.pid] = errors.decode()
    if process.returncode != code:
        sys.exit(f"exit code {process.returncode}: {' '.join(map(str, process.args))}\n{errors.decode()[-3000:]}")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
