"""From the candidates for an answer's first token to the log-probabilities of labels such as A and B."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


def read_labels(candidates: Mapping[str, float], labels: Sequence[str]) -> dict[str, float | None]:
    """Log-probability of each label: the sum over candidates that spell it, white space around it aside.

    A label that no candidate spells is None: a server lists only the likeliest tokens, and its absence bounds it no
    better than by the least likely one listed.
    """
    found: dict[str, list[float]] = {label: [] for label in labels}
    for token, logprob in candidates.items():
        if token.strip() in found:
            found[token.strip()].append(logprob)
    return {label: _log_sum(values) if values else None for label, values in found.items()}


def _log_sum(values: Iterable[float]) -> float:
    """log(sum(exp(values))), from the largest so that nothing underflows."""
    listed = list(values)
    top = max(listed)
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(value - top) for value in listed))
