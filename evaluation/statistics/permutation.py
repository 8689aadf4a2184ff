"""Tests of no difference that ask for no distribution: sign flips over units, and McNemar's for rates."""

from __future__ import annotations

import numpy as np
import scipy

_EXACT_LIMIT = 14
"""Up to this many non-zero differences all 2**n sign patterns are counted instead of sampled."""
_CELLS = 2_000_000
"""Signs held in memory at once."""


def sign_flip(differences: np.ndarray, *, resamples: int, seed: int) -> tuple[float, str]:
    """Two-sided p-value of the null that each unit's difference could as well have had the other sign.

    Fisher (1935, section 21). Counted in full up to 14 non-zero differences; beyond, patterns are sampled and the
    observed one is added to them (Phipson and Smyth 2010), so that p is never 0.

    Args:
        differences: one for each independent unit (a cluster's sum), shape (units,), in an order of its own.
        resamples: patterns to sample.
        seed: of the sampling.

    Returns:
        The p-value and ``sign_flip_exact`` or ``sign_flip_sampled``.

    Raises:
        ValueError: patterns must be sampled and ``resamples`` is below 1.
    """
    sizes = np.sort(np.abs(differences[differences != 0]))  # a zero has no sign to flip
    if len(sizes) == 0:
        return 1.0, "sign_flip_exact"
    # A hair of slack, so that sums equal but for rounding count as equal.
    bound = abs(float(differences.sum())) - 1e-9 * float(sizes.sum())
    if len(sizes) <= _EXACT_LIMIT:
        patterns = np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes)) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ sizes) >= bound)), "sign_flip_exact"
    if resamples < 1:
        raise ValueError("resamples must be at least 1")
    generator, extreme = np.random.default_rng(seed), 0
    chunk = max(1, _CELLS // len(sizes))
    for start in range(0, resamples, chunk):
        flips = generator.integers(0, 2, size=(min(chunk, resamples - start), len(sizes)), dtype=np.int8)
        extreme += int((np.abs(sizes.sum() - 2 * (flips @ sizes)) >= bound).sum())
    return (extreme + 1) / (resamples + 1), "sign_flip_sampled"


def mcnemar_exact(only_treatment: int, only_control: int) -> float:
    """McNemar's exact test: binomial(b + c, 1/2) on the discordant pairs (McNemar 1947), two-sided; 1 without any."""
    discordant = only_treatment + only_control
    return float(scipy.stats.binomtest(only_treatment, discordant).pvalue) if discordant else 1.0
