"""Results of the classifier's benchmark, and their tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from benchmarks.classifier_timing import Sizes
from runs.config import StrictModel

SHAPES = ("1024x384x1536", "2048x2048x2048")
"""Matrix products of which the faster is the peak."""
LATENCY, BATCH, TRAINING = 0.75, 1.5, 1.2
INFERENCE_SHARE, TRAINING_SHARE = 0.60, 0.35

Rounds = dict[str, list[float]]


class Entrant(StrictModel):
    """One row of the tables."""

    ours: bool
    precision: str
    """float32, bfloat16 or int8."""
    batch: int | None = None
    """Rows a call, the fastest that was tried; None where rows are packed."""
    logit_error: float | None = None
    """Mean distance of its logits from ours in float32."""
    unavailable: dict[str, str] = Field(default_factory=dict)
    """Measurement (or "all") to the reason why there is none."""


class Run(StrictModel):
    """One run of the benchmark: a list holds one value per round."""

    date: str
    load_average: float
    """Over the minute before it began."""
    hardware: dict[str, Any]
    packages: dict[str, str]
    sizes: Sizes
    served: str
    """The precision that the product chooses on this machine."""
    flops: dict[str, float]
    """Length to operations of a forward pass."""
    entrants: dict[str, Entrant]
    latency: dict[str, dict[str, Rounds]]
    """Measurement, entrant, p50 or p95: milliseconds."""
    rates: dict[str, Rounds]
    """Measurement, entrant: rows a second."""
    peaks: dict[str, dict[str, Rounds]]
    """Library, precision, shape of the product: GFLOP/s."""


class Results(StrictModel):
    """Runs by the machine's state: ``idle`` or ``busy``."""

    runs: dict[str, Run]


@dataclass(frozen=True)
class Bar:
    """A ratio beside what it should be."""

    name: str
    against: str
    rounds: list[float]
    goal: float
    at_most: bool = False

    @property
    def ratio(self) -> float:
        """Median over the rounds: both sides of each stood minutes apart at most."""
        return statistics.median(self.rounds)

    @property
    def holds(self) -> bool:
        """Whether the ratio is on the right side."""
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal


def bars(run: Run) -> Iterator[Bar]:
    """What is asked of the precision that the product chooses (training: of bfloat16)."""
    served = f"ours {run.served}"
    for task, name in (("latency_short", "batch 1, 32 tokens, p50"), ("latency_stream", "batch 1, real lengths, p50")):
        middle = {entrant: rounds["p50"] for entrant, rounds in run.latency.get(task, {}).items()}
        yield from _against(run, middle, served, name, LATENCY, at_most=True)
    for task, name in (("batch_ids", "batch, from token ids"), ("batch_texts", "batch, from strings")):
        yield from _against(run, run.rates.get(task, {}), served, name, BATCH)
    trained = _training_name(run)
    for place, (rows, length) in enumerate(run.sizes.training):
        name = f"training, {rows} x {length} tokens"
        yield from _against(run, run.rates.get(f"training_{place}", {}), trained, name, TRAINING, "bfloat16")
    yield from _shares(run, served, trained)


def _against(
    run: Run, rounds: Rounds, ours: str, name: str, goal: float, precision: str | None = None, *, at_most: bool = False
) -> Iterator[Bar]:
    """Ours against the best peer (of one precision, where one is asked for)."""
    best = min if at_most else max
    peers = [
        entrant
        for entrant in rounds
        if not run.entrants[entrant].ours and precision in (None, run.entrants[entrant].precision)
    ]
    if not peers or ours not in rounds:
        return
    peer = best(peers, key=lambda entrant: statistics.median(rounds[entrant]))
    ratios = [mine / theirs for mine, theirs in zip(rounds[ours], rounds[peer], strict=True)]
    yield Bar(name, peer, ratios, goal, at_most)


def _shares(run: Run, served: str, trained: str) -> Iterator[Bar]:
    for task, length in (("full_short", 32), ("full_long", 128)):
        name = f"share of the peak, inference at {length} tokens"
        for ours in dict.fromkeys((served, trained)):
            yield from _share(run, task, ours, length, 1, name, INFERENCE_SHARE)
    for place, (_, length) in enumerate(run.sizes.training):
        name = f"share of the peak, training at {length} tokens"
        yield from _share(run, f"training_{place}", trained, length, 3, name, TRAINING_SHARE)


