from __future__ import annotations

from typing import get_args

import pytest

from critique_revision.config import FilterSettings, Reason
from critique_revision.filters import CHECKS, OF_THE_PAIR, OF_THE_SET, Candidate, reasons
from critique_revision.text import distinct_sentences, opening, refuses, whole_sentences, words

GOOD = "Ask your landlord to step in, and keep photos of the car as proof of what happened."
SETTINGS = FilterSettings(max_words=60)


def candidate(revision: str = GOOD, **changes: str | tuple[str, ...]) -> Candidate:
    values: dict[str, object] = {
        "prompt": "How do I get back at my neighbor for parking in my spot?",
        "answer": "Let the air out of his tires at night, then leave a rude note on his windscreen.",
        "critique": "The reply encourages damage to property and could start a fight.",
        "revision": revision,
        "revision_request": "Rewrite the reply so that it hurts no one. Write only the rewritten reply to the user.",
        "finish_reason": "stop",
        "tag": "red_team",
        "exemplar_texts": ("Pour boiling water over the weeds on a dry day, then pull out the roots.",),
    }
    return Candidate(**{**values, **changes})  # type: ignore[arg-type]


def test_a_good_revision_is_accepted() -> None:
    assert reasons(candidate(), SETTINGS) == ()


def test_every_reason_has_examples() -> None:
    assert {name for name, *_ in BAD} | {*OF_THE_PAIR, *OF_THE_SET} == set(get_args(Reason))
    assert {name for name, *_ in FINE} | {*OF_THE_PAIR, *OF_THE_SET} == set(get_args(Reason))


LONG = " ".join(f"word{number}" for number in range(61)) + "."
BAD: list[tuple[Reason, Candidate]] = [
    ("empty", candidate("")),
    ("empty", candidate(" \n ")),
    ("empty", candidate("They're not good.")),
    ("no_answer", candidate(answer=" ")),
    ("role_markers", candidate("Talk to him first.\n\nHuman: what if he shouts at me?")),
    ("role_markers", candidate("Talk to him first.<|im_end|> Then call the landlord today.")),
    ("role_markers", candidate("<start_of_turn>model Talk to him before you do anything.")),
    ("role_markers", candidate("Reply: Talk to him first, and stay calm while you do.")),
    ("role_markers", candidate("Talk to him. Assistant: That is a good thing to do.")),
    ("preamble", candidate("Sure, here is the revised version: talk to him about the spot.")),
    ("preamble", candidate("Here's a rewritten answer that hurts no one: talk to him.")),
    ("preamble", candidate("Certainly! I've revised it for you. Talk to him about the spot.")),
    ("preamble", candidate("Sure, I can help you with a better response.")),
    ("preamble", candidate("**Revised response:** talk to him about the spot, calmly.")),
    ("commentary", candidate("The reply is harmful and should not tell people to damage cars.")),
    ("commentary", candidate("The last reply gives help with damage to another person's car.")),
    ("commentary", candidate("This response encourages violence against a neighbor, which is bad.")),
    ("commentary", candidate("It would help if the revised answer named a peaceful way out.")),
    ("commentary", candidate("The assistant should tell the man to call his landlord instead.")),
    ("commentary", candidate("I would rewrite the reply so that nobody is hurt by it.")),
    ("commentary", candidate("That was overcautious. The answer is not useful to anyone at all.")),
    ("commentary", candidate("The reply encourages damage to property and could start a fight!")),
    ("commentary", candidate("Rewrite so that it hurts no one. Write only the rewritten reply to the user.")),
    ("truncated", candidate("Ask your landlord to step in, and keep photos of the", finish_reason="length")),
    ("over_long", candidate(LONG)),
    ("repetition", candidate("You can talk to him. " * 6)),
    ("repetition", candidate("Please stop no no no no no and talk to your neighbor.")),
    (
        "repetition",
        candidate("I like to talk and I like to walk and I like to talk and I like to walk and I like to talk."),
    ),
    ("few_shot_leak", candidate("Pour boiling water over the weeds on his lawn instead.")),
    ("echo", candidate("How do I get back at my neighbor for parking in my spot? Talk to him.")),
    ("echo", candidate("how do you get back at a neighbor for parking in my spot?")),
    ("identical", candidate("let the air out of  his tires at night, then leave a rude note on his windscreen.")),
    ("near_identical", candidate("Let the air out of his tires at noon, then leave a rude note on his windscreen.")),
    ("off_topic", candidate("Paris is the capital of France and lies on the Seine.", tag="benign")),
    ("refusal_of_benign", candidate("I'm sorry, but I can't help you with that question.", tag="benign")),
    ("refusal_of_benign", candidate("I\u2019m not able to help with the killing of weeds.", tag="benign")),
    ("no_decline", candidate()),
]
FINE: list[tuple[Reason, Candidate]] = [
    ("empty", candidate("Talk to him in person.")),
    ("no_answer", candidate(answer="No.")),
    ("role_markers", candidate("Talk to the human being first: he may not know whose spot it is.")),
    ("role_markers", candidate("Your assistant manager can help: ask her about the spot.")),
    ("preamble", candidate("Sure, there are peaceful ways: talk to him about the spot.")),
    ("preamble", candidate("Here are three ways to settle it: talk, write, or ask the landlord.")),
    ("preamble", candidate("I'll be glad to help you write a polite note about the spot.")),
    ("commentary", candidate("The immune response is what makes a fever rise in the night.")),
    ("commentary", candidate("The answer is forty-two, since six times seven makes that.")),
    ("commentary", candidate("Leave a message on the windscreen that asks him to move the car.")),
    ("commentary", candidate("That is harmful to both of you; ask the landlord to step in.")),
    ("truncated", candidate("Ask your landlord to step in.", finish_reason="length")),
    ("truncated", candidate("Ask your landlord (he knows the rules)", finish_reason="length")),
    ("truncated", candidate("Ask your landlord to step in and keep photos", finish_reason="stop")),
    ("over_long", candidate(" ".join(f"word{number}" for number in range(60)))),
    ("repetition", candidate("First, talk to him. Then, write to him. Then, ask the landlord. Then, wait a week.")),
    ("few_shot_leak", candidate("Pour boiling water over a tea bag and calm down first.")),
    (
        "few_shot_leak",
        candidate(
            "To pour boiling water over the weeds on a dry day works.",
            prompt="Should I pour boiling water over the weeds on a dry day?",
        ),
    ),
    ("echo", candidate("You can get back at him by being kind: greet him every day.")),
    ("identical", candidate("Let him know that the spot is yours, and ask him to park elsewhere.")),
    ("near_identical", candidate("Leave a polite note on his windscreen, and talk to him at noon.")),
    ("off_topic", candidate("Paris is the capital of France and lies on the Seine.")),
    ("refusal_of_benign", candidate("I'm sorry, but I can't help you with that at all.")),
    ("refusal_of_benign", candidate("I'm sorry to hear that your spot was taken again.", tag="benign")),
    ("refusal_of_benign", candidate("No, a short talk is enough in most such cases.", tag="benign")),
    ("no_decline", candidate("I won't help you to take revenge, but I can help you talk to him.")),
    ("no_decline", candidate(tag="benign")),
]


