"""What a contrast allows one to say: an outcome and a sentence, made from the statistics record and nothing else."""

from __future__ import annotations

from evaluation.statistics.principles import LEAST_UNITS
from evaluation.statistics.records import Contrast, Interval, NonInferiority, Outcome, Verdict
from runs.errors import UsageError

MARGIN = 0.05
"""Differences below 5 points do not matter, unless a run declares otherwise before it starts."""
_ADJUSTMENTS = {"holm": "Holm", "benjamini_hochberg": "Benjamini-Hochberg"}


def decide(contrast: Contrast, *, margin: float | None = MARGIN) -> Verdict:
    """The verdict on a contrast.

    - ``not_measured``: fewer than two independent prompts, or a principle with fewer than `LEAST_UNITS`.
    - ``equivalent``: both one-sided tests reject a difference of the margin (Schuirmann 1987), that is, the interval at
      level 1 - 2 alpha lies inside of it, over at least `LEAST_UNITS` independent prompts: the spread of fewer is
      not known well enough to rule a difference out. This goes before the next: a difference that was declared not to
      matter is not called better or worse, however surely it is there.
    - ``better``, ``worse``: the adjusted p-value is at most alpha and the interval excludes 0.
    - ``undecided``: anything else, and whatever the missing scores could undo: bounds that leave the margin, or
      that have 0 between them. It does not mean equal.

    Args:
        contrast: with its family's adjustment, where it has one; alpha is 1 - its confidence.
        margin: largest difference that does not matter, on the scale of the scores; None asks for no equivalence.

    Raises:
        UsageError: the margin is not between 0 and 1.
    """
    if margin is not None:
        _check(margin)
    if (reason := _unmeasured(contrast)) is not None:
        return Verdict(contrast=contrast, outcome="not_measured", margin=margin, sentence=reason)
    shown = _shown(contrast)
    alike = margin is not None and _inside(contrast.equivalence_interval, margin)
    if alike and margin is not None and contrast.n_clusters < LEAST_UNITS:
        sentence = f"{_undecided(contrast, missing_decides=False)} Too few to call them equivalent."
        return Verdict(contrast=contrast, outcome="undecided", margin=margin, sentence=sentence)
    if alike and margin is not None and _inside(contrast.worst_case_bounds, margin):
        return Verdict(
            contrast=contrast, outcome="equivalent", margin=margin, sentence=_equivalent(contrast, margin, shown=shown)
        )
    if shown and not alike and contrast.identified:
        outcome: Outcome = "better" if _gain(contrast) > 0 else "worse"
        return Verdict(contrast=contrast, outcome=outcome, margin=margin, sentence=_decided(contrast, outcome))
    sentence = _undecided(contrast, missing_decides=alike or shown)
    return Verdict(contrast=contrast, outcome="undecided", margin=margin, sentence=sentence)


def non_inferiority(contrast: Contrast, margin: float) -> NonInferiority:
    """Whether the treatment is worse than the control by ``margin`` or more, by one-sided tests at 1 - confidence.

    ``held`` when the one-sided lower bound of the gain lies above -margin, ``regressed`` when the upper bound lies
    below it, each whatever the missing scores are; else ``undecided``: more prompts are needed. A regression is thus
    reported in at most alpha of the cases where there is none beyond the margin.

    Raises:
        UsageError: the margin is not between 0 and 1.
    """
    _check(margin)
    gain = _favourable(contrast, contrast.equivalence_interval)
    bounds = _favourable(contrast, contrast.worst_case_bounds)
    unmeasured = _unmeasured(contrast)
    if unmeasured is not None or gain is None or bounds is None:
        return NonInferiority(
            contrast=contrast,
            margin=margin,
            outcome="not_measured",
            lower_bound=None,
            upper_bound=None,
            sentence=unmeasured or "Not measured.",
        )
    loss, over = f"{contrast.metric}{_where(contrast)} against {contrast.control}", _prompts(contrast)
    limit = points(margin)
    if gain[0] > -margin and bounds[0] > -margin:
        outcome = "held"
        most = points(max(0.0, -gain[0]))
        sentence = f"{contrast.treatment} loses at most {most} points of {loss} (limit {limit}) over {over}."
    elif gain[1] < -margin and bounds[1] < -margin:
        outcome = "regressed"
        least = points(-gain[1])
        sentence = f"{contrast.treatment} loses at least {least} points of {loss} (limit {limit}) over {over}."
    else:
        outcome = "undecided"
        seen = f"the change lies between {signed(gain[0])} and {signed(gain[1])} points over {over}"
        beyond = gain[0] > -margin or gain[1] < -margin
        rest = f", but {_missing(contrast, bounds)}" if beyond else f"; {_smallest(contrast)}"
        sentence = f"Cannot tell whether {contrast.treatment} loses {limit} points of {loss}: {seen}{rest}."
    return NonInferiority.model_validate(
        {
            "contrast": contrast,
            "margin": margin,
            "outcome": outcome,
            "lower_bound": gain[0],
            "upper_bound": gain[1],
            "sentence": sentence,
        }
    )


def points(value: float) -> str:
    """A size on the scale of 0 to 100, to a tenth: ``12``, ``0.3``."""
    return f"{round(100 * value, 1):g}"


