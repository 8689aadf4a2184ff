"""A detector's rate put right by people's labels on some of the answers it judged.

A detector that is wrong in a tenth of the cases can turn a comparison round, in either direction. Labels on a random
sample of the same model's answers say by how much it is wrong here; labels on other models' answers do not.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import scipy

from evaluation.statistics.checks import unit_scores
from evaluation.statistics.mean import wilson
from evaluation.statistics.records import Interval
from runs.config import StrictModel
from runs.errors import UserError

LEAST_LABELS = 50
"""Labels below which no corrected rate is given: the interval's coverage was checked from here on."""
_PSEUDO = 0.5
"""Added to each cell of the table of labels and verdicts (Jeffreys): no cell of the truth is taken to be empty because
it is empty among fifty labels."""


class CorrectedRate(StrictModel):
    """A rate as the detector gives it, as the labels alone give it, and as both together do."""

    n: int
    """Answers that the detector judged."""
    n_labelled: int
    """Of these, labelled by people."""
    raw: float
    """The detector's rate over all answers."""
    labels_only: float
    """The labels' rate."""
    labels_interval: Interval
    """Wilson's, of the labels alone."""
    estimate: float
    """The corrected rate."""
    interval: Interval
    trust: float
    """How much of the detector enters, 0 to 1: the regression of labels on verdicts. 0 leaves the labels alone."""
    sensitivity: float | None
    """Share of labelled positives that the detector found; None without any."""
    specificity: float | None
    """Share of labelled negatives that it left alone; None without any."""
    design_effect: float
    """How much larger the variance is because answers share prompts; 1 where they do not."""
    confidence: float
    spread: float
    """Standard deviation of label minus trusted verdict: what more labels are to average out."""

    def labels_for(self, half_width: float) -> int:
        """Labels that bring the interval to ± ``half_width``, as far as labels alone decide; at most all answers."""
        z = float(scipy.stats.norm.ppf((1 + self.confidence) / 2))
        return min(self.n, math.ceil(self.design_effect * (z * self.spread / half_width) ** 2))


def corrected_rate(
    verdicts: Sequence[float],
    labels: Sequence[float | None],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    least: int = LEAST_LABELS,
) -> CorrectedRate:
    """Prediction-powered inference on a share, with tuning (PPI++).

    Angelopoulos, Bates et al. 2023, and Angelopoulos, Duchi and Zrnic 2023; it is double sampling with regression
    (Cochran 1977, section 12.6) in today's words.

    With verdicts f on all N answers and labels y on a random n of them: estimate = mean_n(y) + t (mean_N(f) -
    mean_n(f)), where t = cov(y, f) / var(f), held to [0, 1], makes the variance least. With e = y - t f it is
    var(e) / n + (2 t cov(y, f) - t² var(f)) / N, since the labelled answers are among all of them. The interval is
    taken from the table of (y, f) with half a case more in each cell, and t quantiles with n - 1 degrees of freedom;
    answers that share a cluster widen it by the ratio of the clustered to the plain sum of squared influences.

    Args:
        verdicts: the detector's, in [0, 1]; shape (answers,).
        labels: people's, in [0, 1] (the mean where several labelled one answer), None where there is none.
        clusters: what each answer belongs to (its prompt); None: all are independent.
        confidence: of the intervals.
        least: labels that are needed.

    Raises:
        UserError: there are fewer labels, or a number is outside of [0, 1].
    """
    f = unit_scores(verdicts, "verdicts")
    known = np.array([label is not None for label in labels], dtype=bool)
    y = unit_scores([label for label in labels if label is not None], "labels")
    if len(known) != len(f):
        raise ValueError(f"there are {len(f)} verdicts and {len(known)} labels")
    if len(y) < max(2, least):
        raise UserError(
            f"{len(y)} of {max(2, least)} labels.",
            why="With fewer labels the corrected rate would be less certain than it looks.",
            mend="Label more answers of this model.",
        )
    cells = np.array([[((1 - y) * (1 - f[known])).sum(), ((1 - y) * f[known]).sum()],
                      [(y * (1 - f[known])).sum(), (y * f[known]).sum()]])  # fmt: skip
    estimate, _, trust, _ = _regression(cells, float(f.mean()), len(f))
    share = (f.sum() + 2 * _PSEUDO) / (len(f) + 4 * _PSEUDO)
    centre, variance, _, spread = _regression(cells + _PSEUDO, float(share), len(f))
    effect = _design_effect(f, known, y, trust, clusters)
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, len(y) - 1)) * math.sqrt(effect * variance)
    alone = wilson(round(float(y.sum())), len(y), confidence=confidence)
    positives, negatives = cells[1].sum(), cells[0].sum()
    return CorrectedRate(
        n=len(f),
        n_labelled=len(y),
        raw=float(f.mean()),
        labels_only=float(y.mean()),
        labels_interval=(float(alone.low or 0.0), float(alone.high if alone.high is not None else 1.0)),
        estimate=min(1.0, max(0.0, estimate)),
        interval=(max(0.0, centre - half), min(1.0, centre + half)),
        trust=trust,
        sensitivity=float(cells[1, 1] / positives) if positives > 0 else None,
        specificity=float(cells[0, 0] / negatives) if negatives > 0 else None,
        design_effect=effect,
        confidence=confidence,
        spread=spread,
    )


