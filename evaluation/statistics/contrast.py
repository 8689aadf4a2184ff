"""Two models on the same prompts: how much they differ, how sure that is, and what could not have been seen."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from evaluation.statistics.checks import is_binary, unit_scores
from evaluation.statistics.clusters import Clustered, bootstrap_interval, clustered, constant
from evaluation.statistics.missing import worst_case_bounds
from evaluation.statistics.multiplicity import benjamini_hochberg, holm
from evaluation.statistics.permutation import mcnemar_exact, sign_flip
from evaluation.statistics.power import detectable_d
from evaluation.statistics.proportions import tango
from evaluation.statistics.records import Contrast, EffectSize, Interval, Kind
from runs.errors import UserError


class Question(NamedTuple):
    """What is asked, before any score is seen."""

    treatment: str
    control: str
    metric: str
    kind: Kind = "mean"
    subset: str = "all"
    higher_is_better: bool = True
    assumed_sd: float | None = None
    """Standard deviation of the differences, declared for the detectable effect; None takes the observed one."""


def contrast(
    question: Question,
    treatment: Sequence[float | None],
    control: Sequence[float | None],
    *,
    clusters: Sequence[Hashable] | None = None,
    rows: Sequence[object] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    bootstrap: bool = True,
) -> Contrast:
    """Contrast two models' scores, ``treatment[i]`` and ``control[i]`` being those of prompt ``i``.

    With d = treatment - control over the prompts that have both:

    - estimate: mean(d). Interval: Tango's for rates on independent prompts, else Student's t with the
      cluster-robust error. Where all d are one number there is no spread to estimate: the interval then allows
      for the prompts that would differ and were not met (`_no_spread`).
    - p: McNemar's exact test for rates on independent prompts, else sign flips of whole clusters.
    - effect sizes: for rates the risk difference, then McNemar's odds ratio (b + 1/2) / (c + 1/2) (Haldane); for
      means Cohen's d_z = mean(d) / sd(d) (Cohen 1988, section 2.3.5); for both Cliff's delta of pairs, the share
      of prompts where the treatment is higher minus the share where it is lower (Cliff 1993, d_w).
    - minimum detectable effect: `power.detectable_d` units x the spread; before `adjust`, at 1 - confidence.

    Swapping the models mirrors everything; the order of prompts changes nothing.

    Args:
        question: names, kind and what was declared before the run.
        treatment: scores in [0, 1]; None where the answer could not be scored.
        control: scores of the same prompts.
        clusters: one label a prompt, such as the pair of a harmful prompt and its benign twin: prompts with one
            label are drawn, flipped and counted as one unit. None where all prompts are independent.
        rows: what the prompts are called in an error.
        confidence: of the intervals.
        resamples: of the bootstrap, and sign patterns where they cannot all be counted.
        seed: of both.
        bootstrap: whether to draw the bootstrap interval as well.

    Raises:
        ValueError: the lists differ in length.
        UserError: a score is not a number in [0, 1], or not 0 or 1 for a rate.
    """
    a, b, labels = _complete(question, treatment, control, clusters, rows)
    differences = a - b
    sign = _orientation(differences)
    units = clustered(sign * differences, labels)
    discordant = (int((differences > 0).sum()), int((differences < 0).sum())) if question.kind == "rate" else None
    common: dict[str, Any] = {
        "treatment": question.treatment,
        "control": question.control,
        "metric": question.metric,
        "kind": question.kind,
        "subset": question.subset,
        "higher_is_better": question.higher_is_better,
        "assumed_sd": question.assumed_sd,
        "confidence": confidence,
        "n_pairs": len(differences),
        "n_clusters": units.count,
        "n_missing": len(treatment) - len(differences),
        "estimate": sign * units.mean + 0.0 if len(differences) else None,
        "worst_case_bounds": worst_case_bounds(treatment, control),
        "discordant": discordant,
    }
    if units.count < 2:
        absent = EffectSize(name="risk_difference" if question.kind == "rate" else "cohen_d_z", value=None)
        nothing: dict[str, Any] = dict.fromkeys(_NEED_TWO)
        return Contrast(**common, **nothing, effect_size=absent)
    interval, method = _interval(units, discordant, sign, confidence)
    p_value, p_method = _p_value(units, discordant, resamples, seed)
    headline, *others = _effect_sizes(differences, discordant)
    drawn = bootstrap_interval(units, confidence=confidence, resamples=resamples, seed=seed) if bootstrap else None
    made = Contrast(
        **common,
        standard_error=units.standard_error,
        interval=interval,
        interval_method=method,
        bootstrap_interval=_oriented(drawn, sign) if drawn else None,
        equivalence_interval=_interval(units, discordant, sign, 2 * confidence - 1)[0],
        p_value=p_value,
        p_method=p_method,
        p_adjusted=p_value,
        effect_size=headline,
        other_effect_sizes=tuple(others),
        minimum_detectable_effect=None,
        half_width=(interval[1] - interval[0]) / 2,
    )
    return made.model_copy(update={"minimum_detectable_effect": _detectable(made, tests=1)})


_NEED_TWO = (
    "standard_error", "interval", "interval_method", "equivalence_interval", "p_value", "p_method", "p_adjusted",
    "minimum_detectable_effect", "half_width",
)  # fmt: skip


def adjust(contrasts: Sequence[Contrast], family: str, *, method: str = "holm") -> list[Contrast]:
    """Adjust the p-values of a declared family, and state what each of its tests can detect.

    A declared test that could not be made stays in the family with p = 1: what was measured in the end must not
    loosen the level of the others.

    Args:
        contrasts: the whole family, in any order.
        family: what it is called.
        method: ``holm`` for claims, ``benjamini_hochberg`` for drill-downs.

    Raises:
        ValueError: another method.
    """
    methods = {"holm": holm, "benjamini_hochberg": benjamini_hochberg}
    if method not in methods:
        raise ValueError(f"unknown adjustment '{method}'; known: {', '.join(methods)}")
    adjusted = methods[method]([1.0 if one.p_value is None else one.p_value for one in contrasts])
    tests = len(contrasts) if method == "holm" else 1
    return [
        one.model_copy(
            update={
                "p_adjusted": None if one.p_value is None else p,
                "family": family,
                "family_size": len(contrasts),
                "adjustment": method,
                "minimum_detectable_effect": _detectable(one, tests=tests),
            }
        )
        for one, p in zip(contrasts, adjusted, strict=True)
    ]


def _complete(
    question: Question,
    treatment: Sequence[float | None],
    control: Sequence[float | None],
    clusters: Sequence[Hashable] | None,
    rows: Sequence[object] | None,
) -> tuple[np.ndarray, np.ndarray, list[Hashable] | None]:
    """Both models' scores where both have one, checked, with their cluster labels."""
    for name, other in (("control scores", control), ("cluster labels", clusters), ("row labels", rows)):
        if other is not None and len(other) != len(treatment):
            raise ValueError(f"there are {len(treatment)} treatment scores and {len(other)} {name}")
    kept = [
        index for index, (a, b) in enumerate(zip(treatment, control, strict=True)) if a is not None and b is not None
    ]
    checked = []
    for model, scores in ((question.treatment, treatment), (question.control, control)):
        present = [index for index, score in enumerate(scores) if score is not None]
        values = [score for score in scores if score is not None]
        names = [rows[index] if rows else index for index in present]
        array = unit_scores(values, f"{question.metric} of {model}", names)
        if question.kind == "rate" and not is_binary(array):
            bad = int(np.flatnonzero(~np.isin(array, (0.0, 1.0)))[0])
            raise UserError(
                f"{question.metric} of {model}: the value of row {names[bad]} is {array[bad]:g}, neither 0 nor 1.",
                why="The metric was declared to be a rate.",
            )
        at = dict(zip(present, array, strict=True))
        checked.append(np.array([at[index] for index in kept], dtype=float))
    return checked[0], checked[1], [clusters[index] for index in kept] if clusters is not None else None