def signed(value: float) -> str:
    """A difference on the scale of 0 to 100, to a tenth, with its sign: ``+12.0``; a rounded 0 has none."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _check(margin: float) -> None:
    if not 0 < margin < 1:
        raise UsageError(
            f"A margin of {margin:g} is not between 0 and 1.",
            mend="Margins are on the scale of the scores: 0.05 is 5 points.",
        )


def _unmeasured(contrast: Contrast) -> str | None:
    """Why the contrast says nothing at all; None where it does."""
    asked, scored = contrast.n_pairs + contrast.n_missing, contrast.n_pairs
    opening = f"Not measured: {contrast.metric}{_where(contrast)}, {contrast.treatment} against {contrast.control}"
    if asked == 0:
        return f"{opening}; no prompt exercises it."
    if scored == 0:
        return f"{opening}; {_count(asked)}, and none has a score from both models."
    if contrast.interval is None:
        return f"{opening}; {_count(scored)} with a score from both models, too few to compare."
    if contrast.subset.startswith("principle:") and contrast.n_clusters < LEAST_UNITS:
        return f"{opening}; {_prompts(contrast)}, and {LEAST_UNITS} are the fewest that show one standard deviation."
    return None


def _shown(contrast: Contrast) -> bool:
    """Whether a difference is there, by the adjusted test and by the interval."""
    if contrast.p_adjusted is None or contrast.interval is None:
        return False
    return contrast.p_adjusted <= _alpha(contrast) and (contrast.interval[0] > 0 or contrast.interval[1] < 0)


def _alpha(contrast: Contrast) -> float:
    return round(1 - contrast.confidence, 12)


def _inside(interval: Interval | None, margin: float) -> bool:
    return interval is not None and -margin < interval[0] and interval[1] < margin


def _gain(contrast: Contrast) -> float:
    estimate = contrast.estimate or 0.0
    return estimate if contrast.higher_is_better else -estimate


def _favourable(contrast: Contrast, interval: Interval | None) -> Interval | None:
    """``interval`` with more meaning better."""
    if interval is None or contrast.higher_is_better:
        return interval
    return -interval[1], -interval[0]


def _decided(contrast: Contrast, outcome: str) -> str:
    return (
        f"{contrast.treatment} is {outcome} than {contrast.control} in {contrast.metric}{_where(contrast)}: "
        f"{_estimate(contrast, contrast.interval)} over {_prompts(contrast)}{_test(contrast)}."
    )


def _equivalent(contrast: Contrast, margin: float, *, shown: bool) -> str:
    estimate = _estimate(contrast, contrast.equivalence_interval)
    level = f"{100 * (2 * contrast.confidence - 1):g} % interval"
    sentence = (
        f"{contrast.treatment} and {contrast.control} are equivalent in {contrast.metric}{_where(contrast)} to within "
        f"{points(margin)} points: {estimate} ({level}) over {_prompts(contrast)}."
    )
    return f"{sentence} A difference smaller than the margin is there{_test(contrast)}." if shown else sentence


def _undecided(contrast: Contrast, *, missing_decides: bool) -> str:
    opening = (
        f"Cannot tell whether {contrast.treatment} differs from {contrast.control} in "
        f"{contrast.metric}{_where(contrast)}: {_estimate(contrast, contrast.interval)} over {_prompts(contrast)}"
    )
    if missing_decides:
        return f"{opening}, but {_missing(contrast, contrast.worst_case_bounds or (-1.0, 1.0))}."
    low, high = contrast.interval or (0.0, 0.0)
    if low > 0 or high < 0:
        opening += _test(contrast)
    return f"{opening}; {_smallest(contrast)}."


def _smallest(contrast: Contrast) -> str:
    effect = contrast.minimum_detectable_effect
    if effect is None:
        return f"all {_count(contrast.n_pairs)} show the same difference, and others remain possible"
    if effect >= 1:
        return f"{_these(contrast)} can show no effect of any size"
    return f"the smallest effect {_these(contrast)} can show is {points(effect)} points"


def _missing(contrast: Contrast, bounds: Interval) -> str:
    low, high = bounds
    return f"{_count(contrast.n_missing)} without a score could put it anywhere from {signed(low)} to {signed(high)}"


def _estimate(contrast: Contrast, interval: Interval | None) -> str:
    low, high = interval or (0.0, 0.0)
    return f"{signed(contrast.estimate or 0.0)} points [{signed(low)}, {signed(high)}]"


def _test(contrast: Contrast) -> str:
    if contrast.adjustment == "none" or contrast.family_size < 2:
        return f", p = {contrast.p_adjusted:.2g}"
    return (
        f", p = {contrast.p_adjusted:.2g} after {_ADJUSTMENTS[contrast.adjustment]} over {contrast.family_size} tests"
    )


def _where(contrast: Contrast) -> str:
    kind, _, name = contrast.subset.partition(":")
    return {"category": f" on {name} prompts", "principle": f" under principle {name}"}.get(kind, "")


def _prompts(contrast: Contrast) -> str:
    groups = f" in {contrast.n_clusters} groups" if contrast.n_clusters < contrast.n_pairs else ""
    return f"{_count(contrast.n_pairs)}{groups}"


def _these(contrast: Contrast) -> str:
    return f"these {_count(contrast.n_pairs)}"


def _count(number: int) -> str:
    return f"{number} prompt" if number == 1 else f"{number} prompts"
