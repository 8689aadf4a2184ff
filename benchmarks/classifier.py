"""The safety classifier's speed against PyTorch and ONNX Runtime, same weights and rows, interleaved in one run.

    uv run python benchmarks/classifier.py [--quick] [--busy] [--json FILE]

Latency of one text, texts a second at real lengths, training steps, and the share of the matrix peak. Every library
has a process of its own and waits while another has its turn. The machine's load moves the absolute figures; quote the
ratios.
``--json`` keeps the results, idle and busy apart; `scripts/update_benchmarks.py` writes docs/benchmarks.md from them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from runs.environment import hardware, prepare_process

prepare_process()

import numpy as np

from benchmarks.classifier_report import SHAPES, Entrant, Results, Run, report
from benchmarks.classifier_rows import MAX_TOKENS, Contestant, Setting, forward_flops
from benchmarks.classifier_timing import QUICK, Sizes, Tasks, percentile
from benchmarks.machine import busy, processor
from runs.memory import keep_freed_memory

PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "PyTorch eager float32": ("torch", {"bf16": False, "compiled": False}),
    "PyTorch eager bfloat16": ("torch", {"bf16": True, "compiled": False}),
    "torch.compile float32": ("torch", {"bf16": False, "compiled": True}),
    "torch.compile bfloat16": ("torch", {"bf16": True, "compiled": True}),
    "ONNX Runtime float32": ("onnx", {"int8": False}),
    "ONNX Runtime int8": ("onnx", {"int8": True}),
}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    f"ours {precision}": ("ours", {"precision": precision}) for precision in ("float32", "bfloat16", "int8")
}
LATENCIES = ("latency_short", "latency_stream")
BATCHED = ("batch_ids", "batch_texts", "full_short", "full_long")


class Unavailable(RuntimeError):
    """A contestant cannot be measured; the message says why."""


def main(arguments: Sequence[str] | None = None) -> Results:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model and few calls: does it run?")
    parser.add_argument("--busy", action="store_true", help="beside two processes that compute without pause")
    parser.add_argument("--json", type=Path, help="keep the results here, beside those of the other condition")
    parser.add_argument("--rounds", type=int, help="turns of each contestant")
    parser.add_argument("--only", nargs="+", default=[], help="contestants whose name begins so")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = sizes.model_copy(update={"rounds": options.rounds})
    chosen = [name for name in PEERS | OURS if name.startswith(tuple(options.only) or "")]
    with tempfile.TemporaryDirectory() as folder, busy(2 if options.busy else 0):
        run = measure(make_setting(Path(folder), tiny=options.quick), sizes, chosen, busy=options.busy)
    condition = "busy" if options.busy else "idle"
    kept: dict[str, Run] = {}
    if options.json is not None and options.json.exists():
        kept = dict(Results.model_validate_json(options.json.read_bytes()).runs)
    results = Results(runs={**kept, condition: run})
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")
    print(report(Results(runs={condition: run})))
    return results


def measure(setting: Setting, sizes: Sizes, names: Sequence[str], *, busy: bool) -> Run:
    """All measurements of the contestants ``names``."""
    load = os.getloadavg()[0]
    board = Board(setting, sizes, names, busy=busy)
    try:
        board.check()
        for task in (*LATENCIES, *BATCHED, *(f"training_{place}" for place in range(len(sizes.training)))):
            board.play(task)
    finally:
        board.close()
    return board.run(load)


class Board:
    """Starts the workers, gives turns, keeps the scores."""

    def __init__(self, setting: Setting, sizes: Sizes, names: Sequence[str], *, busy: bool) -> None:
        self.setting, self.sizes = setting, sizes
        contestants = {name: (PEERS | OURS)[name] for name in names}
        families = sorted({family for family, _ in contestants.values()} | {"ours"})
        self.workers = {family: Worker(family, setting, sizes, busy=busy) for family in families}
        self.family = {name: family for name, (family, _) in contestants.items()}
        self.arguments = {name: arguments for name, (_, arguments) in contestants.items()}
        self.entrants = {name: Entrant(ours=name in OURS, precision=name.rpartition(" ")[2]) for name in names}
        self.latency: dict[str, dict[str, dict[str, list[float]]]] = {}
        self.rates: dict[str, dict[str, list[float]]] = {}
        self.peaks: dict[str, dict[str, dict[str, list[float]]]] = {}

    def check(self) -> None:
        """Open every contestant, compare its logits with ours in float32, let peers choose their batch."""
        reference = None
        for name in sorted(self.entrants, key=lambda name: name != "ours float32"):
            try:
                self._ask(name, "open", self.arguments[name])
                logits = self._ask(name, "agreement")
                batch = self._ask(name, "tune")
            except Unavailable as reason:
                self.entrants[name] = self.entrants[name].model_copy(update={"unavailable": {"all": str(reason)}})
                continue
            reference = logits if name == "ours float32" else reference
            error = None if reference is None else float(np.abs(logits - reference).mean())
            self.entrants[name] = self.entrants[name].model_copy(update={"batch": batch, "logit_error": error})

    def play(self, task: str) -> None:
        """All rounds of one measurement, the contestants in turn, and the matrix peaks between them."""
        playing = [name for name, entrant in self.entrants.items() if self._takes_part(task, entrant)]
        for number in range(-1, self.sizes.rounds):  # the first turn compiles and is not counted
            for name in [name for name in playing if task not in self.entrants[name].unavailable]:
                try:
                    found = self._ask(name, task)
                except Unavailable as error:
                    self.entrants[name].unavailable[task] = str(error)
                    self.rates.get(task, {}).pop(name, None)
                    continue
                if number >= 0:
                    self._note(task, name, found)
            if number >= 0 and task == "full_short":
                self._note_peaks()

    def run(self, load: float) -> Run:
        """The scores."""
        from safety_classifier.quantisation import resolve_precision

        return Run(
            date=time.strftime("%Y-%m-%d"),
            load_average=load,
            hardware={**hardware(), "processor": processor()},
            packages={name: metadata.version(name) for name in ("torch", "onnxruntime", "jaxlib", "tokenizers")},
            sizes=self.sizes,
            served=resolve_precision("auto"),
            flops=self._flops(),
            entrants=self.entrants,
            latency=self.latency,
            rates=self.rates,
            peaks=self.peaks,
        )

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers.values():
            worker.close()

    @staticmethod
    def _takes_part(task: str, entrant: Entrant) -> bool:
        return "all" not in entrant.unavailable and not (task.startswith("training") and entrant.precision == "int8")

    def _ask(self, name: str, task: str, *arguments: Any) -> Any:
        return self.workers[self.family[name]].ask(name, task, *arguments)

    def _note(self, task: str, name: str, found: list[float]) -> None:
        if task in LATENCIES:
            rounds = self.latency.setdefault(task, {}).setdefault(name, {"p50": [], "p95": []})
            rounds["p50"].append(percentile(found, 50))
            rounds["p95"].append(percentile(found, 95))
            return
        rows = {
            "batch_ids": self.sizes.texts,
            "batch_texts": self.sizes.texts,
            "full_short": self.sizes.full_tokens // 32,
            "full_long": self.sizes.full_tokens // 128,
        }
        rows |= {f"training_{place}": shape[0] for place, shape in enumerate(self.sizes.training)}
        self.rates.setdefault(task, {}).setdefault(name, []).append(rows[task] / statistics.median(found))

    def _note_peaks(self) -> None:
        for library, family in (("JAX", "ours"), ("PyTorch", "torch")):
            for precision in ("float32", "bfloat16", "int8"):
                if family not in self.workers or (family == "torch" and precision == "int8"):
                    continue
                for shape in SHAPES:
                    sides = tuple(int(side) for side in shape.split("x"))
                    value = self.workers[family].ask(precision, "peak", sides)
                    kinds = self.peaks.setdefault(library, {}).setdefault(precision, {})
                    kinds.setdefault(shape, []).append(value / 1e9)

    def _flops(self) -> dict[str, float]:
        encoder = self.setting.shape["config"]["encoder"]
        lengths = {32, 128, *(length for _, length in self.sizes.training)}
        return {str(length): forward_flops(encoder, length) for length in sorted(lengths)}


class Worker:
    """A process with the contestants of one library."""

    def __init__(self, family: str, setting: Setting, sizes: Sizes, *, busy: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, family, setting, sizes, busy), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, name: str, task: str, *arguments: Any) -> Any:
        """What ``task`` returns for the contestant ``name``. Raises `Unavailable`."""
        try:
            self.connection.send((name, task, arguments))
            succeeded, value = self.connection.recv()
        except (EOFError, BrokenPipeError) as error:
            raise Unavailable("its process ended") from error
        if not succeeded:
            raise Unavailable(value)
        return value

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.terminate()


def work(connection: Connection, family: str, setting: Setting, sizes: Sizes, busy: bool) -> None:
    """The life of a worker: answer until the other side hangs up."""
    keep_freed_memory()  # what our trainer and server do; peers get the same
    if family != "ours":
        # Peers get what is best for them: all cores for tokenising, and threads that spin a while where cores are free.
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        if not busy:
            os.environ.pop("OMP_WAIT_POLICY", None)
    tasks = Tasks(setting, sizes)
    contestants: dict[str, Contestant] = {}
    value: Any
    while True:
        try:
            name, task, arguments = connection.recv()
        except EOFError:
            return
        try:
            if task == "open":
                contestants[name] = open_contestant(family, setting, *arguments)
                value = None
            elif task == "peak":
                value = peak(family, name, arguments[0], sizes.peak_seconds)
            elif task.startswith("training_"):
                value = tasks.training(contestants[name], int(task.removeprefix("training_")))
            else:
                value = getattr(tasks, task)(contestants[name])
            answer = True, value
        except (RuntimeError, ValueError, ImportError, OSError) as error:  # becomes the contestant's line in the report
            reason = str(error).strip() or "no reason"
            answer = False, f"{type(error).__name__}: {reason.splitlines()[0][:200]}"
        try:
            connection.send(answer)
        except BrokenPipeError:
            return


def open_contestant(family: str, setting: Setting, arguments: dict[str, Any]) -> Contestant:
    """Load one; its library is imported here and nowhere else."""
    if family == "ours":
        from benchmarks.classifier_ours import Ours

        return Ours(setting, **arguments)
    from benchmarks.classifier_peers import OnnxPeer, TorchPeer

    return TorchPeer(setting, **arguments) if family == "torch" else OnnxPeer(setting, **arguments)


def peak(family: str, precision: Any, shape: tuple[int, int, int], seconds: float) -> float:
    """Operations a second of a matrix product."""
    if family == "ours":
        from benchmarks.classifier_ours import jax_peak

        return jax_peak(shape, precision, seconds)
    from benchmarks.classifier_peers import torch_peak

    return torch_peak(shape, bf16=precision == "bfloat16", seconds=seconds)


def make_setting(folder: Path, *, tiny: bool) -> Setting:
    """MiniLM with random heads and n-gram weights; ``tiny`` keeps its vocabulary and little else."""
    import jax

    from safety_classifier.encoder import EncoderConfig
    from safety_classifier.labels import LABELS
    from safety_classifier.model import ModelConfig, build
    from safety_classifier.pretrained import BUNDLED, encoder_config, encoder_folder, load_encoder
    from safety_classifier.weights import arrays_of, write_arrays

    source = encoder_folder(BUNDLED)
    encoder = encoder_config(source)
    if tiny:
        encoder = EncoderConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    config = ModelConfig(encoder=encoder, gram_bits=10 if tiny else 18, max_tokens=MAX_TOKENS)
    model = build(config, len(LABELS.names))
    if not tiny:
        load_encoder(model.encoder, source)
    model.wide[...] = 0.1 * jax.random.normal(jax.random.key(1), model.wide.shape)
    write_arrays(folder / "weights.safetensors", arrays_of(model))
    shape = f'{{"config": {config.model_dump_json()}, "heads": {len(LABELS.names)}}}'
    (folder / "shape.json").write_text(shape, encoding="utf-8")
    shutil.copy(source / "tokenizer.json", folder)
    return Setting(folder)


if __name__ == "__main__":
    main()