def _orientation(differences: np.ndarray) -> int:
    """1 or -1, so that a contrast and its mirror are computed on the same numbers and mirror exactly."""
    plus, minus = np.sort(differences), np.sort(-differences)
    unequal = np.flatnonzero(plus != minus)
    return -1 if len(unequal) and plus[unequal[0]] < minus[unequal[0]] else 1


def _oriented(interval: Interval, sign: int) -> Interval:
    low, high = interval
    return (low, high) if sign > 0 else (-high, -low)


def _interval(
    units: Clustered, discordant: tuple[int, int] | None, sign: int, confidence: float
) -> tuple[Interval, str]:
    if discordant is not None and units.singletons:
        return tango(*discordant, units.count, confidence=confidence), "tango"
    if units.constant:
        return _oriented(_no_spread(units, confidence), sign), "no_spread"
    return _oriented(units.t_interval(confidence), sign), "t" if units.singletons else "cluster_t"


def _no_spread(units: Clustered, confidence: float) -> Interval:
    """The differences that G units, all of the same value v, leave open.

    At most 1 - (alpha / 2)^(1 / G) of all units have another value, at this confidence (Clopper and Pearson 1934;
    the rule of three), and these can lie at -1 or at 1 at most.
    """
    value = units.mean
    share = 1 - ((1 - confidence) / 2) ** (1 / units.count)
    return value - share * (1 + value), value + share * (1 - value)


def _p_value(units: Clustered, discordant: tuple[int, int] | None, resamples: int, seed: int) -> tuple[float, str]:
    if discordant is not None and units.singletons:
        return mcnemar_exact(*discordant), "mcnemar_exact"
    return sign_flip(units.sums, resamples=resamples, seed=seed)


def _effect_sizes(differences: np.ndarray, discordant: tuple[int, int] | None) -> list[EffectSize]:
    higher, lower = int((differences > 0).sum()), int((differences < 0).sum())
    cliff = EffectSize(name="cliff_delta", value=(higher - lower) / len(differences))
    d_z = EffectSize(name="cohen_d_z", value=_d_z(differences))
    if discordant is None:
        return [d_z, cliff]
    odds = EffectSize(name="odds_ratio", value=(discordant[0] + 0.5) / (discordant[1] + 0.5))
    return [EffectSize(name="risk_difference", value=float(differences.mean())), cliff, odds, d_z]


def _d_z(differences: np.ndarray) -> float | None:
    if constant(differences):
        return 0.0 if not differences.any() else None
    ordered = differences[np.lexsort((differences, np.abs(differences)))]  # for sums without regard to the rows' order
    return float(ordered.mean() / ordered.std(ddof=1))


def _detectable(one: Contrast, *, tests: int) -> float | None:
    """The minimum detectable effect at the level that ``tests`` tests share."""
    if one.n_clusters < 2 or one.standard_error is None:
        return None
    if one.assumed_sd is not None:
        spread = one.assumed_sd  # as if clusters were single prompts: the most that their dependence can cost
    elif one.standard_error > 0:
        spread = one.standard_error * math.sqrt(one.n_clusters)
    else:
        return None
    return detectable_d(one.n_clusters, alpha=(1 - one.confidence) / tests) * spread