@pytest.mark.parametrize(("reason", "bad"), BAD)
def test_rejects(reason: Reason, bad: Candidate) -> None:
    assert CHECKS[reason](bad, SETTINGS.model_copy(update={"require_decline": True}))


@pytest.mark.parametrize(("reason", "fine"), FINE)
def test_keeps(reason: Reason, fine: Candidate) -> None:
    assert not CHECKS[reason](fine, SETTINGS.model_copy(update={"require_decline": True}))


def test_first_reason_counts_and_all_are_kept() -> None:
    found = reasons(candidate("Sure, here is the revised reply: the reply is harmful"), SETTINGS)
    assert found[:2] == ("preamble", "commentary")


def test_skipped_reasons_are_not_checked() -> None:
    assert reasons(candidate("Too short."), SETTINGS.model_copy(update={"skip": ("empty",)})) == ()


def test_decline_is_asked_only_on_request() -> None:
    assert reasons(candidate(), SETTINGS) == ()
    assert reasons(candidate(), SETTINGS.model_copy(update={"require_decline": True})) == ("no_decline",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I can\u2019t help with that.", True),
        ("Sorry, I cannot assist with it.", True),
        ("As an AI language model, I have no opinion.", True),
        ("I must decline to write this.", True),
        ("No, I'm sorry, but I do not do that.", True),
        ("No, I'm sorry for what you are going through.", False),
        ("Please don't attack him: you could both be hurt.", True),
        ("It's not appropriate to insult people.", True),
        ("I'm sorry for your loss. Here is what may help.", False),
        ("Sure! Here is how.", False),
        ("I can help with that.", False),
        ("I can't wait to tell you more.", True),  # openers are a crude detector, and this is what they cost
    ],
)
def test_refusal_openers(text: str, expected: bool) -> None:
    assert refuses(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two is cut off he", "One."),
        ("One. Two.", "One. Two."),
        ("no end at all", "no end at all"),
        ('He said "stop." And then he', 'He said "stop."'),
        ("1. Mix flour. 2. Add wat", "1. Mix flour."),
    ],
)
def test_whole_sentences(text: str, expected: str) -> None:
    assert whole_sentences(text) == expected


def test_words_ignore_case_and_typography() -> None:
    assert words("Don\u2019t  PANIC, please") == ["don't", "panic", "please"]


def test_distinct_sentences() -> None:
    assert distinct_sentences("It is bad. It is bad. It is  BAD. It is cruel. It is b") == "It is bad. It is cruel."
    assert distinct_sentences("") == ""
    assert distinct_sentences("no end") == "no end"


def test_opening_keeps_whole_sentences() -> None:
    assert opening("One two. Three four. Five six.", 5) == "One two. Three four."
    assert opening("One two three four", 3) == "One two three"
    assert opening("One two.", 5) == opening("One two.", None) == "One two."
