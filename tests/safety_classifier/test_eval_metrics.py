from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from runs.errors import UsageError, UserError
from safety_classifier.evaluation.compare import paired_compare
from safety_classifier.evaluation.frame import rows_of
from safety_classifier.evaluation.intervals import Bootstrap, mean_estimate
from safety_classifier.evaluation.metrics import (
    Ranked,
    metric_table,
    pair_accuracies,
    precision_recall,
    within_source,
)
from safety_classifier.labels import LABELS, Head, Labels
from tests.safety_classifier.eval_tools import WordScorer, small_frame


def ranked_case(seed: int, n: int = 300, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(float)
    p = np.clip(0.35 * y + 0.6 * rng.random(n), 0, 1)
    return y, (np.round(p, 2) if ties else p).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [True, False])
def test_every_statistic_equals_sklearn_with_and_without_weights(seed, ties):
    y, p = ranked_case(seed, ties=ties)
    weights = np.random.default_rng(seed + 100).multinomial(len(y), np.full(len(y), 1 / len(y)), size=2).astype(float)
    weights = np.vstack([np.ones(len(y)), weights])
    found = Ranked(p, y, flagged=p >= 0.5, probability=True)(weights)
    for row, w in enumerate(weights):
        fpr, tpr, _ = sk.roc_curve(y, p, sample_weight=w)
        flagged = p >= 0.5
        expected = {
            "auroc": sk.roc_auc_score(y, p, sample_weight=w),
            "auprc": sk.average_precision_score(y, p, sample_weight=w),
            "brier": np.average((p.astype(float) - y) ** 2, weights=w),
            "f1": sk.f1_score(y, flagged, sample_weight=w),
            "precision": sk.precision_score(y, flagged, sample_weight=w),
            "recall": sk.recall_score(y, flagged, sample_weight=w),
            "accuracy": sk.accuracy_score(y, flagged, sample_weight=w),
            "recall_fpr_5": tpr[fpr <= 0.05 + 1e-12].max(),
            "recall_fpr_1": tpr[fpr <= 0.01 + 1e-12].max(),
        }
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-9), name


def test_unknown_labels_are_left_out_and_a_single_class_is_undefined():
    y, p = ranked_case(0)
    hidden = y.copy()
    hidden[::3] = np.nan
    known = ~np.isnan(hidden)
    weights = np.ones((1, len(y)))
    assert Ranked(p, hidden).auroc(weights)[0] == pytest.approx(sk.roc_auc_score(y[known], p[known]), abs=1e-12)
    alone = Ranked(p, np.zeros(len(y)), flagged=p >= 0.5, probability=True)(weights)
    assert np.isnan(alone["auroc"][0])
    assert np.isnan(alone["f1"][0])
    assert alone["accuracy"][0] == pytest.approx(np.mean(p < 0.5))
    empty = Ranked(p, np.full(len(y), np.nan), flagged=p >= 0.5, probability=True)(weights)
    assert all(np.isnan(value[0]) for value in empty.values())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=4, max_size=40))
def test_auroc_is_the_chance_that_a_positive_scores_above_a_negative(rows):
    y = np.array([float(positive) for positive, _ in rows])
    p = np.array([score / 6 for _, score in rows])
    value = Ranked(p, y).auroc(np.ones((1, len(y))))[0]
    pairs = [(a > b) + 0.5 * (a == b) for a in p[y == 1] for b in p[y == 0]]
    assert np.isnan(value) if not pairs else value == pytest.approx(np.mean(pairs))


def test_bootstrap_is_seeded_keeps_groups_together_and_sources_at_their_size():
    clusters = np.array([0, 0, 1, 2, 3, 3, 3, 4])
    strata = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    bootstrap = Bootstrap(clusters, strata, 50, seed=3)
    first, again = np.vstack(list(bootstrap.blocks())), np.vstack(list(bootstrap.blocks()))
    assert (first == again).all()
    assert (first[:, 0] == first[:, 1]).all()
    assert (first[:, 4] == first[:, 6]).all()
    assert ((first[:, [1, 2, 3]]).sum(axis=1) == 3).all()
    assert ((first[:, [4, 7]]).sum(axis=1) == 2).all()
    other = np.vstack(list(Bootstrap(clusters, strata, 50, seed=4).blocks()))
    assert not (first == other).all()


def test_bootstrap_interval_of_a_mean_has_the_width_of_theory():
    values = np.random.default_rng(0).normal(size=400)
    found = mean_estimate(values, np.arange(400), resamples=2000, seed=0)
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / (2 * 1.96 * values.std() / 20) == pytest.approx(1, abs=0.1)


def test_an_interval_from_few_usable_resamples_is_withheld():
    y = np.zeros(50)
    y[0] = 1
    p = np.linspace(0, 1, 50)
    found = Bootstrap.of_rows(50, resamples=200, seed=0).estimates(Ranked(p, y))
    assert found["auroc"].value is not None
    assert found["auroc"].low is None


