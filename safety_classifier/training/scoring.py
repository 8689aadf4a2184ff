"""Logits of many rows with the weights in training: for validation, calibration and the best checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runs.errors import UserError
from safety_classifier.features import Featuriser
from safety_classifier.labels import Labels
from safety_classifier.model import Batch

if TYPE_CHECKING:
    import pandas

Floats = NDArray[np.float32]


def frame_logits(
    frame: pandas.DataFrame,
    featuriser: Featuriser,
    forward: Callable[[Batch], object],
    buckets: Sequence[int],
    tokens_per_batch: int,
    heads: int,
) -> Floats:
    """Logits of each row of ``frame``, in its order.

    Args:
        frame: rows with ``text`` and ``context``.
        featuriser: as in training; longer rows are cut to its ``max_tokens``.
        forward: compiled forward pass, batch -> (B, heads).
        buckets: padded lengths, ascending.
        tokens_per_batch: padded tokens a call.
        heads: columns.

    Returns:
        float32 (len(frame), heads).
    """
    logits = np.zeros((len(frame), heads), np.float32)
    encoded = featuriser.encode(frame["text"].tolist(), frame["context"].tolist())
    lengths = np.array([encoded.length(row) for row in range(len(encoded))])
    which = np.searchsorted(np.asarray(buckets), lengths).clip(max=len(buckets) - 1)
    for number, bucket in enumerate(buckets):
        rows = np.flatnonzero(which == number)
        size = max(tokens_per_batch // bucket, 1)
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            batch = featuriser.pad(encoded, chosen.tolist(), bucket, size)
            logits[chosen] = np.asarray(forward(batch))[: len(chosen)]
    return logits


def validation_rows(frame: pandas.DataFrame, split: str, count: int, seed: int) -> pandas.DataFrame:
    """At most ``count`` single rows and ``count // 4`` preference pairs of a split, chosen by ``seed``."""
    part = frame[frame["split"] == split]
    single = part[part["pair"] < 0]
    if len(single) > count:
        single = single.sample(count, random_state=seed)
    pairs = part[part["pair"] >= 0]
    kept = pairs["pair"].drop_duplicates()
    kept = kept.sample(min(len(kept), count // 4), random_state=seed)
    import pandas

    return pandas.concat([single, pairs[pairs["pair"].isin(set(kept))]])


def quick_metrics(frame: pandas.DataFrame, logits: Floats, names: Sequence[str]) -> dict[str, float]:
    """AUPRC of each head that has both classes, and accuracy of each preference head; no intervals.

    Args:
        frame: rows with one nullable column a head and ``pair``.
        logits: (len(frame), heads).
        names: the heads.
    """
    from sklearn.metrics import average_precision_score

    metrics: dict[str, float] = {}
    pair = frame["pair"].to_numpy()
    for column, name in enumerate(names):
        target = frame[name].to_numpy(dtype=np.float32, na_value=np.nan)
        single = ~np.isnan(target) & (pair < 0)
        truth = target[single] >= 0.5
        if truth.any() and not truth.all():
            metrics[f"auprc/{name}"] = float(average_precision_score(truth, logits[single, column]))
        chosen = np.flatnonzero((pair >= 0) & (target == 1.0))
        if len(chosen):
            wins = logits[chosen, column] > logits[chosen + 1, column]
            metrics[f"accuracy/{name}"] = float(np.mean(wins))
    return metrics


def headline_macro(metrics: dict[str, float], labels: Labels) -> float:
    """Mean AUPRC over the headline categories that have one; the score by which the best weights are kept."""
    found = [metrics[f"auprc/{name}"] for name in labels.of("category", headline=True) if f"auprc/{name}" in metrics]
    if not found:
        raise UserError(
            "The validation rows label no headline category with both classes.",
            mend="Add sources, or raise checkpoints.validation_rows.",
        )
    return float(np.mean(found))
