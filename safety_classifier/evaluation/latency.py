"""How long the scorer takes, on texts of real lengths."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np

from runs.config import StrictModel
from safety_classifier.evaluation.scorer import Scorer


class Latency(StrictModel):
    """Calls with one batch size."""

    batch: int
    calls: int
    p50_ms: float
    """Median time of a call, in milliseconds."""
    p95_ms: float
    texts_per_second: float
    """Over all calls."""
    mean_characters: float
    load_average: float
    """Of the machine, over the minute before: other work slows this one."""


def measure_latency(
    scorer: Scorer,
    texts: Sequence[str],
    *,
    batches: Sequence[int] = (1, 8, 32, 128),
    seconds: float = 5.0,
    most: int = 300,
    seed: int = 0,
) -> list[Latency]:
    """Time calls of each batch size on texts drawn at random (with replacement), after two calls that are not counted.

    Args:
        scorer: the thing itself, not one that remembers.
        texts: of the test split.
        batches: texts a call.
        seconds: time for each batch size; at least three calls are made.
        most: calls of each batch size.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    found = []
    for batch in batches:
        times: list[float] = []
        characters = 0
        load = os.getloadavg()[0]
        for call in range(2 + most):
            drawn = [texts[index] for index in rng.integers(0, len(texts), batch)]
            start = time.perf_counter()
            scorer.probabilities(drawn)
            spent = time.perf_counter() - start
            if call < 2:
                continue
            times.append(spent)
            characters += sum(map(len, drawn))
            if len(times) >= 3 and sum(times) >= seconds:
                break
        p50, p95 = np.quantile(times, [0.5, 0.95]) * 1000
        found.append(
            Latency(
                batch=batch,
                calls=len(times),
                p50_ms=float(p50),
                p95_ms=float(p95),
                texts_per_second=batch * len(times) / sum(times),
                mean_characters=characters / (batch * len(times)),
                load_average=load,
            )
        )
    return found
