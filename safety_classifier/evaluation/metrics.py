"""Accuracy of each head and of the headline categories together, with intervals.

All curve statistics are scikit-learn's definitions under row weights (average precision, not an interpolated area),
computed for a block of resamples at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from pydantic import Field

from runs.config import StrictModel
from safety_classifier.calibration import BINS, Floats, Ints, bin_index
from safety_classifier.evaluation.frame import Rows
from safety_classifier.evaluation.intervals import Bootstrap, Estimate, mean_estimate
from safety_classifier.evaluation.scorer import Scores
from safety_classifier.labels import Labels

RATES = {"recall_fpr_0.1": 0.001, "recall_fpr_1": 0.01, "recall_fpr_5": 0.05}
"""Recall at so small a share of false positives (%, in the name)."""
METRICS = ("f1", "auprc", "auroc", "ece_mass", "ece_width", "brier", *RATES, "precision", "recall", "fpr", "accuracy")
MACRO = "macro"


Flags = npt.NDArray[np.bool_]


class Ranked:
    """The statistics of one head over its labelled rows.

    Args:
        scores: (n,) of all rows.
        targets: (n,) of 0 and 1; NaN where unknown.
        flagged: (n,) the decisions at the frozen thresholds; None: no decision statistics.
        subset: (m,) row numbers to look at; None: all.
        probability: whether the scores are probabilities, so that calibration means something.
    """

    def __init__(
        self,
        scores: Floats,
        targets: Floats,
        *,
        flagged: Flags | None = None,
        subset: Ints | None = None,
        probability: bool = False,
    ) -> None:
        rows = np.arange(len(targets)) if subset is None else subset
        rows = rows[~np.isnan(targets[rows])]
        order = np.argsort(-scores[rows], kind="stable")
        self.rows = rows[order]
        p = np.asarray(scores, np.float64)[self.rows]
        self._y = targets[self.rows]
        self._starts = np.flatnonzero(np.append(True, np.diff(p) != 0)) if len(p) else np.array([], np.int64)
        self._flagged = None if flagged is None else flagged[self.rows].astype(np.float64)
        self._p, self._probability = p, probability
        if probability and len(p):
            self._bins = {"mass": bin_index(p, binning="mass"), "width": bin_index(p, binning="width")}

    @property
    def labelled(self) -> int:
        """Rows with a known label."""
        return len(self.rows)

    @property
    def positives(self) -> int:
        """Rows of the harmful class."""
        return int(self._y.sum())

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Every statistic under ``weights`` (b, all rows): name to (b,)."""
        w = weights[:, self.rows]
        found = self._curves(w)
        if self._flagged is not None:
            found |= self._decisions(w)
        if self._probability:
            found |= self._calibration(w)
        return found

    def auroc(self, weights: Floats) -> Floats:
        """The area under the ROC curve only: (b,)."""
        return self._curves(weights[:, self.rows], area_only=True)["auroc"]

    def _curves(self, w: Floats, *, area_only: bool = False) -> dict[str, Floats]:
        names = ("auroc",) if area_only else ("auroc", "auprc", *RATES)
        if not self.labelled:
            return {name: np.full(len(w), np.nan) for name in names}
        hits = np.add.reduceat(w * self._y, self._starts, axis=1)
        alarms = np.add.reduceat(w * (1 - self._y), self._starts, axis=1)
        tp, fp = np.cumsum(hits, axis=1), np.cumsum(alarms, axis=1)
        positives, negatives = tp[:, -1], fp[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = {"auroc": np.sum(alarms * (tp - hits / 2), axis=1) / (positives * negatives)}
            if area_only:
                return found
            precision = np.where(tp + fp > 0, tp / (tp + fp), 0.0)
            found["auprc"] = np.sum(hits * precision, axis=1) / positives
            for name, rate in RATES.items():
                # The most recall of any threshold within the rate; a hair of slack for the rounding of the division.
                within = fp <= (rate + 1e-12) * negatives[:, None]
                best = np.max(np.where(within, tp, 0.0), axis=1)
                found[name] = np.where(negatives > 0, best / positives, np.nan)
        return found

    def _decisions(self, w: Floats) -> dict[str, Floats]:
        flagged = self._flagged if self._flagged is not None else np.zeros_like(self._y)
        tp, fp = w @ (flagged * self._y), w @ (flagged * (1 - self._y))
        positives, total = w @ self._y, w.sum(axis=1)
        negatives = total - positives
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                # No positives: undefined. No flags: 0, as everywhere else.
                "f1": np.where(positives > 0, 2 * tp / (tp + fp + positives), np.nan),
                "precision": tp / (tp + fp),
                "recall": tp / positives,
                "fpr": fp / negatives,
                "accuracy": (tp + negatives - fp) / total,
            }

    def _calibration(self, w: Floats) -> dict[str, Floats]:
        if not self.labelled:
            return {name: np.full(len(w), np.nan) for name in ("brier", "ece_mass", "ece_width")}
        total = w.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = {"brier": w @ (self._p - self._y) ** 2 / total}
            for kind, index in self._bins.items():
                # Bins stay those of the full sample; resampled gaps add up noise, so the interval leans upwards.
                gaps = (self._y - self._p)[:, None] * (index[:, None] == np.arange(BINS)[None, :])
                found[f"ece_{kind}"] = np.abs(w @ gaps).sum(axis=1) / total
        return found


