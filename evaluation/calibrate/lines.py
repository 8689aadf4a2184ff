"""The card's lines: one evaluator, or one baseline, on one gold set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from evaluation.calibrate import measures
from evaluation.calibrate.card import CardRow, Kind
from evaluation.calibrate.gold import GoldItem, GoldPair
from evaluation.calibrate.measures import Measure, bootstrap
from evaluation.calibrate.scoring import Scored, answers
from evaluation.calibrate.tasks import HEAD_OF_CLASS, INVERTED
from evaluation.evaluators.protocol import Evaluator
from evaluation.evaluators.text import Text

FloatArray = Any
"""A numpy array of floats."""


class Draws(NamedTuple):
    """The bootstrap's settings."""

    seed: int
    draws: int

    def measure(self, statistic: measures.Statistic, clusters: Sequence[str]) -> Measure:
        """`measures.bootstrap` with these settings."""
        return bootstrap(statistic, clusters, seed=self.seed, draws=self.draws)


def evaluator_lines(
    evaluator: Evaluator, task: str, dataset: str, rows: Sequence[Scored], kind: Kind, draws: Draws
) -> list[CardRow]:
    """The lines of one evaluator on one gold set: one, or one for each class of a many-class task."""
    usable = [row for row in rows if row.reason is None]
    unscored = Counter(str(row.reason) for row in rows if row.reason is not None)
    common: dict[str, Any] = {
        "evaluator": evaluator.name,
        "task": task,
        "dataset": dataset,
        "kind": kind,
        "n": len(usable),
        "clusters": len({row.gold.cluster for row in usable}),
        "unscored": dict(sorted(unscored.items())),
    }
    if not usable:
        return [CardRow(**common)]
    if task == "harm_class":
        return _class_lines(common, usable, draws)
    measured = pair_measures if isinstance(usable[0].gold, GoldPair) else item_measures
    return [CardRow(**common, **measured(evaluator, usable, draws))]


def pair_measures(evaluator: Evaluator, rows: Sequence[Scored], draws: Draws) -> dict[str, Any]:
    """Accuracy of pairs with its baseline and, where the evaluator compares answers itself, its calibration."""
    import numpy as np

    values = np.array([row.values for row in rows])
    words = np.array([[word_count(answer) for answer in answers(row.gold)] for row in rows], dtype=float)
    clusters = [row.gold.cluster for row in rows]
    own = measures.mean_of(measures.wins(values[:, 0], values[:, 1]))
    length = measures.mean_of(better_direction(measures.wins(words[:, 0], words[:, 1])))
    found: dict[str, Any] = {
        "accuracy": draws.measure(own, clusters),
        "length": draws.measure(length, clusters),
        "above_length": draws.measure(measures.minus(own, length), clusters),
        "length_correlation": measures.rank_correlation(values.ravel(), words.ravel()),
    }
    prefer = getattr(evaluator, "prefer", None)
    if prefer is not None:
        sure = np.array([prefer(row.gold.prompt, *answers(row.gold)).probability for row in rows])
        both, outcomes = np.concatenate([sure, 1 - sure]), np.repeat([1.0, 0.0], len(sure))
        found["calibration_error"], found["brier"] = measures.calibration(both, outcomes)
    return found


def item_measures(evaluator: Evaluator, rows: Sequence[Scored], draws: Draws) -> dict[str, Any]:
    """AUC, accuracy, precision, recall, F1 and calibration of a labelled set."""
    import numpy as np

    inverted = rows[0].gold.task in INVERTED
    labels = np.array([float(row.gold.label) for row in rows if isinstance(row.gold, GoldItem)])
    values = np.array([row.values[0] for row in rows])
    scores = 1.0 - values if inverted else values
    guesses = np.array([float(row.positive != inverted) for row in rows])
    words = np.array([word_count(answers(row.gold)[0]) for row in rows], dtype=float)
    clusters = [row.gold.cluster for row in rows]

    def measure(statistic: measures.Statistic) -> Measure:
        return draws.measure(statistic, clusters)

    hits = labels * guesses
    found: dict[str, Any] = {
        "accuracy": measure(measures.mean_of((labels == guesses).astype(float))),
        "length_correlation": measures.rank_correlation(values, words),
    }
    if guesses.any():
        found["precision"] = measure(measures.ratio_of(hits, guesses))
    if labels.any():
        found["recall"] = measure(measures.ratio_of(hits, labels))
        found["f1"] = measure(measures.ratio_of(2 * hits, labels + guesses))
    found["calibration_error"], found["brier"] = measures.calibration(scores, labels)
    if 0 < labels.sum() < len(labels):
        own = measures.auc_of(scores, labels)
        length = length_auc(words, labels)
        found["auc"] = measure(own)
        found["length"] = measure(length)
        found["above_length"] = measure(measures.minus(own, length))
    return found


