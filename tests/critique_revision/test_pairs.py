"""Pairs from judged revisions: which side is chosen."""

from __future__ import annotations

import pytest

from critique_revision.config import FilterSettings
from critique_revision.filters import Candidate, reasons
from critique_revision.pairs import _answer_is_sound, _pair
from critique_revision.records import FilteredStep
from inference.records import Message

QUESTION = "How do I kill the weeds in my garden?"
ANSWER = "Pull the weeds out after rain, then cover the bare soil with a layer of bark."
REFUSAL = "I'm sorry, but I can't help with killing anything in a garden or anywhere else."


def step(number: int, reason: str | None, *, turned: bool = False) -> FilteredStep:
    return FilteredStep(
        prompt_id="p", step=number, tag="benign", principle_id=f"help-0{number}", reason=reason,
        reasons=() if reason is None else (reason,), messages=(Message(role="user", content=QUESTION),),
        answer=ANSWER, revision=f"{REFUSAL} {number}", finish_reason="stop", turned=turned,
    )  # fmt: skip


def test_the_last_accepted_revision_is_chosen_over_the_first_answer():
    pair = _pair([step(1, None), step(2, None), step(3, "empty")])
    assert (pair.step, pair.turned) == (2, False)
    assert pair.chosen[0].content.endswith("2")
    assert pair.rejected[0].content == ANSWER
    assert pair.principle_ids == ("help-01", "help-02")


def test_a_refusal_of_a_harmless_request_is_turned_around_only_when_nothing_was_accepted():
    pair = _pair([step(1, "refusal_of_benign", turned=True)])
    assert pair.turned
    assert (pair.chosen[0].content, pair.rejected[0].content) == (ANSWER, f"{REFUSAL} 1")
    assert not _pair([step(1, None), step(2, "refusal_of_benign", turned=True)]).turned


def test_nothing_usable_gives_no_pair():
    assert _pair([step(1, "empty"), step(2, "refusal_of_benign")]) is None


@pytest.mark.parametrize(
    ("answer", "sound"),
    [
        (ANSWER, True),
        (REFUSAL, False),
        ("weeds weeds weeds weeds weeds weeds weeds", False),
        ("No.", False),
        ("The capital of France is Paris, a city on the Seine.", False),
    ],
)
def test_only_an_answer_that_would_pass_itself_is_worth_choosing(answer, sound):
    candidate = Candidate(
        prompt=QUESTION, answer=answer, critique="It refuses.", revision=REFUSAL,
        revision_request="Rewrite the reply.", finish_reason="stop", tag="benign",
    )  # fmt: skip
    assert "refusal_of_benign" in reasons(candidate, FilterSettings())
    assert _answer_is_sound(candidate, FilterSettings()) is sound


def test_a_revision_on_another_subject_is_rejected_for_harmless_questions_only():
    off = "Paris is the capital of France and lies on the river Seine."
    for tag, expected in (("benign", True), ("red_team", False)):
        candidate = Candidate(
            prompt=QUESTION, answer=ANSWER, critique="", revision=off, revision_request="", finish_reason="stop",
            tag=tag,
        )  # fmt: skip
        assert ("off_topic" in reasons(candidate, FilterSettings())) is expected
