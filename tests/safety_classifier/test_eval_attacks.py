from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest

from runs.errors import UsageError
from safety_classifier.evaluation import attacks
from safety_classifier.evaluation.attacks import ATTACKS, attack
from safety_classifier.evaluation.frame import rows_of
from safety_classifier.evaluation.robustness import attack_losses, sample_rows
from safety_classifier.labels import LABELS
from tests.safety_classifier.eval_tools import WordScorer, small_frame

TEXTS = [
    "You are a stupid idiot and everybody knows that about you, so please leave this place and never come back.",
    "Bring {two} jackets, 3 apples & some «good» humour!",
    "",
    "🙂🙂",
    "naïve Übergrößen żółw \u0645\u0631\u062d\u0628\u0627",
    "x",
]


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_seeded_bounded_and_change_something(name):
    first = attack(name, TEXTS, seed=0)
    assert first == attack(name, TEXTS, seed=0)
    assert first[0] == attack(name, TEXTS[:1], seed=0)[0]
    assert len(first) == len(TEXTS)
    assert first[0] != TEXTS[0]
    for text, changed in zip(TEXTS, first, strict=True):
        assert len(changed) <= ATTACKS[name].longest * len(text) + 2500
    assert len(first[0]) >= 0.8 * len(TEXTS[0])
    assert ATTACKS[name].what.endswith(".")
    several = [attack(name, TEXTS[:1], seed=seed)[0] for seed in range(6)]
    assert len(set(several)) > 1


def letters(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalpha())


def test_what_attacks_keep():
    text = TEXTS[0]
    for name in ("letter_spacing", "punctuation", "emoji", "letter_case"):
        assert letters(attack(name, [text], seed=1)[0]) == letters(text), name
    invisible = attack("zero_width", [text], seed=1)[0]
    assert "".join(c for c in invisible if unicodedata.category(c) != "Cf") == text
    marked = attack("combining_marks", [text], seed=1)[0]
    assert "".join(c for c in marked if not unicodedata.combining(c)) == text
    assert len(attack("homoglyphs", [text], seed=1)[0]) == len(text)
    assert attack("benign_padding", [text], seed=1)[0].endswith(" " + text)
    framed = attack("framing", [TEXTS[1]], seed=1)[0]
    assert TEXTS[1] in framed


def test_typos_slip_once_a_word():
    text = " ".join(["understandable"] * 200)
    words = attack("typos", [text], seed=0)[0].split(" ")
    assert len(words) == 200
    share = np.mean([word != "understandable" for word in words])
    assert 0.3 < share < 0.5
    assert all(abs(len(word) - 14) <= 1 for word in words)


def test_tables_of_letters_are_other_characters():
    for letter, others in (*attacks._LOOKALIKES.items(), *attacks._LEET.items()):
        assert letter not in others
        assert len(set(others)) == len(others)


def test_unknown_attack_names_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'homoglyphs'"):
        attack("homoglyph", ["a"], seed=0)


def test_rate_zero_changes_nothing():
    rng = random.Random(0)
    for change in (attacks.typos, attacks.leetspeak, attacks.zero_width, attacks.elongation, attacks.letter_spacing):
        assert change(TEXTS[0], rng, 0.0) == TEXTS[0]


def test_losses_are_paired_and_seen():
    scorer, frame = WordScorer(), small_frame(30)
    rows = rows_of(frame, LABELS, "test")
    some = rows.take(sample_rows(LABELS, rows, per_class=25, seed=0))
    assert len(some) < len(rows)
    found = {
        (one.attack, one.head): one
        for one in attack_losses(
            scorer, some, attacks=("leetspeak", "letter_case", "benign_padding"), resamples=40, seed=0
        )
    }
    assert found["leetspeak", "macro"].loss.low > 0.05
    assert found["letter_case", "macro"].loss.value == pytest.approx(0.0, abs=0.01)  # the scorer lowers its texts
    one = found["leetspeak", "toxicity"]
    assert one.loss.value == pytest.approx(one.clean.value - one.attacked.value)
    assert one.recall_loss.value > 0
    heads = [found["leetspeak", head] for head in LABELS.of("category", headline=True)]
    assert found["leetspeak", "macro"].loss.value == pytest.approx(np.mean([one.loss.value for one in heads]))
