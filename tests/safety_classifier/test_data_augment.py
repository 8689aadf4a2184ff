"""Perturbations: deterministic, of the declared share, and never empty."""

from __future__ import annotations

import random

import pytest

from safety_classifier.data.augment import PERTURBATIONS, AugmentConfig, perturb, perturbed_rows
from safety_classifier.data.groups import ROWS, another_group
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
        assert len(changed) < 2 * len(text) + 10  # a separator between all letters is the longest


def test_another_group_takes_the_place_of_the_one_named():
    text = "Muslims and my gay friend: MUSLIMS deserve respect, muslims do."
    seen = {another_group(text, random.Random(seed)) for seed in range(60)}
    swapped = {one for one in seen if "muslims" not in one.lower()}
    assert swapped
    assert all("gay" in one for one in swapped)
    assert "Jews and my gay friend: JEWS deserve respect, jews do." in swapped
    assert any("Muslims" in one and "gay" not in one for one in seen)
    assert another_group("Nobody is named here, by a wombat.", random.Random(0)) == "Nobody is named here, by a wombat."
    assert all(len(set(row)) == len(row) > 1 for row in ROWS)


def read(text: str, config: AugmentConfig, count: int) -> list[str]:
    """What an epoch of ``count`` rows with this text reads."""
    rows = perturbed_rows(config, 0, 0, count)
    return [perturb(text, config, 0, 0, row) if rows[row] else text for row in range(count)]


def test_groups_are_exchanged_in_the_declared_share():
    texts = read("the women of this town", AugmentConfig(probability=0.0, other_groups=0.5), 2000)
    assert 900 < texts.count("the men of this town") < 1100
    assert set(texts) == {"the women of this town", "the men of this town"}


@pytest.mark.parametrize("other_groups", [0.0, 0.2, 0.8])
def test_exchanged_groups_leave_the_share_of_perturbations(other_groups: float):
    texts = read("nobody is named in these words!", AugmentConfig(probability=0.4, other_groups=other_groups), 2000)
    assert 700 < sum(text != "nobody is named in these words!" for text in texts) < 900