class HeadMetrics(StrictModel):
    """The metrics of one head, or of the macro average."""

    labelled: int
    positives: int
    threshold: float | None
    metrics: dict[str, Estimate]


class MetricTable(StrictModel):
    """One scorer on one set of rows."""

    heads: dict[str, HeadMetrics]
    macro: HeadMetrics
    """Mean over the headline categories that have rows of both classes."""
    macro_over: tuple[str, ...]


def decided(scores: Scores, labels: Labels, head: str, thresholds: Mapping[str, float]) -> Flags | None:
    """(n,) the rows that the head flags: float32 scores against the threshold, as in serving; None without one."""
    return scores[:, labels.column(head)] >= thresholds[head] if head in thresholds else None


def ranked_heads(labels: Labels, rows: Rows, scores: Scores, thresholds: Mapping[str, float]) -> dict[str, Ranked]:
    """The statistics of each category and response head that has labelled rows."""
    found = {}
    for name in labels.of("category", "response"):
        column = labels.column(name)
        ranked = Ranked(
            scores[:, column],
            rows.targets[:, column],
            flagged=decided(scores, labels, name, thresholds),
            probability=True,
        )
        if ranked.labelled:
            found[name] = ranked
    return found


def flat_statistics(ranked: Mapping[str, Ranked], headline: Iterable[str], weights: Floats) -> dict[str, Floats]:
    """``head/metric`` to (b,) for every head, and ``macro/metric``: the mean over ``headline``."""
    found = {f"{head}/{name}": value for head, one in ranked.items() for name, value in one(weights).items()}
    chosen = list(headline)
    for metric in {name.partition("/")[2] for name in found}:
        parts = [found[f"{head}/{metric}"] for head in chosen if f"{head}/{metric}" in found]
        if len(parts) == len(chosen) and parts:
            found[f"{MACRO}/{metric}"] = np.mean(parts, axis=0)
    return found


def macro_heads(labels: Labels, ranked: Mapping[str, Ranked]) -> tuple[str, ...]:
    """The headline categories that have rows of both classes."""
    return tuple(
        name
        for name in labels.of("category", headline=True)
        if name in ranked and 0 < ranked[name].positives < ranked[name].labelled
    )


def metric_table(
    labels: Labels, rows: Rows, scores: Scores, thresholds: Mapping[str, float], *, resamples: int, seed: int
) -> MetricTable:
    """All metrics of one scorer.

    Args:
        labels: the schema.
        rows: the labelled rows.
        scores: (n, heads).
        thresholds: frozen threshold of each head.
        resamples: bootstrap resamples (B).
        seed: of the bootstrap.
    """
    ranked = ranked_heads(labels, rows, scores, thresholds)
    over = macro_heads(labels, ranked)
    bootstrap = Bootstrap(rows.clusters, rows.strata, resamples, seed)
    found = bootstrap.estimates(lambda weights: flat_statistics(ranked, over, weights))

    def metrics(head: str) -> dict[str, Estimate]:
        return {name: found[f"{head}/{name}"] for name in METRICS if f"{head}/{name}" in found}

    heads = {
        head: HeadMetrics(
            labelled=one.labelled, positives=one.positives, threshold=thresholds.get(head), metrics=metrics(head)
        )
        for head, one in ranked.items()
    }
    macro = HeadMetrics(
        labelled=sum(heads[head].labelled for head in over),
        positives=sum(heads[head].positives for head in over),
        threshold=None,
        metrics=metrics(MACRO),
    )
    return MetricTable(heads=heads, macro=macro, macro_over=over)


