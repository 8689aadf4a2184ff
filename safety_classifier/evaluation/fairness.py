"""Fairness: does the score follow what is said, or whom it names?

Subgroup, BPSN and BNSP AUC and their power mean (Borkan et al. 2019; the final metric of Jigsaw's unintended-bias
challenge), counterfactual identity swaps (Garg et al. 2019), and the equalised-odds gap at the frozen threshold (Hardt
et al. 2016).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

import numpy as np

from runs.config import StrictModel
from safety_classifier.calibration import Floats, Ints
from safety_classifier.evaluation.frame import Rows
from safety_classifier.evaluation.identities import IDENTITIES, MEANINGS, MENTIONS, SWAPS, TEMPLATES
from safety_classifier.evaluation.intervals import Bootstrap, Estimate
from safety_classifier.evaluation.metrics import Flags, Ranked
from safety_classifier.evaluation.scorer import Scorer

POWER = -5.0
"""Of Jigsaw's mean over groups: the worst groups weigh most."""
LEAST = 20
"""A group needs so many rows of either class to be measured."""


class GroupFairness(StrictModel):
    """One group: the three AUCs and the rates at the frozen threshold."""

    group: str
    positives: int
    negatives: int
    subgroup: Estimate
    """Harmful against harmless rows that name the group."""
    bpsn: Estimate
    """Background positive, subgroup negative: low when harmless rows that name the group look harmful."""
    bnsp: Estimate
    """Background negative, subgroup positive: low when harmful rows that name the group look harmless."""
    recall: float
    fpr: float


class Bias(StrictModel):
    """One head on one set of rows."""

    head: str
    rows: int
    groups: tuple[GroupFairness, ...]
    overall: Estimate
    """AUROC over all rows."""
    final: Estimate
    """Jigsaw's metric: a quarter overall AUROC, the rest the mean of the power means of the three AUCs over groups."""
    worst_bpsn: Estimate
    odds_gap: Estimate
    """Equalised odds: the larger of the spreads of recall and of the false-positive rate over groups."""


class SwapShift(StrictModel):
    """What swapping the identity in a sentence does to one head."""

    head: str
    sentences: int
    pairs: int
    mean: Estimate
    """Mean |difference| of the probabilities of two versions of a sentence."""
    p95: float
    flips: float
    """Share of the pairs whose versions fall on different sides of the threshold."""


class Fairness(StrictModel):
    """All of it, on template sentences and on real rows."""

    templates: dict[str, Bias]
    mentions: dict[str, Bias]
    """Labelled test rows; the groups are those that they mention. Empty if no group has enough rows."""
    template_swaps: dict[str, SwapShift]
    text_swaps: dict[str, SwapShift]
    """Test rows that name one group, against the same rows with another."""


def measure_fairness(scorer: Scorer, rows: Rows, *, resamples: int, seed: int) -> Fairness:
    """Measure all heads that `MEANINGS` has labels for.

    Args:
        scorer: the thing under evaluation.
        rows: labelled rows of the test split.
        resamples: of the bootstraps (whole templates, or groups of rows, are drawn).
        seed: of the bootstraps and of the swaps.
    """
    labels = scorer.labels
    heads = [head for head in MEANINGS if head in labels.names]
    texts, template, identity = template_sentences()
    scores = scorer.probabilities(texts)
    real = scorer.probabilities(rows.texts, rows.contexts)
    members = {name: np.array([bool(p.search(text)) for text in rows.texts]) for name, p in MENTIONS.items()}
    names = sorted(set(identity))
    groups = {name: np.array([one == name for one in identity]) for name in names}
    result: dict[str, dict[str, Bias]] = {"templates": {}, "mentions": {}}
    shifts = {}
    for head in heads:
        column = labels.column(head)
        threshold = scorer.thresholds[head]
        targets = np.array([MEANINGS[head][TEMPLATES[number].meaning] for number in template])
        drawn = Bootstrap(template, np.zeros(len(template), np.int64), resamples, seed)
        bias = group_bias(scores[:, column], targets, groups, threshold, bootstrap=drawn, least=5, head=head)
        if bias:
            result["templates"][head] = bias
        drawn = Bootstrap(rows.clusters, rows.strata, resamples, seed)
        bias = group_bias(real[:, column], rows.targets[:, column], members, threshold, bootstrap=drawn, head=head)
        if bias:
            result["mentions"][head] = bias
        table = scores[:, column].reshape(len(TEMPLATES), len(IDENTITIES))
        shifts[head] = all_pairs_shift(table, threshold, head=head, resamples=resamples, seed=seed)
    swapped = swap_shift(scorer, rows, heads, resamples=resamples, seed=seed)
    return Fairness(**result, template_swaps=shifts, text_swaps=swapped)


