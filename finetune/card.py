"""The model card of an adapter, made from the same values as its manifest."""

from __future__ import annotations

from typing import Any

import yaml

from finetune.config import DPORun, RewardRun, RLRun, SFTRun
from inference.families import Family

LIMITS = {
    "sft": (
        "- It imitates answers written by crowd workers and models for a helpful assistant, with their errors.",
        "- It was not trained to refuse anything. Do not use it where harmful requests are to be expected.",
    ),
    "dpo": (
        "- Preferences come from a model that was asked to follow a constitution; they share its blind spots.",
        "- Preference accuracy says how often the adapter ranks held-out pairs as they are labelled. "
        "It does not say that its answers are safe: `evaluate` measures those.",
    ),
    "rl": (
        "- It was trained to please its rewards (see Settings). Where those are wrong, so is it.",
        "- The rewards' own rise is no evidence: look at what was watched beside them, and `evaluate`.",
    ),
    "reward": (
        "- It ranks answers to one prompt. Its numbers have no zero, and rewards of different prompts do not compare.",
        "- A policy that is trained against it finds answers that it rates too high: watch another instrument too.",
    ),
}
SETTINGS = {"lora", "interpolation", "train", "rewards", "watched", "monitors", "early_stopping_patience"}
"""The config's sections that the card shows."""


def render(
    run: SFTRun | DPORun | RewardRun | RLRun,
    *,
    kind: str,
    family: Family,
    inputs: dict[str, Any],
    counts: dict[str, Any],
    metrics: dict[str, Any],
    command: str,
) -> str:
    """The card's text.

    Args:
        run: the resolved config.
        kind: ``sft``, ``dpo``, ``reward`` or ``rl``.
        family: the base.
        inputs: digests of what was read.
        counts: rows and tokens.
        metrics: what was measured; ``eval_…`` are held-out numbers of the stored weights.
        command: makes the adapter again.
    """
    what = {
        "sft": "a LoRA adapter fine-tuned on conversations; the loss covers every assistant turn",
        "rl": "a LoRA adapter trained by reinforcement learning, held to a frozen copy of where it started",
        "reward": "a reward model: a LoRA adapter and a head of one output, trained on preference pairs",
        "dpo": "a LoRA adapter tuned on preference pairs with DPO, against a frozen copy of where it started",
    }[kind]
    sources = "\n".join(
        f"| {source.name} | {source.licence} | `{inputs.get(f'data:{source.name}', '')}` |"
        for source in run.data.sources
    )
    start = (
        f"\nIt starts from the adapter `{run.init_adapter}`."
        if isinstance(run, DPORun | RLRun) and run.init_adapter
        else ""
    )
    if isinstance(run, DPORun) and run.interpolation < 1.0:
        start += f" It stands at {run.interpolation:.0%} of the way from there to the trained weights."
    settings = run.model_dump(mode="json", include=SETTINGS)
    return f"""---
base_model: {family.base.public_id}
library_name: peft
license: {_licence_tag(family.licence)}
tags: [lora, {kind}, constitutional-ai]
---

# {run.output_dir.name} ({family.name})

This is {what}. Base: `{family.base.public_id}`.{start}
The adapter is bound to that base's licence: {family.licence}.

Make it again with

    {command}

## Data

| source | licence | digest |
|---|---|---|
{sources}

{_counts(counts)}

## Measured

Numbers that begin with `eval_` are from held-out rows, whose prompts are in no training row. They were measured
with the stored bfloat16 weights.

| measure | value |
|---|---:|
{_rows(metrics)}

## Settings

```yaml
{yaml.safe_dump(settings, sort_keys=False).rstrip()}
```

## Limits

{chr(10).join(LIMITS[kind])}
- English only. The base is small; it states falsehoods fluently.

`manifest.json` lists every file's sha256, the package versions, the machine and the times. `train_log.jsonl` is the
training log, `train_speed.jsonl` the tokens a second beside it. `config.yaml` is the full config.
"""


def _licence_tag(licence: str) -> str:
    """The hub's tag for a licence; it knows SPDX names in lower case."""
    return licence.lower() if licence in {"Apache-2.0", "MIT"} else "other"


def _counts(counts: dict[str, Any]) -> str:
    rejected = ", ".join(f"{reason} {count}" for reason, count in counts["rows_rejected"].items()) or "none"
    unused = ", ".join(f"{reason} {count}" for reason, count in counts["rows_unused"].items()) or "none"
    return (
        f"{counts['rows_read']:,} rows read; {counts['rows_trained']:,} trained on "
        f"({counts['rows_shortened']:,} of them shortened to whole turns), {counts['rows_held_out']:,} held out. "
        f"Rejected: {rejected}. Not needed: {unused}.\n"
        f"{counts['tokens']:,} tokens, {counts['trained_fraction']:.1%} of them under the loss."
    )


def _rows(metrics: dict[str, Any]) -> str:
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in metrics.items()}
    return "\n".join(f"| {key} | {value} |" for key, value in shown.items() if value is not None)