class SourceAuroc(StrictModel):
    """The area under the ROC curve within one source: its style cannot give the label away."""

    head: str
    source: str
    positives: int
    negatives: int
    auroc: Estimate


def within_source(
    labels: Labels, rows: Rows, scores: Scores, *, resamples: int, seed: int, least: int = 10
) -> list[SourceAuroc]:
    """AUROC of each head in each source that has at least ``least`` rows of both classes."""
    sources = np.array(rows.sources)
    found: dict[str, tuple[str, str, Ranked]] = {}
    for head in labels.of("category", "response"):
        column = labels.column(head)
        for source in np.unique(sources):
            one = Ranked(scores[:, column], rows.targets[:, column], subset=np.flatnonzero(sources == source))
            if min(one.positives, one.labelled - one.positives) >= least:
                found[f"{head}/{source}"] = (head, str(source), one)
    bootstrap = Bootstrap(rows.clusters, rows.strata, resamples, seed)
    estimates = bootstrap.estimates(lambda weights: {key: one.auroc(weights) for key, (_, _, one) in found.items()})
    return [
        SourceAuroc(
            head=head,
            source=source,
            positives=one.positives,
            negatives=one.labelled - one.positives,
            auroc=estimates[key],
        )
        for key, (head, source, one) in found.items()
    ]


class SourcePairs(StrictModel):
    """Pairs of one source."""

    pairs: int
    accuracy: Estimate


class PairAccuracy(SourcePairs):
    """How often a preference head scores the chosen response above the rejected one; a tie counts half."""

    sources: dict[str, SourcePairs] = Field(default_factory=dict)
    """The same within each source: easy pairs of one flatter the pooled figure."""


def pair_wins(scores: Scores, pairs: Ints, column: int) -> Floats:
    """(m,) 1 where the chosen response scores higher, ½ at a tie, else 0; from scores (n, heads) and pairs (m, 2)."""
    margin = scores[pairs[:, 0], column] - scores[pairs[:, 1], column]
    return np.asarray((np.sign(margin) + 1.0) / 2, np.float64)


def pair_accuracies(
    labels: Labels, rows: Rows, scores: Scores, *, resamples: int, seed: int
) -> dict[str, PairAccuracy]:
    """Pairwise accuracy of each preference head that has pairs; whole groups are resampled."""
    found = {}
    for name, pairs in rows.pairs.items():
        wins = pair_wins(scores, pairs, labels.column(name))
        clusters = rows.clusters[pairs[:, 0]]
        origin = np.array(rows.sources)[pairs[:, 0]]
        sources = {}
        for source in np.unique(origin):
            own = origin == source
            accuracy = mean_estimate(wins[own], clusters[own], resamples=resamples, seed=seed)
            sources[str(source)] = SourcePairs(pairs=int(own.sum()), accuracy=accuracy)
        accuracy = mean_estimate(wins, clusters, resamples=resamples, seed=seed)
        found[name] = PairAccuracy(pairs=len(pairs), accuracy=accuracy, sources=sources)
    return found


class Curve(StrictModel):
    """Points of a precision-recall curve, thinned for drawing."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]
    prevalence: float


def precision_recall(targets: Floats, scores: Floats, *, points: int = 200) -> Curve | None:
    """The precision-recall curve of one head: targets (n,) (NaN: unknown), scores (n,); None without positives."""
    from safety_classifier.thresholds import OperatingPoints

    known = ~np.isnan(targets)
    y = targets[known]
    if not y.sum():
        return None
    curve = OperatingPoints.of(y, scores[known])
    keep = np.unique(np.searchsorted(curve.recall, np.linspace(curve.recall[0], 1.0, points)))
    return Curve(
        recall=tuple(float(value) for value in curve.recall[keep]),
        precision=tuple(float(value) for value in curve.precision[keep]),
        prevalence=float(y.mean()),
    )
