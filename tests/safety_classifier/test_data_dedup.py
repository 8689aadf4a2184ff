"""Copies and near-copies are found and merged; what differs stays."""

from __future__ import annotations

import numpy as np
import pytest

from safety_classifier.data.dedup import digests, merge_copies, merge_near_copies, near_pairs, normal_forms
from safety_classifier.data.minhash import SIMILAR, chain, components, signatures, similar_pairs
from tests.safety_classifier.data_support import frame_of, sentence


def jaccard(left: str, right: str) -> float:
    first, second = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (left, right))
    return len(first & second) / len(first | second)


def test_copies_have_one_normal_form():
    copies = ["The  Lamp, is lit!", "the lamp is LIT", "RT @anna_b: the lamp is lit https://example.org/x"]
    assert len(set(normal_forms(copies))) == 1
    assert len(set(normal_forms(["good morning 😀", "good morning 😡", "good morning", "..."]))) == 4


def test_minhash_estimates_jaccard():
    texts = [sentence(i) for i in range(0, 60, 3)]
    marks = signatures(texts)
    estimates = [(marks[i] == marks[j]).mean() for i in range(20) for j in range(i)]
    exact = [jaccard(texts[i], texts[j]) for i in range(20) for j in range(i)]
    assert np.abs(np.array(estimates) - exact).max() < 0.16
    assert np.abs(np.array(estimates) - exact).mean() < 0.04


def test_near_copies_are_found_and_distinct_texts_are_not():
    texts = [sentence(i) for i in range(400)]
    copies = [texts[i] + " indeed" for i in range(0, 400, 40)]
    pairs = similar_pairs(signatures([*texts, *copies]), np.zeros(410, np.int64))
    assert {(40 * k, 400 + k) for k in range(10)} <= {(int(i), int(j)) for i, j in pairs}
    everything = [*texts, *copies]
    assert all(jaccard(everything[i], everything[j]) > SIMILAR - 0.12 for i, j in pairs)


def test_only_one_context_is_compared():
    text = sentence(7)
    assert near_pairs([text, text + " now", text], ["a", "a", "b"]).tolist() == [[0, 1]]


def test_empty_and_tiny_texts_have_signatures():
    marks = signatures(["", "a", "ab", "ab", "a longer text than the others"])
    assert (marks[2] == marks[3]).all()
    assert not (marks[1] == marks[2]).all()
    assert len(signatures([])) == 0
    assert similar_pairs(signatures([]), np.zeros(0, np.int64)).shape == (0, 2)


def test_a_large_bucket_stays_connected():
    size = 300  # more than are compared pair by pair
    pairs = similar_pairs(signatures([sentence(1)] * size), np.zeros(size, np.int64))
    assert len(pairs) < size * (size - 1) // 2
    assert components(pairs, size).max() == 0


def test_chain_connects_equal_keys():
    keys = np.array([5, 1, 5, 2, 5])
    assert components(chain(keys), 5).tolist() == [0, 1, 0, 2, 0]


def test_copies_merge_and_disagreement_masks():
    nan = np.nan
    frame = frame_of(
        ["a", "b", "a", "a"],
        toxicity=np.array([1, 0, 1, nan], np.float32),
        hate_speech=np.array([0, 1, 1, nan], np.float32),
        self_harm=np.array([nan, nan, nan, 0], np.float32),
        test_row=[False, False, False, True],
    )
    merged = merge_copies(frame, digests(frame["text"].tolist()))
    assert merged.frame["text"].tolist() == ["a", "b"]
    assert merged.into.tolist() == [0, 1, 0, 0]
    assert merged.conflicts == {"hate_speech": 1}
    first = merged.frame.iloc[0]
    assert (first["toxicity"], first["self_harm"], first["test_row"]) == (1.0, 0.0, True)
    assert np.isnan(first["hate_speech"])


@pytest.mark.parametrize("distinct", [False, True])
def test_near_copies_merge_when_they_agree(distinct: bool):
    nan = np.nan
    frame = frame_of(
        ["a", "a!", "a?", "b"],
        toxicity=np.array([1, nan, 0, 1], np.float32),
        violence=np.array([nan, 0, nan, nan], np.float32),
        test_row=[False, True, False, False],
        distinct=distinct,
    )
    merged = merge_near_copies(frame, np.array([[0, 1], [0, 2], [1, 2]]))
    if distinct:
        assert len(merged.frame) == 4
        return
    assert merged.frame["text"].tolist() == ["a", "a?", "b"]
    assert merged.frame["violence"].iloc[0] == 0.0
    assert bool(merged.frame["test_row"].iloc[0])
    assert merged.into.tolist() == [0, 0, 2, 3]
    assert set(merged.conflicts) == {"toxicity"}
