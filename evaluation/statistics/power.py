"""What a number of prompts can show, before they are run."""

from __future__ import annotations

import math
from functools import lru_cache

import scipy

POWER = 0.80
"""Chance of finding a true difference at which "detectable" is meant."""


@lru_cache(maxsize=4096)
def detectable_d(n: int, *, alpha: float = 0.05, power: float = POWER) -> float:
    """Smallest standardised mean difference (Cohen's d_z) that a two-sided paired t test on ``n`` units finds.

    The d at which `t_test_power` is ``power``. (statsmodels' solver stops at its bracket's end, without a word, for
    few units and small levels.)

    Raises:
        ValueError: fewer than two units, or not 0 < ``alpha`` < ``power`` < 1.
    """
    if n < 2 or not 0 < alpha < power < 1:
        raise ValueError(f"power needs n >= 2 and 0 < alpha < power < 1, not n = {n}, alpha = {alpha}, power = {power}")
    # Bloom's sum of quantiles (1995) is close; twice that is a safe bracket.
    top = 2 * float(scipy.stats.t.isf(alpha / 2, n - 1) + scipy.stats.t.ppf(power, n - 1)) / math.sqrt(n)
    return float(
        scipy.optimize.brentq(lambda d: t_test_power(d, n, alpha=alpha) - power, 0.0, top, xtol=1e-12, rtol=1e-12)
    )


def t_test_power(d: float, n: int, *, alpha: float = 0.05) -> float:
    """Chance that a two-sided paired t test on ``n`` units rejects when the standardised difference is ``d``.

    The tails of the noncentral t distribution beyond ±r, r = t(1 - alpha / 2): given the spread s = chi(n - 1) /
    sqrt(n - 1), they are Phi(d sqrt(n) - r s) + Phi(-d sqrt(n) - r s), integrated over the density of s. (scipy's
    own tails are NaN at some of these arguments.)
    """
    degrees = n - 1
    reach, shift = float(scipy.stats.t.isf(alpha / 2, degrees)), d * math.sqrt(n)
    scale = math.log(2) * (1 - degrees / 2) - math.lgamma(degrees / 2)

    def tails(chi: float) -> float:
        density = math.exp(scale + (degrees - 1) * math.log(chi) - chi * chi / 2)
        bound = reach * chi / math.sqrt(degrees)
        return density * float(scipy.special.ndtr(shift - bound) + scipy.special.ndtr(-shift - bound))

    low, high = float(scipy.stats.chi.ppf(1e-15, degrees)), float(scipy.stats.chi.isf(1e-15, degrees))
    # The integrand steps down where the bound meets the shift: a narrow place that the rule must not miss.
    step = min(max(abs(shift) * math.sqrt(degrees) / reach, low), high)
    return float(scipy.integrate.quad(tails, low, high, points=[step], epsabs=1e-12, epsrel=1e-11, limit=400)[0])


def minimum_detectable_effect(n: int, sd: float, *, alpha: float = 0.05, power: float = POWER) -> float:
    """Smallest mean difference that ``n`` independent prompts show with ``power``.

    Args:
        n: prompts, or clusters of prompts.
        sd: standard deviation of the differences between the models, assumed or seen in an earlier run.
        alpha: two-sided level; 0.05 divided by the number of tests for the first step of Holm.
        power: chance to find it.
    """
    return detectable_d(n, alpha=alpha, power=power) * sd


def prompts_needed(effect: float, sd: float, *, alpha: float = 0.05, power: float = POWER) -> int:
    """Fewest independent prompts that show a mean difference of ``effect`` with ``power``.

    Raises:
        ValueError: the effect or the standard deviation is not above 0.
    """
    if effect <= 0 or sd <= 0:
        raise ValueError(f"effect and sd must be above 0, not {effect} and {sd}")
    low, high = 1, 2
    while minimum_detectable_effect(high, sd, alpha=alpha, power=power) > effect:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        found = minimum_detectable_effect(middle, sd, alpha=alpha, power=power) <= effect
        low, high = (low, middle) if found else (middle, high)
    return high