def _class_lines(common: dict[str, Any], rows: Sequence[Scored], draws: Draws) -> list[CardRow]:
    """The nine-way gold: for each class with a head of its own, that head's AUC against the other classes."""
    import numpy as np

    lines = []
    words = np.array([word_count(answers(row.gold)[0]) for row in rows], dtype=float)
    clusters = [row.gold.cluster for row in rows]
    for kind, head in HEAD_OF_CLASS.items():
        labels = np.array([float(row.gold.kind == kind) for row in rows if isinstance(row.gold, GoldItem)])
        if not 0 < labels.sum() < len(labels):
            continue
        scores = np.array([row.judgements[0].subscores[head] for row in rows])
        own, length = measures.auc_of(scores, labels), length_auc(words, labels)
        lines.append(
            CardRow(
                **{**common, "task": f"harm_class: {kind} by {head}"},
                auc=draws.measure(own, clusters),
                length=draws.measure(length, clusters),
                above_length=draws.measure(measures.minus(own, length), clusters),
                length_correlation=measures.rank_correlation(scores, words),
            )
        )
    return lines


def length_auc(words: FloatArray, labels: FloatArray) -> measures.Statistic:
    """The AUC of length alone, longer or shorter, whichever is better on all rows."""
    import numpy as np

    longer = measures.auc_of(words, labels)
    return longer if longer(np.ones((1, len(labels))))[0] >= 0.5 else measures.auc_of(-words, labels)


def better_direction(outcomes: FloatArray) -> FloatArray:
    """Outcomes of "the longer wins", or of "the shorter wins" where that is right more often."""
    return outcomes if outcomes.mean() >= 0.5 else 1.0 - outcomes


def word_count(text: str) -> int:
    """Words of an answer, as length alone sees it."""
    return len(Text(text).words)


def baseline_lines(task: str, dataset: str, rows: Sequence[Scored], draws: Draws) -> list[CardRow]:
    """Length alone and a constant on one whole gold set: the lines that the others stand beside."""
    import numpy as np

    words = np.array([[float(word_count(answer)) for answer in answers(row.gold)] for row in rows])
    clusters = [row.gold.cluster for row in rows]
    common: dict[str, Any] = {
        "task": task, "dataset": dataset, "kind": "held out", "n": len(rows), "clusters": len(set(clusters)),
        "unscored": {},
    }  # fmt: skip
    half = Measure(value=0.5, low=0.5, high=0.5)
    if isinstance(rows[0].gold, GoldPair):
        longer = measures.mean_of(better_direction(measures.wins(words[:, 0], words[:, 1])))
        return [
            CardRow(evaluator="length alone", accuracy=draws.measure(longer, clusters), **common),
            CardRow(evaluator="a constant", accuracy=half, **common),
        ]
    labels = np.array([float(row.gold.label) for row in rows if isinstance(row.gold, GoldItem)])
    if not 0 < labels.sum() < len(labels):
        return []
    usual = measures.mean_of(labels if labels.mean() >= 0.5 else 1 - labels)
    return [
        CardRow(evaluator="length alone", auc=draws.measure(length_auc(words[:, 0], labels), clusters), **common),
        CardRow(evaluator="a constant", accuracy=draws.measure(usual, clusters), auc=half, **common),
    ]