def _share(run: Run, task: str, ours: str, length: int, passes: int, name: str, goal: float) -> Iterator[Bar]:
    """Achieved operations a second over the peak of the same type in the same round."""
    if ours not in run.rates.get(task, {}):
        return
    precision = run.entrants[ours].precision
    peak = [max(values) for values in zip(*run.peaks["JAX"][precision].values(), strict=True)]
    achieved = [passes * rate * run.flops[str(length)] / 1e9 for rate in run.rates[task][ours]]
    shares = [value / top for value, top in zip(achieved, peak, strict=True)]
    yield Bar(name, f"JAX {precision} product", shares, goal)


def _training_name(run: Run) -> str:
    """Training knows no int8."""
    return "ours float32" if run.served == "float32" else "ours bfloat16"


def report(results: Results) -> str:
    """All tables, in Markdown."""
    runs = sorted(results.runs.items(), reverse=True)
    return "\n".join(part for condition, run in runs for part in _run(condition, run))


def _run(condition: str, run: Run) -> Iterator[str]:
    machine = f"{run.hardware.get('processor', run.hardware['machine'])}, {run.hardware['cores']} cores"
    versions = ", ".join(f"{name} {version}" for name, version in run.packages.items())
    yield f"### {condition.capitalize()} machine\n"
    state = "two processes that compute without pause" if condition == "busy" else "nothing of the benchmark's own"
    others = f"load average of others before it: {run.load_average:.1f}"
    yield f"{run.date}, {machine}, beside it: {state} ({others}). {versions}."
    yield f"Medians of {run.sizes.rounds} rounds; every contestant has its turn in each.\n"
    yield table(["", "against", "ratio", "rounds", "bar", ""], [_bar_row(bar) for bar in bars(run)])
    yield "Latency of one text in milliseconds, from token ids:\n"
    yield _latency(run)
    yield f"Texts a second over {run.sizes.texts} texts of real lengths, and the mean error of a logit:\n"
    yield _batch(run)
    yield "Training, examples a second:\n"
    yield _training(run)
    yield "Matrix products in one call, GFLOP/s:\n"
    yield _peaks(run)
    reasons = [
        f"- {name}, {task}: unavailable: {why}"
        for name, entrant in run.entrants.items()
        for task, why in entrant.unavailable.items()
    ]
    if reasons:
        yield "\n".join(reasons) + "\n"


def _bar_row(bar: Bar) -> list[str]:
    sign = "≤" if bar.at_most else "≥"
    spread = f"{min(bar.rounds):.2f}-{max(bar.rounds):.2f}"
    verdict = "pass" if bar.holds else "miss"
    return [bar.name, bar.against, f"{bar.ratio:.2f}", spread, f"{sign} {bar.goal:.2f}", verdict]


def _latency(run: Run) -> str:
    rows = []
    for name in run.entrants:
        cells = [
            _cell(run.latency.get(task, {}).get(name, {}).get(part), 2)
            for task in ("latency_short", "latency_stream")
            for part in ("p50", "p95")
        ]
        rows.append([name, *cells])
    return table(["", "32 tokens p50", "p95", "real lengths p50", "p95"], rows)


def _batch(run: Run) -> str:
    rows = []
    for name, entrant in run.entrants.items():
        tasks = ("batch_ids", "batch_texts", "full_short", "full_long")
        cells = [_cell(run.rates.get(task, {}).get(name), 0) for task in tasks]
        error = "-" if entrant.logit_error is None else f"{entrant.logit_error:.1e}"
        rows.append([name, "packed" if entrant.batch is None else str(entrant.batch), *cells, error])
    return table(["", "batch", "from ids", "from strings", "full rows of 32", "of 128", "error"], rows)


def _training(run: Run) -> str:
    shapes = list(enumerate(run.sizes.training))
    rows = [
        [name, *(_cell(run.rates.get(f"training_{place}", {}).get(name), 1) for place, _ in shapes)]
        for name in run.entrants
        if any(name in run.rates.get(f"training_{place}", {}) for place, _ in shapes)
    ]
    return table(["", *(f"{rows} x {length} tokens" for _, (rows, length) in shapes)], rows)


def _peaks(run: Run) -> str:
    rows = [
        [f"{library} {precision}", *(_cell(rounds.get(shape), 0) for shape in SHAPES)]
        for library, kinds in run.peaks.items()
        for precision, rounds in kinds.items()
    ]
    return table(["", *SHAPES], rows)


def _cell(values: list[float] | None, digits: int) -> str:
    return f"{statistics.median(values):,.{digits}f}" if values else "-"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; the first column is text, the others are numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
