"""How far a labeller's probabilities can be trusted, from pairs whose better answer is known. Pure functions.

A labeller gives p, its probability that the better answer (``chosen``) is the better one. It is right where p > 1/2;
its confidence is max(p, 1 − p). Expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3): the mean
over equally wide bins of confidence of |share right − mean confidence|, weighted by the bins' sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from critique_revision.comparison import clamped, preferences, probability
from critique_revision.config import FeedbackSettings
from critique_revision.records import Label

CHOSEN, REJECTED = 0, 1
"""The numbers of a known pair's answers."""
BINS = 10
"""Of confidence, from 1/2 to 1."""


def label_probabilities(labels: Sequence[Label], settings: FeedbackSettings) -> dict[str, float | None]:
    """Pair id → P(chosen is better); None where the labeller named no letter."""
    found: dict[str, list[Label]] = {}
    for label in labels:
        found.setdefault(label.prompt_id, []).append(label)
    return {pair: preferences(rows, settings)[CHOSEN, REJECTED] for pair, rows in found.items()}


def order_bias(labels: Sequence[Label], settings: FeedbackSettings) -> float | None:
    """Mean of P(A) over all questions, less 1/2: above 0, the labeller favours what it is shown first.

    Every pair is asked in both orders, so that a labeller without such a habit has 0 whatever it thinks of the answers.
    """
    values = [clamped(p, settings) for label in labels if (p := probability(label.logprobs)) is not None]
    return sum(values) / len(values) - 0.5 if values else None


def consistency(labels: Sequence[Label], settings: FeedbackSettings) -> float | None:
    """Share of pairs and principles where both orders prefer the same answer."""
    sides: dict[tuple[str, str], list[float]] = {}
    for label in labels:
        p = probability(label.logprobs)
        if p is not None:
            toward = p if label.first == CHOSEN else 1.0 - p
            sides.setdefault((label.prompt_id, label.principle_id), []).append(toward)
    both = [values for values in sides.values() if len(values) == 2]
    return sum((one > 0.5) == (other > 0.5) for one, other in both) / len(both) if both else None


def report(probabilities: Sequence[float | None]) -> dict[str, Any]:
    """Accuracy with its 95 % interval (Wilson 1927), Brier score, calibration error and reliability table.

    A tie (p = 1/2) counts as wrong. Pairs without a label are counted and leave every denominator.
    """
    known = [p for p in probabilities if p is not None]
    found: dict[str, Any] = {"pairs": len(probabilities), "unlabelled": len(probabilities) - len(known)}
    if not known:
        return found
    from scipy.stats import binomtest

    right = sum(p > 0.5 for p in known)
    interval = binomtest(right, len(known)).proportion_ci(method="wilson")
    table = reliability(known)
    gaps = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in table)
    return found | {
        "correct": right,
        "ties": sum(p == 0.5 for p in known),
        "accuracy": right / len(known),
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "mean_label_prob": sum(known) / len(known),
        "brier": sum((1.0 - p) ** 2 for p in known) / len(known),
        "brier_of_one_half": 0.25,
        "ece": gaps / len(known),
        "reliability": table,
    }


def reliability(probabilities: Sequence[float], bins: int = BINS) -> list[dict[str, Any]]:
    """Bins of confidence that hold anything: ``low``, ``high``, ``n``, mean ``confidence`` and ``accuracy``."""
    rows: dict[int, list[float]] = {}
    for p in probabilities:
        rows.setdefault(min(int((max(p, 1.0 - p) - 0.5) * 2 * bins), bins - 1), []).append(p)
    return [
        {
            "low": 0.5 + number / (2 * bins),
            "high": 0.5 + (number + 1) / (2 * bins),
            "n": len(held),
            "confidence": sum(max(p, 1.0 - p) for p in held) / len(held),
            "accuracy": sum(p > 0.5 for p in held) / len(held),
        }
        for number, held in sorted(rows.items())
    ]