def template_sentences() -> tuple[list[str], Ints, list[str]]:
    """All templates about all identities, template by template: texts, template numbers (n,), identity names."""
    texts = [template.about(identity) for template in TEMPLATES for identity in IDENTITIES]
    template = np.repeat(np.arange(len(TEMPLATES)), len(IDENTITIES))
    return texts, template, [identity.name for _ in TEMPLATES for identity in IDENTITIES]


def power_mean(values: Floats, power: float = POWER) -> Floats:
    """The generalised mean over the first axis: (g, b) to (b,)."""
    mean: Floats = np.mean(np.maximum(values, 1e-12) ** power, axis=0) ** (1 / power)
    return mean


def group_bias(
    scores: Floats,
    targets: Floats,
    groups: Mapping[str, Flags],
    threshold: float,
    *,
    bootstrap: Bootstrap,
    least: int = LEAST,
    head: str = "",
) -> Bias | None:
    """The bias of one head.

    Args:
        scores: (n,).
        targets: (n,) of 0 and 1, NaN where unknown.
        groups: name to membership (n,) of each group; a row may belong to several.
        threshold: the frozen threshold.
        bootstrap: the resamples of the rows.
        least: rows of either class that a group needs.
        head: for the record.

    Returns:
        None if no group has enough rows.
    """
    usable = {
        name: member
        for name, member in groups.items()
        if min((targets[member] == 1).sum(), (targets[member] == 0).sum()) >= least
    }
    if not usable:
        return None
    everything = Ranked(scores, targets)
    parts = {
        name: {
            "subgroup": Ranked(scores, targets, flagged=scores >= threshold, subset=np.flatnonzero(member)),
            "bpsn": Ranked(scores, targets, subset=np.flatnonzero(np.where(member, targets == 0, targets == 1))),
            "bnsp": Ranked(scores, targets, subset=np.flatnonzero(np.where(member, targets == 1, targets == 0))),
        }
        for name, member in usable.items()
    }

    def statistic(weights: Floats) -> dict[str, Floats]:
        values = {"overall": everything.auroc(weights)}
        rates: dict[str, list[Floats]] = {"recall": [], "fpr": []}
        for name, kinds in parts.items():
            own = kinds["subgroup"](weights)
            values[f"{name}/subgroup"] = own["auroc"]
            for rate, series in rates.items():
                values[f"{name}/{rate}"] = own[rate]
                series.append(own[rate])
            for kind in ("bpsn", "bnsp"):
                values[f"{name}/{kind}"] = kinds[kind].auroc(weights)
        stacks = {kind: np.stack([values[f"{name}/{kind}"] for name in parts]) for kind in ("subgroup", "bpsn", "bnsp")}
        values["final"] = 0.25 * values["overall"] + 0.25 * sum(power_mean(stack) for stack in stacks.values())
        values["worst_bpsn"] = stacks["bpsn"].min(axis=0)
        gaps = np.max([np.ptp(np.stack(series), axis=0) for series in rates.values()], axis=0)
        values["odds_gap"] = gaps if len(parts) > 1 else np.full(len(weights), np.nan)
        return values

    found = bootstrap.estimates(statistic)
    return Bias(
        head=head,
        rows=everything.labelled,
        groups=tuple(
            GroupFairness(
                group=name,
                positives=kinds["subgroup"].positives,
                negatives=kinds["subgroup"].labelled - kinds["subgroup"].positives,
                subgroup=found[f"{name}/subgroup"],
                bpsn=found[f"{name}/bpsn"],
                bnsp=found[f"{name}/bnsp"],
                recall=found[f"{name}/recall"].value or 0.0,
                fpr=found[f"{name}/fpr"].value or 0.0,
            )
            for name, kinds in parts.items()
        ),
        **{name: found[name] for name in ("overall", "final", "worst_bpsn", "odds_gap")},
    )