def test_table_averages_the_headline_categories():
    scorer, frame = WordScorer(), small_frame()
    rows = rows_of(frame, LABELS, "test")
    scores = scorer.probabilities(rows.texts, rows.contexts)
    table = metric_table(LABELS, rows, scores, scorer.thresholds, resamples=20, seed=0)
    assert table.macro_over == LABELS.of("category", headline=True)
    mean = np.mean([table.heads[head].metrics["auprc"].value for head in table.macro_over])
    assert table.macro.metrics["auprc"].value == pytest.approx(mean)
    violence = table.heads["violence"]
    assert violence.labelled == int((frame[frame["split"] == "test"]["violence"]).notna().sum())
    assert table.heads["refusal"].metrics["f1"].value == 1.0
    pairs = pair_accuracies(LABELS, rows, scores, resamples=20, seed=0)
    assert pairs["harmlessness"].pairs == 60
    assert pairs["harmlessness"].accuracy.value == pytest.approx(0.8)
    within = pairs["harmlessness"].sources
    assert sum(one.pairs for one in within.values()) == 60
    pooled = sum(one.pairs * one.accuracy.value for one in within.values()) / 60
    assert pooled == pytest.approx(0.8)


def test_within_source_shows_only_sources_with_both_classes():
    scorer = WordScorer()
    rows = rows_of(small_frame(), LABELS, "test")
    found = within_source(LABELS, rows, scorer.probabilities(rows.texts), resamples=10, seed=0)
    assert {(one.head, one.source) for one in found if one.head == "refusal"} == {("refusal", "replies")}
    assert {one.source for one in found if one.head == "toxicity"} == {"alpha", "beta"}
    one = next(one for one in found if one.head == "toxicity" and one.source == "alpha")
    member = np.array(rows.sources) == "alpha"
    column = LABELS.column("toxicity")
    scores = scorer.probabilities(rows.texts)[member, column]
    assert one.auroc.value == pytest.approx(sk.roc_auc_score(rows.targets[member, column], scores), abs=1e-9)


def test_precision_recall_curve_ends_at_full_recall():
    y, p = ranked_case(1)
    curve = precision_recall(y, p)
    assert curve is not None
    assert curve.recall[-1] == 1.0
    assert curve.precision[-1] >= curve.prevalence - 1e-12
    assert precision_recall(np.zeros(4), p[:4]) is None


def test_paired_compare_sees_a_difference_and_none_with_itself():
    class Noisy(WordScorer):
        def probabilities(self, texts, contexts=None):
            found = super().probabilities(texts, contexts)
            rng = np.random.default_rng(len(texts))
            return np.clip(found + rng.normal(0, 0.4, found.shape), 0, 1).astype(np.float32)

    frame = small_frame()
    same = paired_compare(WordScorer(), WordScorer(), frame, resamples=50)
    assert all(one.value in (0.0, None) for one in same.differences.values())
    assert all(one.p_value == 1.0 for one in same.decisions.values())
    better = paired_compare(WordScorer(), Noisy(), frame, resamples=50)
    assert better.differences["macro/auroc"].low > 0
    assert better.decisions["refusal"].only_first > better.decisions["refusal"].only_second
    assert "harmlessness/pair_accuracy" in better.differences
    other = Labels(heads=(Head(name="rude", kind="category", definition="Rude."),))
    with pytest.raises(UsageError, match="different heads"):
        paired_compare(WordScorer(), WordScorer(labels=other), frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="toxicity"), "no column 'toxicity'"),
        (lambda f: f.assign(split="train"), "no rows in the split 'test'"),
        (lambda f: f.assign(toxicity=f["toxicity"].where(f.index != f.index[-30], 1.5)), "'toxicity' is 1.5"),
        (lambda f: f.assign(text=f["text"].where(f.index != f.index[-30])), "column 'text' is empty"),
        (lambda f: f.assign(toxicity="rude"), "'toxicity' holds values that are not numbers"),
        (lambda f: f.drop(index=f.index[-1]), "odd number"),
        (lambda f: f.drop(index=f.index[[-1, -4]]), "not whole"),
        (lambda f: f.assign(helpfulness=1 - f["helpfulness"]), "chosen response first"),
    ],
)
def test_a_faulty_frame_names_the_row_or_the_column(change, message):
    with pytest.raises(UserError, match=message):
        rows_of(change(small_frame(5)), LABELS, "test")


def test_nullable_columns_and_missing_groups_are_read():
    frame = small_frame(5).convert_dtypes()
    frame["group"] = frame["group"].where(frame["group"] != "", pd.NA)
    rows = rows_of(frame, LABELS, "test")
    assert np.isnan(rows.targets).any()
    assert len(set(rows.clusters)) > 5
