"""Perturbations: deterministic, of the declared share, and never empty."""

from __future__ import annotations

import random

import pytest

from safety_classifier.data.augment import PERTURBATIONS, AugmentConfig, perturb, perturbed_rows
from tests.safety_classifier.data_support import sentence

CONFIG = AugmentConfig()


def test_the_same_seed_epoch_and_row_give_the_same_text():
    texts = [perturb(sentence(3), CONFIG, 0, 1, row) for row in range(50)]
    assert texts == [perturb(sentence(3), CONFIG, 0, 1, row) for row in range(50)]
    assert texts != [perturb(sentence(3), CONFIG, 0, 2, row) for row in range(50)]
    assert len(set(texts)) > 20


def test_the_share_is_the_declared_one():
    mask = perturbed_rows(CONFIG, 0, 0, 20000)
    assert abs(mask.mean() - 0.25) < 0.01
    assert (mask == perturbed_rows(CONFIG, 0, 0, 20000)).all()
    assert (mask != perturbed_rows(CONFIG, 0, 1, 20000)).any()
    assert not perturbed_rows(AugmentConfig(probability=0.0), 0, 0, 100).any()


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("text", ["", "a", "!!!", "two words", "Äpfel und Birnen", sentence(5), "a\nb  long text here"])
def test_every_perturbation_takes_any_text(perturbation, text: str):
    for seed in range(20):
        assert isinstance(perturbation(text, random.Random(seed), 0.15), str)


def test_a_text_never_becomes_empty():
    assert all(perturb("!!!", CONFIG, 0, 0, row).strip() for row in range(60))


def test_the_amount_is_limited():
    text = sentence(5)
    for row in range(100):
        changed = perturb(text, CONFIG, 0, 0, row)
        assert len(changed) < 1.5 * len(text) + 10
