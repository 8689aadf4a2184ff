"""The model card of the classifier, made from the same values as its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safety_classifier.calibration import Calibration
from safety_classifier.labels import Labels
from safety_classifier.model import ModelConfig
from safety_classifier.thresholds import Policy, Thresholds

LICENSED = {"all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)"}
"""Encoders whose licence is known."""

LIMITS = """\
- English only. Texts in other languages get a number that means little: route them elsewhere.
- Data sources differ in style, and a style gives its label away. Read the figures within each source and on sets that
  were never trained on before the pooled ones.
- Sources disagree about what hate is; the head learned a compromise.
- A first stage and a measuring instrument, not a guard of several billion parameters: texts in the escalation band
  belong before a stronger judge or a person.
- A text is judged by its words. Irony, quotation, images, and harm that only a long conversation shows are often
  missed.
- The normaliser undoes the disguises that its authors know. New ones will work until they are added.
- Scores about people must not be the only ground for a decision about them."""


def render(
    *,
    labels: Labels,
    config: ModelConfig,
    calibration: Calibration,
    thresholds: Thresholds,
    data: Mapping[str, Any],
    metrics: Mapping[str, Any],
    evaluation_table: str,
    command: str,
    encoder: str | None,
) -> str:
    """The card's text.

    Args:
        labels: the schema.
        config: the model's shape.
        calibration: as stored.
        thresholds: as stored.
        data: `safety_classifier.data.manifest.Manifest` as JSON; empty when the weights were not trained.
        metrics: ``calibration`` (head to `HeadCalibration` as JSON) and ``quantisation`` (`QuantisationError` as JSON)
            are shown where they are given.
        evaluation_table: Markdown, as `safety_classifier.evaluation.card.card` makes it; empty: not evaluated yet.
        command: makes the classifier again.
        encoder: where the deep branch started; None: from scratch.
    """
    sources = data.get("sources", {})
    return f"""---
library_name: jax
license: {_tag(sources)}
language: en
pipeline_tag: text-classification
tags: [safety, moderation, calibration, flax]
---

# Safety classifier

Gives a text a calibrated probability for each of {len(labels.categories)} harms, says of a response whether it
refuses and whether it does harm in the context of its prompt, and scores responses by preference.

Wide and deep (Cheng et al. 2016): hashed character n-grams in 2^{config.gram_bits} buckets, and a transformer encoder
with {config.encoder.num_hidden_layers} layers, {config.encoder.hidden_size} wide, over windows of {config.max_tokens}
tokens. A normaliser undoes disguises first.
{_start(encoder)}

Make it again with

    {command}

## Heads

| head | kind | headline | a positive label means |
|---|---|---|---|
{_heads(labels)}

A text is *safe* when it is in no category; the probability of that is reported as the product of the complements.

## Data

{_sources(sources)}

A row counts for the heads that its source annotates: unknown is not negative. Exact and near duplicates were removed
across sources, and related rows stay in one split.

## Measured

{evaluation_table.strip() or "Not evaluated yet."}

## Calibration

{_calibration(calibration, metrics.get("calibration", {}))}

## Thresholds

Chosen on rows that neither trained the model nor measure it. In the band, a text should go to a stronger judge:
outside it, at most {thresholds.band_error:.0%} of the decisions were wrong on those rows.

| head | aim | threshold | band | precision | recall | false positives | positives / negatives |
|---|---|---:|---|---:|---:|---:|---:|
{_thresholds(thresholds)}

## Storage

{_storage(metrics.get("quantisation"))}

## Limits

{LIMITS}

`manifest.json` lists every file's sha256, the inputs with their digests, the package versions, the machine and the
times.
"""


def _tag(sources: Mapping[str, Any]) -> str:
    """The hub's tag: the weights are free only when all that they learned from is."""
    return "apache-2.0" if sources and all(entry["ships"] for entry in sources.values()) else "other"


def _start(encoder: str | None) -> str:
    if encoder is None:
        return "The encoder was trained from scratch."
    return f"The encoder started from {LICENSED.get(encoder, encoder)}."


def _heads(labels: Labels) -> str:
    return "\n".join(
        f"| {head.name} | {head.kind} | {'yes' if head.headline else ''} | {_cell(head.definition)} |"
        for head in labels.heads
    )


def _sources(sources: Mapping[str, Any]) -> str:
    if not sources:
        return "None: the weights were not trained."
    splits = list(dict.fromkeys(split for entry in sources.values() for split in entry["splits"]))
    lines = [
        f"| source | licence | {' | '.join(splits)} | positive / labelled rows |",
        f"|---|---|{'---:|' * len(splits)}---|",
    ]
    for name, entry in sources.items():
        rows = " | ".join(f"{entry['splits'].get(split, 0):,}" for split in splits)
        heads = ", ".join(f"{head} {row['positive']:,} / {row['labelled']:,}" for head, row in entry["heads"].items())
        lines.append(f"| {_cell(name)} | {_cell(entry['licence'])} | {rows} | {heads} |")
    totals = " | ".join(f"{sum(entry['splits'].get(split, 0) for entry in sources.values()):,}" for split in splits)
    lines.append(f"| **all** | | {totals} | |")
    bound = [_cell(name) for name, entry in sources.items() if not entry["ships"]]
    if bound:
        lines += ["", f"**Not for sharing**: the licence does not allow it for what came from {', '.join(bound)}."]
    return "\n".join(lines)


def _calibration(calibration: Calibration, report: Mapping[str, Any]) -> str:
    how = {
        "none": "Logits are used as they come.",
        "temperature": "Temperature scaling (Guo et al. 2017), one slope a head, fitted on rows of their own.",
        "vector": "Platt scaling (Platt 1999), a slope and an offset a head, fitted on rows of their own.",
    }[calibration.method]
    unfitted = [head for head in calibration.heads if head not in (*calibration.raw, *calibration.fitted)]
    if unfitted and calibration.method != "none":
        how += f" Too few labelled rows to fit: {', '.join(unfitted)}."
    if not report:
        return how
    lines = [
        "| head | positive / labelled | expected calibration error before | after | Brier before | after |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for head, row in report.items():
        figures = " | ".join(f"{value:.4f}" for value in (*row["ece_mass"], *row["brier"]))
        lines.append(f"| {head} | {row['positives']:,} / {row['labelled']:,} | {figures} |")
    return "\n".join([how, "", *lines])


def _thresholds(thresholds: Thresholds) -> str:
    return "\n".join(
        f"| {name} | {_aim(head.policy)} | {head.threshold:.3f} | {head.low:.3f} to {min(head.high, 1.0):.3f} | "
        f"{head.precision:.3f} | {head.recall:.3f} | {head.fpr:.3f} | {head.positives:,} / {head.negatives:,} |"
        for name, head in thresholds.heads.items()
    )


def _aim(policy: Policy) -> str:
    return policy.aim if policy.value is None else f"{policy.aim} {policy.value:g}"


def _storage(error: Mapping[str, Any] | None) -> str:
    how = (
        "Kernels, word embeddings and the n-gram table are int8 with one scale per channel, row and head; the rest is "
        "float32."
    )
    if error is None:
        return how
    head = max(error["largest"], key=lambda name: error["largest"][name])
    return (
        f"{how} On {error['rows']:,} rows this moved a logit by at most {error['largest'][head]:.3f} ({head}) and "
        f"turned at most {max(error['flips'].values()):.2%} of the decisions of a head."
    )


def _cell(text: str) -> str:
    """Text that cannot break out of a table cell."""
    return " ".join(text.replace("|", "\\|").split())
