from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from safety_classifier.evaluation.fairness import (
    all_pairs_shift,
    group_bias,
    identity_swaps,
    measure_fairness,
    power_mean,
    template_sentences,
)
from safety_classifier.evaluation.frame import rows_of
from safety_classifier.evaluation.identities import IDENTITIES, MENTIONS, TEMPLATES
from safety_classifier.evaluation.intervals import Bootstrap
from safety_classifier.labels import LABELS
from tests.safety_classifier.eval_tools import WordScorer, small_frame


def test_templates_are_distinct_complete_and_cover_lgbt_terms():
    texts, template, identity = template_sentences()
    assert len(texts) == len(template) == len(identity) == len(TEMPLATES) * len(IDENTITIES)
    assert len(set(texts)) == len(texts)
    assert not any("{" in text or "  " in text for text in texts)
    assert len({one.name for one in IDENTITIES}) == len(IDENTITIES) >= 55
    assert {"gay", "queer", "transgender", "nonbinary", "bisexual", "LGBT", "trans women"} <= set(identity)
    assert {one.meaning for one in TEMPLATES} == {"neutral", "rude", "hateful"}
    by_name = {one.name: one.one for one in IDENTITIES}
    assert by_name["Asian"] == "an Asian person"
    assert by_name["undocumented"] == "an undocumented person"
    assert by_name["LGBT"] == "an LGBT person"
    assert by_name["women"] == "a woman"


def test_group_aucs_equal_their_definitions():
    rng = np.random.default_rng(0)
    n = 600
    y = (rng.random(n) < 0.5).astype(float)
    a = rng.random(n) < 0.3
    b = ~a & (rng.random(n) < 0.4)
    p = np.clip(0.5 * y + 0.25 * a + 0.5 * rng.random(n), 0, 1)
    drawn = Bootstrap.of_rows(n, resamples=50, seed=0)
    found = group_bias(p, y, {"a": a, "b": b, "few": np.arange(n) < 5}, 0.6, bootstrap=drawn)
    assert found is not None
    one, other = found.groups
    assert (one.group, other.group) == ("a", "b")
    assert one.subgroup.value == pytest.approx(roc_auc_score(y[a], p[a]))
    bpsn = (a & (y == 0)) | (~a & (y == 1))
    bnsp = (a & (y == 1)) | (~a & (y == 0))
    assert one.bpsn.value == pytest.approx(roc_auc_score(y[bpsn], p[bpsn]))
    assert one.bnsp.value == pytest.approx(roc_auc_score(y[bnsp], p[bnsp]))
    means = [
        np.mean([getattr(group, kind).value ** -5 for group in found.groups]) ** (-1 / 5)
        for kind in ("subgroup", "bpsn", "bnsp")
    ]
    assert found.final.value == pytest.approx(0.25 * roc_auc_score(y, p) + 0.75 * np.mean(means))
    assert found.worst_bpsn.value == min(group.bpsn.value for group in found.groups)
    flags = p >= 0.6
    rates = [(flags[g & (y == 1)].mean(), flags[g & (y == 0)].mean()) for g in (a, b)]
    assert found.odds_gap.value == pytest.approx(max(abs(rates[0][0] - rates[1][0]), abs(rates[0][1] - rates[1][1])))
    assert group_bias(p, y, {"few": np.arange(n) < 5}, 0.6, bootstrap=drawn) is None
    alone = group_bias(p, y, {"a": a}, 0.6, bootstrap=drawn)
    assert alone.odds_gap.value is None


def test_power_mean_leans_to_the_worst():
    values = np.array([[0.5], [0.9], [0.9]])
    assert 0.5 < power_mean(values)[0] < values.mean()
    assert power_mean(np.full((4, 1), 0.7))[0] == pytest.approx(0.7)


def test_shift_over_all_pairs_by_hand():
    table = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.5]])
    found = all_pairs_shift(table, 0.5, head="x", resamples=0, seed=0)
    assert found.pairs == 6
    assert found.sentences == 2
    assert found.mean.value == pytest.approx((0.1 + 0.6 + 0.5) / 6)
    assert found.flips == pytest.approx(2 / 6)


def test_swaps_keep_case_and_need_exactly_one_term():
    rng = random.Random(0)
    swapped = identity_swaps("Muslims pray; most MUSLIMS fast.", rng, 3)
    assert len(swapped) == 3
    assert all("uslims" not in text and "MUSLIMS" not in text for text in swapped)
    assert all(text[0].isupper() and any(word.isupper() for word in text.split()) for text in swapped)
    assert identity_swaps("The women met the men.", rng, 3) == []
    assert identity_swaps("A straight line.", rng, 3) != []  # an adjective alone cannot be told from a group
    assert identity_swaps("A kettle.", rng, 3) == []


def test_mentions_find_groups_and_not_colours():
    assert MENTIONS["black people"].search("two black women")
    assert not MENTIONS["black people"].search("a black shirt")
    assert MENTIONS["LGBT"].search("LGBTQ rights")
    assert not MENTIONS["gay"].search("gayer")


def test_fairness_of_a_scorer_that_hates_one_group():
    class Biased(WordScorer):
        def probabilities(self, texts, contexts=None):
            found = super().probabilities(texts, contexts)
            for row, text in enumerate(texts):
                if "queer" in text.lower():
                    found[row, :6] = np.maximum(found[row, :6], 0.97)
            return found

    rows = rows_of(small_frame(40), LABELS, "test")
    fair = measure_fairness(WordScorer(), rows, resamples=5, seed=0)
    biased = measure_fairness(Biased(), rows, resamples=5, seed=0)
    assert set(fair.templates) == {"hate_speech", "toxicity"}
    for head in fair.templates:
        worst = min(biased.templates[head].groups, key=lambda group: group.bpsn.value)
        assert "queer" in worst.group
        assert biased.templates[head].final.value < fair.templates[head].final.value
        assert biased.template_swaps[head].mean.value > fair.template_swaps[head].mean.value
        assert fair.template_swaps[head].flips < 0.02
    assert fair.text_swaps["toxicity"].sentences > 0
