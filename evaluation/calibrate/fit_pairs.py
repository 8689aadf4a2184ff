"""Fits of the models that compare two answers: wording first, then the readable features, then the classifier."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from evaluation.calibrate import development, measures
from evaluation.calibrate.fit_answers import against_length
from evaluation.calibrate.gold import GoldPair
from evaluation.calibrate.models import PairModel
from evaluation.calibrate.solve import FloatArray, fit_linear, fit_wording
from evaluation.evaluators import wording
from evaluation.evaluators.features import NAMES, features
from evaluation.evaluators.linear import LinearModel
from evaluation.evaluators.response_mode import mode_of
from evaluation.evaluators.text import Text
from runs.atomic import write_text

PENALTIES = (1e-3, 1e-2)
STACK_PENALTIES = (1e-3, 1e-2, 1e-1)
WORDING_PENALTY = 100.0
WORDING_LEAST = 50
"""Answers that a phrase must occur in: rarer ones say more about a dialogue than about harm."""


class Table(NamedTuple):
    """Features of pairs."""

    better: FloatArray
    worse: FloatArray
    folds: FloatArray
    is_extra: FloatArray
    """Whether the row is a constitution pair: fitted on, never counted in an accuracy."""
    words: FloatArray
    """(n, 2) words of the answers."""
    clusters: list[str]


def fit_phrases(pairs: Sequence[GoldPair]) -> tuple[FloatArray, dict[str, float]]:
    """Fit the weights of the phrases.

    Returns:
        (n, 2) wording scores from weights that did not see the pair's fold, and the weights from all pairs.
    """
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    def analyse(answer: str) -> Iterable[str]:
        return sorted(wording.phrases(Text(answer)))

    counter = CountVectorizer(analyzer=analyse, min_df=WORDING_LEAST, binary=True, dtype=np.float32)
    counts = counter.fit_transform([text for pair in pairs for text in (pair.better, pair.worse)])
    first, second = counts[::2], counts[1::2]
    folds = np.array([development.fold_of(pair.cluster) for pair in pairs])
    unseen = np.zeros((len(pairs), 2))
    for fold in range(development.FOLDS):
        train = folds != fold
        weights = fit_wording(first[train], second[train], WORDING_PENALTY)
        unseen[~train, 0], unseen[~train, 1] = first[~train] @ weights, second[~train] @ weights
    weights = fit_wording(first, second, WORDING_PENALTY)
    names = map(str, counter.get_feature_names_out())
    table = {name: round(float(weight), 4) for name, weight in zip(names, weights, strict=True)}
    return unseen, {name: table[name] for name in sorted(table) if table[name]}


def write_wording(phrases: dict[str, float]) -> None:
    """Write wording-v1.json."""
    write_text(wording.FILE, json.dumps(phrases, ensure_ascii=False, indent=0) + "\n")


def feature_table(main: Sequence[GoldPair], extra: Sequence[GoldPair], unseen: FloatArray | None) -> Table:
    """The features of every pair; ``unseen`` holds wording scores by weights that did not see the pair."""
    import numpy as np

    sides: list[list[list[float]]] = [[], []]
    words: list[list[float]] = []
    pairs = [*main, *extra]
    for index, pair in enumerate(pairs):
        words.append([])
        for side, answer in enumerate((pair.better, pair.worse)):
            found = dict(features(pair.prompt, mode_of(pair.prompt, answer)))
            if unseen is not None:
                found["wording"] = float(unseen[index, side])
            sides[side].append([found[name] for name in NAMES])
            words[-1].append(float(len(Text(answer).words)))
    return Table(
        better=np.array(sides[0]),
        worse=np.array(sides[1]),
        folds=np.array([development.fold_of(pair.cluster) for pair in pairs]),
        is_extra=np.arange(len(pairs)) >= len(main),
        words=np.array(words),
        clusters=[pair.cluster for pair in pairs],
    )


def fit_pairs(spec: PairModel, table: Table) -> tuple[LinearModel, FloatArray]:
    """Choose the penalty and the weight of the constitution pairs by cross-validation, then fit on everything.

    Returns:
        The model, and the margin of each pair under a model that did not see its fold, (n,).
    """
    import numpy as np
    from scipy.stats import spearmanr

    columns = [NAMES.index(name) for name in spec.features]
    better, worse = table.better[:, columns], table.worse[:, columns]
    main = ~table.is_extra
    answers = np.vstack([better[main], worse[main]])
    lengths = np.log1p(np.concatenate([table.words[main, 0], table.words[main, 1]]))
    neutral = None
    if spec.neutral_to_length:
        neutral = ((lengths - lengths.mean())[:, None] * (answers - answers.mean(axis=0))).mean(axis=0)
    signs = [spec.signs.get(name, 0) for name in spec.features]

    def solve(train: FloatArray, penalty: float, extra: float) -> FloatArray:
        shares = np.where(table.is_extra, extra, 1.0)[train]
        return fit_linear(
            (better - worse)[train], np.ones(train.sum()), penalty=penalty, weights=shares, intercept=False,
            signs=signs, neutral=neutral,
        )[0]  # fmt: skip

    def unseen(penalty: float, extra: float) -> FloatArray:
        margins = np.zeros(len(better))
        for fold in range(development.FOLDS):
            held = table.folds == fold
            margins[held] = (better - worse)[held] @ solve(~held, penalty, extra)
        return margins

    grid = {(penalty, extra): unseen(penalty, extra) for penalty in PENALTIES for extra in spec.extra_weights}
    penalty, extra = max(grid, key=lambda choice: float(_right(grid[choice][main]).mean()))
    margins = grid[penalty, extra]
    coefficients = solve(np.ones(len(better), dtype=bool), penalty, extra)
    scores = answers @ coefficients
    fitted = LinearModel(
        kind="pairwise",
        coefficients=dict(zip(spec.features, map(float, coefficients), strict=True)),
        quantiles=tuple(map(float, np.quantile(scores, np.linspace(0, 1, 21)))),
        constraints=("signs", "no linear relation to log length") if spec.neutral_to_length else ("signs",),
        fitted_on={"hh-rlhf pairs": int(main.sum()), "constitution pairs": int(table.is_extra.sum())},
        cross_validated={
            "penalty": penalty,
            "weight_of_a_constitution_pair": extra,
            "rank_correlation_with_length": float(spearmanr(scores, lengths).statistic),
            **_measured(table, margins, main),
        },
    )
    return fitted, margins


def fit_stack(
    table: Table, margins: FloatArray, readable: FloatArray, heads: Sequence[str], scores: FloatArray, own: str
) -> LinearModel:
    """The readable score and the classifier's heads, weighed on pairs that neither has seen.

    Args:
        table: the pairs.
        margins: (n,) of the readable model, each from a fit without the pair's fold.
        readable: (n, 2) scores of the readable model that ships, for the scale of single answers.
        heads: the classifier's heads.
        scores: (n, 2, heads) their logits; NaN where the classifier was trained on the pair.
        own: the head that was trained to rate what the pairs are about; measured by itself beside the sum.
    """
    import numpy as np

    known = np.isfinite(scores).all(axis=(1, 2))
    held = known & ~table.is_extra
    rows = np.column_stack([margins, scores[:, 0] - scores[:, 1]])
    names = ("readable", *heads)
    signs = [int(name == "readable") for name in names]

    def solve(train: FloatArray, penalty: float) -> FloatArray:
        return fit_linear(rows[train], np.ones(train.sum()), penalty=penalty, intercept=False, signs=signs)[0]

    def unseen(penalty: float) -> FloatArray:
        found = np.zeros(len(rows))
        for fold in range(development.FOLDS):
            test = held & (table.folds == fold)
            found[test] = rows[test] @ solve(held & (table.folds != fold), penalty)
        return found

    tried = {penalty: unseen(penalty) for penalty in STACK_PENALTIES}
    penalty = max(tried, key=lambda choice: float(_right(tried[choice][held]).mean()))
    weights = solve(held, penalty)
    answers = np.concatenate([readable[:, :, None], scores], axis=2)[known].reshape(-1, len(names))
    return LinearModel(
        kind="pairwise",
        coefficients=dict(zip(names, map(float, weights), strict=True)),
        quantiles=tuple(map(float, np.quantile(answers @ weights, np.linspace(0, 1, 21)))),
        constraints=("the readable score's sign",),
        fitted_on={"hh-rlhf pairs that the classifier was not trained on": int(held.sum())},
        cross_validated={
            "penalty": penalty,
            **_measured(table, tried[penalty], held),
            "readable alone, same pairs": float(_right(margins[held]).mean()),
            f"{own} head alone, same pairs": float(_right(rows[held, names.index(own)]).mean()),
        },
    )


def _right(margins: FloatArray) -> FloatArray:
    return (margins > 0) + 0.5 * (margins == 0)


def _measured(table: Table, margins: FloatArray, held: FloatArray) -> dict[str, float]:
    """Pairwise accuracy on the rows ``held``, beside length alone in its better direction."""
    longer = measures.wins(table.words[held, 0], table.words[held, 1])
    length = longer if longer.mean() >= 0.5 else 1.0 - longer
    clusters = [cluster for cluster, kept in zip(table.clusters, held, strict=True) if kept]
    return against_length(measures.mean_of(_right(margins[held])), measures.mean_of(length), clusters)
