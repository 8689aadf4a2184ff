"""Write the cost table of docs/kubernetes.md: `uv run python scripts/kubernetes_costs.py`.

Times are estimates from arithmetic and memory bandwidth, and prices are list prices: both stand here, with their
source, so that anyone can put in their own and run it again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "kubernetes.md"
BLOCK = re.compile(r"(<!-- costs:begin -->\n).*?(<!-- costs:end -->)", re.DOTALL)

PRICED = "2025-10"
"""Month of the list prices below (US regions, US dollars)."""

SPOT_DISCOUNT = (0.60, 0.91)
"""Least and greatest discount of Spot for machines and GPUs as cloud.google.com/spot-vms/pricing gave them.

The page's newest version promises no least discount, and prices that change up to once a day.
"""

MANAGEMENT = 0.10
"""A cluster, an hour: cloud.google.com/kubernetes-engine/pricing."""

FILESTORE = 0.16 * 1024 / 730
"""1 TiB of Filestore basic HDD, an hour: cloud.google.com/filestore/pricing ($0.16 per GiB and month)."""


class Machine(NamedTuple):
    """A machine type with its accelerators."""

    name: str
    hourly: float
    """List price on demand, dollars an hour."""
    source: str
    flops: float
    """Dense bfloat16 operations a second of all its accelerators, by the maker's data sheet."""
    bandwidth: float
    """Bytes a second of its memory, by the maker's data sheet."""


PAGE_GPU, PAGE_TPU = "cloud.google.com/compute/vm-instance-pricing", "cloud.google.com/tpu/pricing"
L4 = Machine("g2-standard-8 (1 × L4)", 0.8536, PAGE_GPU, 121e12, 300e9)
A100 = Machine("a2-highgpu-2g (2 × A100 40 GB)", 7.3468, PAGE_GPU, 2 * 312e12, 2 * 1555e9)
TPU = Machine("ct6e-standard-4t (4 × TPU v6e)", 4 * 2.70, PAGE_TPU, 4 * 918e12, 4 * 1640e9)

GEMMA, MINILM = 2.5e9, 22.7e6
"""Parameters of gemma-2b-it and of the classifier's encoder."""

TRAINING_SHARE, DECODING_SHARE = 0.25, 0.4
"""Share of the peak that a run of this size is taken to reach; the largest uncertainty of the table."""

STARTUP_H = 10 / 60
"""A node is made, the image is pulled, the weights are read."""


class Work(NamedTuple):
    """One Job of an overlay: on what, with how many Pods, for how long."""

    job: str
    machine: Machine
    pods: int
    hours: float


def training_hours(parameters: float, tokens: float, machine: Machine, pods: int, *, per_token: float) -> float:
    """Hours to train: ``per_token`` operations per parameter and token, at `TRAINING_SHARE` of the peak."""
    return per_token * parameters * tokens / (machine.flops * pods * TRAINING_SHARE) / 3600


def decoding_hours(parameters: float, tokens: float, machine: Machine, pods: int, *, batch: int) -> float:
    """Hours to decode: each step reads the bfloat16 weights once for ``batch`` rows."""
    steps = tokens / batch
    return steps * 2 * parameters / (machine.bandwidth * pods * DECODING_SHARE) / 3600


def works() -> list[Work]:
    """The Jobs of gke-gpu and gke-tpu with the shipped configs of gemma-2b-it and of the classifier."""
    sft = 20_000 * 250  # rows, mean tokens of a dialogue
    revision = 8_500 * (256 + 2 * (128 + 256))  # prompts; an answer, twice a critique and a revision
    dpo = 7_000 * 2 * 300 * 4 / 3  # pairs, both sides; the reference is a third more
    answers = 248 * 3 * 96
    # LoRA with recomputed activations: two passes forward and one back through frozen weights, 2 operations each.
    return [
        Work("sft", L4, 2, training_hours(GEMMA, sft, L4, 2, per_token=6)),
        Work("critique-revision", L4, 4, decoding_hours(GEMMA, revision, L4, 4, batch=16)),
        Work("dpo", L4, 2, training_hours(GEMMA, dpo, L4, 2, per_token=6)),
        Work("evaluate", L4, 4, decoding_hours(GEMMA, answers, L4, 4, batch=32)),
        Work("classifier (gke-gpu)", L4, 2, training_hours(MINILM, 1.5 * 1e6 * 64, L4, 2, per_token=6)),
        Work("classifier (gke-tpu)", TPU, 2, training_hours(MINILM, 1.5 * 1e6 * 64, TPU, 2, per_token=6)),
        Work("sft with gpu-a100", A100, 2, training_hours(GEMMA, sft, A100, 2, per_token=6)),
    ]


def row(work: Work) -> str:
    """A line of the table."""
    billed = work.hours + STARTUP_H
    price = billed * work.pods * work.machine.hourly
    low, high = (price * (1 - discount) for discount in reversed(SPOT_DISCOUNT))
    minutes = f"{60 * work.hours:.0f}" if 60 * work.hours >= 1 else "< 1"
    return (
        f"| {work.job} | {work.pods} × {work.machine.name} | {minutes} | {60 * billed:.0f} "
        f"| {price:.2f} | {low:.2f} to {high:.2f} |"
    )


def table() -> str:
    """What stands between the markers of docs/kubernetes.md."""
    found = works()
    chain = sum(w.hours + STARTUP_H for w in found[:4])
    machines = "; ".join(f"{m.name} ${m.hourly:.2f} an hour ({m.source})" for m in (L4, A100, TPU))
    lines = [
        "| Job | Pods | compute, min | billed, min | list price, $ | Spot, $ |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *map(row, found),
        "",
        f"Beside it, for the {chain:.1f} hours of the chain: ${chain * MANAGEMENT:.2f} for the cluster's management "
        f"and ${chain * FILESTORE:.2f} for 1 TiB of Filestore, which goes on costing ${FILESTORE * 730:.0f} a month "
        "until its claim is deleted.",
        "",
        f"List prices of {PRICED}, US regions: {machines}. The Spot column takes {100 * SPOT_DISCOUNT[0]:.0f} to "
        f"{100 * SPOT_DISCOUNT[1]:.0f} % off (cloud.google.com/spot-vms/pricing); the price moves up to daily, and "
        "TPUs may have less of a discount.",
        "",
    ]
    return "\n".join(lines)


def updated(page: str) -> str:
    """``page`` with its cost block written anew."""
    return BLOCK.sub(lambda found: found.group(1) + table() + found.group(2), page)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
    print(table())
