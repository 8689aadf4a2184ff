"""Two models on the same prompts: how much they differ, how sure that is, and what could not have been seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from evaluation.statistics.mean import finite, is_binary

POWER = 0.80
"""Power at which the minimum detectable effect is stated."""
_EXACT_LIMIT = 14
"""Up to this many non-zero differences all 2**n sign patterns are counted instead of sampled."""
_CHUNK = 1_000
"""Sampled sign patterns held in memory at once."""


@dataclass(frozen=True)
class PairedContrast:
    """A minus B over units that both answered."""

    estimate: float
    """Mean of the differences A - B."""
    low: float
    high: float
    """Student's t interval of the mean difference."""
    p_value: float
    """Two-sided, of the null that A and B are exchangeable within a unit."""
    test: str
    """``mcnemar_exact``, ``sign_flip_exact`` or ``sign_flip_sampled``."""
    effect_size: float | None
    """Cohen's d_z: mean over standard deviation of the differences.

    None where the differences are all one non-zero number.
    """
    n: int
    """Units (prompts, or clusters of prompts)."""
    minimum_detectable_effect: float
    """Smallest true difference found with 80 % power at this n and spread: what "no difference seen" rules out."""
    confidence: float
    wins: int
    """Units where A is higher."""
    losses: int
    ties: int


def paired_contrast(
    a: Sequence[float],
    b: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> PairedContrast:
    """Contrast two models' scores, ``a[i]`` and ``b[i]`` being those of unit ``i``.

    With d = a - b: estimate = mean(d), interval = estimate ± t(n-1, 1-alpha/2) sd(d)/sqrt(n), d_z = mean(d)/sd(d)
    (Cohen 1988, section 2.3.5). The p-value is McNemar's exact binomial test where all scores are 0 or 1
    (McNemar 1947; the same as the full sign-flip distribution), else a sign-flip permutation test (Fisher 1935,
    section 21), counted in full up to 14 non-zero differences and sampled with the add-one rule beyond
    (Phipson and Smyth 2010). Minimum detectable effect = (t(1-alpha/2) + t(power)) sd(d)/sqrt(n), df n - 1
    (Bloom 1995).

    Args:
        a: scores of model A, finite.
        b: scores of model B, in the same order.
        confidence: of the interval; alpha = 1 - confidence is the level of the detectable effect.
        resamples: sign patterns to sample where they cannot all be counted.
        seed: of the sampled patterns. Swapping A and B, or the order of units, changes nothing else.
        clusters: one label a unit, such as the pair of a harmful prompt and its benign twin; differences are
            averaged within a label first, and n is the number of labels.

    Raises:
        ValueError: lengths differ, fewer than two units are left, or a score is not finite.
    """
    first, second = finite(a, "a"), finite(b, "b")
    if len(first) != len(second):
        raise ValueError(f"paired scores must have one length; there are {len(first)} and {len(second)}")
    differences = first - second
    binary = is_binary(first) and is_binary(second)
    if clusters is not None:
        differences = _cluster_means(differences, clusters)
        binary = binary and len(differences) == len(first)
    n = len(differences)
    if n < 2:
        raise ValueError(f"a paired contrast needs at least two units; there is {n}" if n else "there are no units")
    # Sorting by size first makes sums, and the sampled patterns, independent of the order of the units.
    differences = differences[np.lexsort((differences, np.abs(differences)))]
    estimate, spread = float(differences.mean()), _spread(differences)
    error = spread / np.sqrt(n)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1))
    p_value, test = _p_value(differences, binary=binary, resamples=resamples, seed=seed)
    return PairedContrast(
        estimate=estimate,
        low=float(estimate - reach * error),
        high=float(estimate + reach * error),
        p_value=p_value,
        test=test,
        effect_size=estimate / spread if spread > 0 else (0.0 if estimate == 0 else None),
        n=n,
        minimum_detectable_effect=float((reach + stats.t.ppf(POWER, n - 1)) * error),
        confidence=confidence,
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
    )


def _cluster_means(differences: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    if len(clusters) != len(differences):
        raise ValueError(f"there are {len(differences)} units and {len(clusters)} cluster labels")
    members: dict[Hashable, list[float]] = defaultdict(list)
    for label, difference in zip(clusters, differences, strict=True):
        members[label].append(float(difference))
    return np.array([np.mean(sorted(values)) for values in members.values()])


def _spread(differences: np.ndarray) -> float:
    """Standard deviation (ddof 1), exactly 0 where all differences are one number despite rounding."""
    return 0.0 if np.ptp(differences) == 0 else float(differences.std(ddof=1))


def _p_value(differences: np.ndarray, *, binary: bool, resamples: int, seed: int) -> tuple[float, str]:
    moved = differences[differences != 0]  # a zero has no sign to flip
    if binary:
        wins = int((moved > 0).sum())
        return (float(stats.binomtest(wins, len(moved)).pvalue) if len(moved) else 1.0), "mcnemar_exact"
    if len(moved) == 0:
        return 1.0, "sign_flip_exact"
    sizes = np.abs(moved)
    # A hair of slack, so that sums equal but for rounding count as equal.
    bound = abs(float(moved.sum())) - 1e-9 * float(sizes.sum())
    if len(moved) <= _EXACT_LIMIT:
        patterns = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        sums = (1 - 2 * patterns) @ sizes
        return float(np.mean(np.abs(sums) >= bound)), "sign_flip_exact"
    if resamples < 1:
        raise ValueError("resamples must be at least 1")
    generator = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, resamples, _CHUNK):
        signs = generator.integers(0, 2, size=(min(_CHUNK, resamples - start), len(moved)), dtype=np.int8)
        extreme += int((np.abs((1 - 2 * signs) @ sizes) >= bound).sum())
    return (extreme + 1) / (resamples + 1), "sign_flip_sampled"
