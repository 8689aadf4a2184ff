"""Scores by principle of the constitution: what was measured, and what no prompt could have shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from evaluation.statistics.mean import mean_interval
from evaluation.statistics.records import PrincipleIndex, PrincipleScore

LEAST_UNITS = 10
"""Fewest independent prompts that show a difference of one standard deviation with 80 % power (alpha 0.05). A
principle with fewer reads "not measured": a bound on the design, so that no score is peeked at."""


def principle_scores(
    model: str,
    metric: str,
    scores: Sequence[float | None],
    principles: Sequence[Sequence[str]],
    *,
    order: Sequence[str],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> list[PrincipleScore]:
    """One score for each principle in ``order``, measured or not.

    Args:
        model: whose scores these are.
        metric: what was scored.
        scores: one a prompt, in [0, 1]; None where there is none.
        principles: ids of the principles that each prompt exercises.
        order: ids of the constitution, in its order.
        clusters: one label a prompt, as in `contrast`.
        confidence: of the intervals.

    Raises:
        ValueError: lengths differ.
        UserError: a score is not finite.
    """
    labels = list(range(len(scores))) if clusters is None else clusters
    rows = list(zip(scores, principles, labels, strict=True))
    found = []
    for principle in order:
        asked = [(score, label) for score, ids, label in rows if principle in ids]
        scored = [(score, label) for score, label in asked if score is not None]
        units = len({label for _, label in scored})
        why = _why_not(len(asked), len(scored), units)
        mean = None
        if not why:
            mean = mean_interval(
                [score for score, _ in scored], clusters=[label for _, label in scored], confidence=confidence
            )
        found.append(
            PrincipleScore(
                principle=principle,
                model=model,
                metric=metric,
                status="not_measured" if why else "measured",
                why=why,
                n_prompts=len(asked),
                n_scored=len(scored),
                n_clusters=units,
                mean=mean.mean if mean else None,
                interval=(mean.low, mean.high) if mean and mean.low is not None and mean.high is not None else None,
            )
        )
    return found


def principle_index(
    scores: Sequence[PrincipleScore], prompts: Sequence[Sequence[str]], *, order: Sequence[str]
) -> PrincipleIndex:
    """The scores with the coverage of the constitution by a set of prompts.

    Args:
        scores: of every model and metric (`principle_scores`).
        prompts: for each prompt once, the ids of the principles that it exercises.
        order: ids of the constitution, in its order.
    """
    counts = Counter(principle for ids in prompts for principle in set(ids))
    return PrincipleIndex(
        scores=tuple(scores),
        coverage={principle: counts[principle] for principle in order},
        unknown={principle: counts[principle] for principle in sorted(set(counts) - set(order))},
    )


def _why_not(asked: int, scored: int, units: int) -> str:
    if asked == 0:
        return "no prompt exercises it"
    if scored == 0:
        return f"none of its {asked} prompts has a score"
    if units < LEAST_UNITS:
        return f"{units} independent prompts; {LEAST_UNITS} are the fewest that show one standard deviation"
    return ""
