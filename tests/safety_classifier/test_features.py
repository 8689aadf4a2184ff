"""Text to arrays: word pieces and hashed n-grams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_classifier.features import GRAMS_PER_TOKEN, Featuriser, load_tokenizer, ngram_spans, ngrams
from safety_classifier.pretrained import BUNDLED, encoder_folder


@pytest.fixture(scope="module")
def featuriser():
    return Featuriser(load_tokenizer(encoder_folder(BUNDLED) / "tokenizer.json"), max_tokens=32)


def test_a_text_alone_and_a_response_in_its_context(featuriser):
    encoded = featuriser.encode(["a good day", "no"], ["", "shall we go?"])
    batch = featuriser.pad(encoded, [0, 1], 16)
    pieces = [[featuriser.tokenizer.id_to_token(token) for token in row] for row in batch["ids"]]
    assert pieces[0][:5] == ["[CLS]", "a", "good", "day", "[SEP]"]
    assert pieces[1][:9] == ["[CLS]", "shall", "we", "go", "?", "[SEP]", "no", "[SEP]", "[PAD]"]
    assert batch["types"][0].sum() == 0
    assert batch["types"][1].tolist() == [0] * 6 + [1, 1] + [0] * 8
    assert batch["length"].tolist() == [5, 8]


def test_the_wide_branch_reads_the_response_alone(featuriser):
    with_context = featuriser.encode(["no"], ["shall we go?"]).grams[0]
    np.testing.assert_array_equal(with_context, featuriser.encode(["no"]).grams[0])


def test_long_rows_keep_the_end_of_the_prompt_and_the_start_of_the_response(featuriser):
    encoded = featuriser.encode(["yes " * 100], ["first " + "then " * 100 + "last"])
    words = [featuriser.tokenizer.id_to_token(token) for token in encoded.ids[0]]
    assert len(words) == 32
    assert words[encoded.second[0] - 2] == "last"
    assert "first" not in words
    assert words.count("yes") == 20  # 29 places, a third of them the prompt's


def test_rows_beyond_the_given_ones_are_empty(featuriser):
    batch = featuriser.pad(featuriser.encode(["hello"]), [0], 16, 4)
    assert batch["ids"].shape == (4, 16)
    assert batch["grams"].shape == (4, GRAMS_PER_TOKEN * 16)
    assert batch["length"].tolist() == [3, 0, 0, 0]
    assert (batch["grams"][1:] == -1).all()


def test_ngrams_by_hand():
    """'ab' between spaces has the n-grams ' a', 'ab', 'b ', ' ab', 'ab ', ' ab ' (dropped: the word says it) and the
    word."""
    assert len(ngrams(["ab"], 22)[0]) == 6
    assert len(ngrams(["ab ab"], 22)[0]) == 7  # and the pair of words
    assert not len(ngrams([""], 22)[0])


def test_ngrams_ignore_case_and_other_texts():
    assert set(ngrams(["Ab"], 22)[0]) == set(ngrams(["ab"], 22)[0])
    np.testing.assert_array_equal(ngrams(["one", "ab", "two"], 18)[1], ngrams(["ab"], 18)[0])


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_spans_hold_the_same_ngrams_as_the_batch(texts):
    for text, found in zip(texts, ngrams(texts, 18), strict=True):
        spans = ngram_spans(text, 18)
        np.testing.assert_array_equal(found, np.unique(spans.buckets))
        assert ((spans.start >= 0) & (spans.start <= spans.end) & (spans.end <= len(text))).all()