def _regression(cells: np.ndarray, detected: float, n: int) -> tuple[float, float, float, float]:
    """Estimate, variance, trust and spread from the (label, verdict) table and the verdicts' mean over all ``n``."""
    m = float(cells.sum())
    table = cells / m
    mean_y, mean_f = float(table[1].sum()), float(table[:, 1].sum())
    shared = float(table[1, 1]) - mean_y * mean_f
    of_f, of_y = mean_f * (1 - mean_f), mean_y * (1 - mean_y)
    trust = min(1.0, max(0.0, shared / of_f)) if of_f > 0 else 0.0
    residual = max(0.0, of_y - 2 * trust * shared + trust**2 * of_f)
    variance = residual / (m - 1) + max(0.0, 2 * trust * shared - trust**2 * of_f) / n
    return mean_y + trust * (detected - mean_f), variance, trust, math.sqrt(residual)


def _design_effect(
    f: np.ndarray, known: np.ndarray, y: np.ndarray, trust: float, clusters: Sequence[Hashable] | None
) -> float:
    if clusters is None:
        return 1.0
    if len(clusters) != len(f):
        raise ValueError(f"there are {len(f)} answers and {len(clusters)} cluster labels")
    influence = trust * (f - f.mean()) / len(f)
    residual = y - trust * f[known]
    influence[known] += (residual - residual.mean()) / len(y)
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in clusters])
    plain = float(np.square(influence).sum())
    grouped = float(np.square(np.bincount(codes, weights=influence)).sum())
    return max(1.0, grouped / plain) if plain > 0 else 1.0


def rogan_gladen(
    detected: tuple[int, int],
    sensitivity: tuple[int, int],
    specificity: tuple[int, int],
    *,
    confidence: float = 0.95,
) -> tuple[float, Interval]:
    """A rate from the detector's rate and its error rates (Rogan and Gladen 1978), with Lang and Reiczigel's interval.

    (p + sp - 1) / (se + sp - 1). The interval (Lang and Reiczigel 2014) counts the error rates' own uncertainty. The
    error rates must be those on these very answers: taken from other models' they move the result by more than the
    detector was wrong (`corrected_rate` needs no error rates, and is shorter).

    Args:
        detected: answers that the detector names, of all.
        sensitivity: labelled positives that it found, of all such.
        specificity: labelled negatives that it left alone, of all such.
        confidence: of the interval.

    Raises:
        UserError: the detector does no better than a coin.
        ValueError: a count that is not one.
    """
    for count, total in (detected, sensitivity, specificity):
        if total < 1 or not 0 <= count <= total:
            raise ValueError(f"{count} of {total} is no share")
    p, se, sp = (count / total for count, total in (detected, sensitivity, specificity))
    if se + sp <= 1:
        raise UserError(
            "The detector finds no more among the positives than among the negatives.",
            why=f"Sensitivity {se:.2f}, specificity {sp:.2f}.",
            mend="Use the labels alone.",
        )
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    n, n_se, n_sp = detected[1] + z * z, sensitivity[1] + 2.0, specificity[1] + 2.0
    p_, se_, sp_ = (detected[0] + z * z / 2) / n, (sensitivity[0] + 1) / n_se, (specificity[0] + 1) / n_sp
    youden = se_ + sp_ - 1
    centre = (p_ + sp_ - 1) / youden
    of_se, of_sp = se_ * (1 - se_) / n_se, sp_ * (1 - sp_) / n_sp
    centre_shift = 2 * z * z * (centre * of_se - (1 - centre) * of_sp)
    variance = p_ * (1 - p_) / n + centre**2 * of_se + (1 - centre) ** 2 * of_sp
    half = z * math.sqrt(variance) / youden
    low, high = centre + centre_shift - half, centre + centre_shift + half
    estimate = (p + sp - 1) / (se + sp - 1)
    return min(1.0, max(0.0, estimate)), (min(1.0, max(0.0, low)), min(1.0, max(0.0, high)))
