"""Comparisons: both orders, the clamp, several principles, and which of several answers makes the pair."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from critique_revision.comparison import (
    cases,
    clamped,
    letter_messages,
    preferences,
    probability,
    reasons_messages,
)
from critique_revision.config import FeedbackSettings
from critique_revision.constitution import load_principles
from critique_revision.dialogue import load_exemplars
from critique_revision.recipes.feedback import best_and_worst
from critique_revision.records import Label
from runs.paths import CONFIGS

PLAIN = FeedbackSettings()
THOUGHT = FeedbackSettings(chain_of_thought=True)
CHANCE = st.floats(0.001, 0.999)


def label(first: int, second: int, p: float | None, principle: str = "harm-01") -> Label:
    """A labeller that gives A the probability ``p``."""
    logprobs = {"A": None, "B": None} if p is None else {"A": math.log(p) - 1.0, "B": math.log(1 - p) - 1.0}
    return Label(
        key=f"{first}{second}{principle}", prompt_id="p", first=first, second=second, principle_id=principle,
        logprobs=logprobs, model="m", prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip


def test_probability_is_normalised_over_the_two_letters() -> None:
    # 0.3 and 0.1 of all first tokens: 3 of 4 among the letters.
    assert probability({"A": math.log(0.3), "B": math.log(0.1)}) == pytest.approx(0.75)
    assert probability({"A": -1000.0, "B": 0.0}) == pytest.approx(0.0)
    assert probability({"A": math.log(0.3), "B": None}) == 1.0
    assert probability({"A": None, "B": math.log(0.3)}) == 0.0
    assert probability({"A": None, "B": None}) is None


def test_both_orders_are_averaged() -> None:
    # 0.8 for the answer when it is A, and 1 - 0.6 when it is B.
    found = preferences([label(0, 1, 0.8), label(1, 0, 0.6)], PLAIN)
    assert found[0, 1] == pytest.approx((0.8 + 0.4) / 2)


def test_a_labeller_that_always_says_a_knows_nothing() -> None:
    assert preferences([label(0, 1, 0.9), label(1, 0, 0.9)], PLAIN)[0, 1] == pytest.approx(0.5)


@given(CHANCE, CHANCE, st.booleans())
def test_swapping_the_answers_gives_one_minus_p(one: float, other: float, thought: bool) -> None:
    settings = THOUGHT if thought else PLAIN
    forward = preferences([label(0, 1, one), label(1, 0, other)], settings)
    swapped = preferences([label(1, 0, one), label(0, 1, other)], settings)
    assert forward[0, 1] == 1.0 - forward[1, 0] or forward[1, 0] == 1.0 - forward[0, 1]
    assert swapped[0, 1] == pytest.approx(1.0 - forward[0, 1])


@given(CHANCE)
def test_the_clamp_is_the_papers_and_symmetric(p: float) -> None:
    assert 0.4 <= clamped(p, THOUGHT) <= 0.6
    assert clamped(1.0 - p, THOUGHT) == pytest.approx(1.0 - clamped(p, THOUGHT))
    assert clamped(p, PLAIN) == p


def test_principles_are_averaged_and_one_missing_letter_leaves_no_label() -> None:
    rows = [label(0, 1, 0.9), label(1, 0, 0.1), label(0, 1, 0.5, "harm-02"), label(1, 0, 0.5, "harm-02")]
    assert preferences(rows, PLAIN)[0, 1] == pytest.approx(0.7)
    assert preferences([*rows[:3], label(1, 0, None, "harm-02")], PLAIN)[0, 1] is None


def both(better: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    return better | {(other, one): 1.0 - p for (one, other), p in better.items()}


def test_best_and_worst_by_mean_preference() -> None:
    # Means: 0 has (0.4 + 0.7) / 2 = 0.55, 1 has (0.6 + 0.8) / 2 = 0.70, 2 has (0.3 + 0.2) / 2 = 0.25.
    assert best_and_worst(both({(0, 1): 0.4, (0, 2): 0.7, (1, 2): 0.8})) == (1, 2)
    assert best_and_worst(both({(0, 1): 0.3})) == (1, 0)
    assert best_and_worst(both({(0, 1): 0.5})) == (0, 1)


def test_every_pairing_is_asked_in_both_orders_under_every_principle() -> None:
    principles = load_principles(CONFIGS / "constitutions" / "default.yaml").principles[:2]
    found = [(case.first, case.second, case.principle.id) for case in cases([(0, 2)], principles)]
    assert found == [(0, 2, "harm-01"), (2, 0, "harm-01"), (0, 2, "harm-02"), (2, 0, "harm-02")]


def test_questions_share_their_start_and_letters_alternate() -> None:
    exemplars = load_exemplars(CONFIGS / "critique_revision" / "exemplars.yaml", 2)
    one = letter_messages(exemplars, "How?", ("So.", "Thus."), "Be kind.")
    two = letter_messages(exemplars, "Why?", ("Thus.", "So."), "Be true.")
    assert one[:-1] == two[:-1]
    assert [turn.content for turn in one if turn.role == "assistant"] == ["A", "B"]
    for number, letter in enumerate("AB"):
        better = exemplars[number].revision
        assert f"({letter}) {better}" in one[2 * number].content
    for part in ("How?", "(A) So.", "(B) Thus.", "Be kind."):
        assert part in one[-1].content
    thought = reasons_messages(exemplars, "How?", ("So.", "Thus."), "Be kind.")
    assert exemplars[0].critique in thought[1].content
    assert thought[3].content == "A"