def all_pairs_shift(table: Floats, threshold: float, *, head: str, resamples: int, seed: int) -> SwapShift:
    """The shift over all pairs of identities in the same sentence, from probabilities (templates, identities)."""
    first, second = np.triu_indices(table.shape[1], k=1)
    return _shift(
        table[:, first].ravel(),
        table[:, second].ravel(),
        np.repeat(np.arange(len(table)), len(first)),
        threshold,
        head=head,
        resamples=resamples,
        seed=seed,
    )


def swap_shift(
    scorer: Scorer, rows: Rows, heads: Sequence[str], *, resamples: int, seed: int, versions: int = 3, most: int = 2000
) -> dict[str, SwapShift]:
    """The shift in real rows: up to ``versions`` other terms for the group that a row names, in up to ``most`` rows."""
    originals: list[int] = []
    swapped: list[str] = []
    order = np.random.default_rng(seed).permutation(len(rows))
    for row in order:
        others = identity_swaps(rows.texts[row], random.Random(f"{seed}/{row}"), versions)  # noqa: S311
        originals.extend([int(row)] * len(others))
        swapped.extend(others)
        if len(set(originals)) >= most:
            break
    if not originals:
        return {}
    before = scorer.probabilities([rows.texts[row] for row in originals], [rows.contexts[row] for row in originals])
    after = scorer.probabilities(swapped, [rows.contexts[row] for row in originals])
    clusters = np.array(originals)
    return {
        head: _shift(
            before[:, column],
            after[:, column],
            clusters,
            scorer.thresholds[head],
            head=head,
            resamples=resamples,
            seed=seed,
        )
        for head, column in zip(heads, scorer.labels.columns(heads), strict=True)
    }


_TERM = re.compile(rf"\b(?:{'|'.join(sorted({term for row in SWAPS for term in row}, key=len, reverse=True))})\b", re.I)


def identity_swaps(text: str, rng: random.Random, versions: int) -> list[str]:
    """Up to ``versions`` copies of ``text`` with its identity term replaced; none if it names no term or several."""
    terms = {match.group().lower() for match in _TERM.finditer(text)}
    if len(terms) != 1:
        return []
    term = terms.pop()
    others = [other for row in SWAPS if term in row for other in row if other != term]

    def like(other: str, model: str) -> str:
        return other.upper() if model.isupper() else other.capitalize() if model[0].isupper() else other

    return [
        _TERM.sub(lambda match, other=other: like(other, match.group()), text)  # type: ignore[misc]
        for other in rng.sample(others, min(versions, len(others)))
    ]


def _shift(
    before: Floats, after: Floats, clusters: Ints, threshold: float, *, head: str, resamples: int, seed: int
) -> SwapShift:
    gap = np.abs(before.astype(np.float64) - after)
    _, sentence = np.unique(clusters, return_inverse=True)
    sums, counts = np.bincount(sentence, weights=gap), np.bincount(sentence)
    drawn = Bootstrap.of_rows(len(counts), resamples=resamples, seed=seed)
    mean = drawn.estimates(lambda w: {"mean": w @ sums / (w @ counts)})["mean"]
    return SwapShift(
        head=head,
        sentences=len(counts),
        pairs=len(gap),
        mean=mean,
        p95=float(np.quantile(gap, 0.95)),
        flips=float(np.mean((before >= threshold) != (after >= threshold))),
    )
