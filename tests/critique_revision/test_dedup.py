"""Copies among pairs: similarities worked out by hand, the library's estimate against the exact one."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from critique_revision.config import Dedup, FilterSettings
from critique_revision.dedup import NearTexts, copies, jaccard, shingles
from critique_revision.filters import Standing
from inference.records import Message
from runs.paths import PROJECT_ROOT

TEXT = "Ask your landlord to step in, and keep photos of the car as proof of what happened there in the night."
EDITED = TEXT.replace("photos", "pictures")


def pair(prompt: str, chosen: str, tag: str = "red_team", rejected: str = "Slash his tyres.") -> Standing:
    return Standing(f"id of {prompt}", (Message(role="user", content=prompt),), tag, chosen, rejected)


def test_shingles_and_jaccard_by_hand():
    assert shingles("abcdef", 5) == {"abcde", "bcdef"}
    assert shingles("A-B", 5) == {"a b"}
    assert shingles("", 5) == {""}
    # {abcde, bcdef} and {bcdef, cdefg}: one of three in common
    assert jaccard(shingles("abcdef", 5), shingles("bcdefg", 5)) == pytest.approx(1 / 3)


def test_the_estimate_is_within_its_standard_error_of_the_exact_similarity():
    texts = NearTexts(Dedup(permutations=256))
    rng = random.Random(3)
    errors = []
    for replaced in (0, 5, 20, 50, 80):
        first = frozenset(f"shingle {number}" for number in range(100))
        second = frozenset(f"shingle {number + (1000 if number < replaced else 0)}" for number in range(100))
        assert jaccard(first, second) == pytest.approx((100 - replaced) / (100 + replaced))
        estimate = texts.signature(first).jaccard(texts.signature(second))
        exact = jaccard(first, second)
        errors.append(abs(estimate - exact))
        # Broder 1997: the estimate is a mean of 256 coins that show heads with probability J.
        assert abs(estimate - exact) <= 4 * (exact * (1 - exact) / 256) ** 0.5
        rng.random()
    assert errors[0] == 0.0


def test_what_is_found_is_what_exact_search_finds():
    rng = random.Random(7)
    base = [" ".join(rng.choice("abcdefghijklmnop") * rng.randint(2, 6) for _ in range(30)) for _ in range(40)]
    edited = [text.replace(text.split()[3], "zzz", 1) for text in base]
    texts = NearTexts(Dedup(threshold=0.7))
    for text in base:
        texts.add(text)
    own = [shingles(text, 5) for text in base]
    expected = [
        [number for number, other in enumerate(own) if jaccard(shingles(text, 5), other) >= 0.7] for text in edited
    ]
    assert [texts.near(text) for text in edited] == expected
    assert sum(len(row) for row in expected) >= 30


def test_a_threshold_of_one_finds_equal_words_only():
    texts = NearTexts(Dedup(threshold=1.0))
    texts.add(TEXT)
    assert texts.near(TEXT.upper()) == [0]
    assert texts.near(EDITED) == []


def test_the_same_in_every_process():
    program = (
        "from critique_revision.dedup import *; from critique_revision.config import Dedup;"
        "t = NearTexts(Dedup()); print(t.signature(shingles('a text that is hashed', 5)).hashvalues[:8].tolist())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=PROJECT_ROOT, env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(PROJECT_ROOT)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1] != ""
    assert (
        NearTexts(Dedup(seed=2)).signature(shingles("a text", 5)).hashvalues.tolist()
        != NearTexts(Dedup()).signature(shingles("a text", 5)).hashvalues.tolist()
    )


def test_reasons_in_order():
    settings = FilterSettings(max_same_chosen=2)
    items = [
        pair("How do I get back at my neighbor for parking in my own spot all night?", TEXT),
        pair("How do I get back at my neighbor for parking in my own spot all night?", TEXT.upper()),
        pair("How do I get back at my neighbour for parking in my own spot all night?", "Something else entirely."),
        pair("Where do I hide a body?", TEXT),
        pair("Who sells stolen bicycles?", TEXT),
        pair("Can you write an insult for my teacher?", EDITED),
        pair("Can you write an insult for my teacher?", "I won't insult a teacher."),
        pair("Can you write an insult for my teacher?", "I  WON'T insult a teacher."),
        pair("How do I break windows that are not mine?", "Nobody has to break a window."),
    ]
    assert copies(items, settings) == [
        None, "duplicate", "near_duplicate", None, "boilerplate", "near_duplicate", None, "duplicate", None,
    ]  # fmt: skip
    assert copies(items, settings) == copies(items, settings)


def test_skipped_reasons_leave_the_others():
    items = [pair("a question", TEXT), pair("a question", TEXT), pair("quite another thing", EDITED)]
    settings = FilterSettings(max_same_chosen=1)
    assert copies(items, settings) == [None, "duplicate", "near_duplicate"]
    assert copies(items, settings.model_copy(update={"skip": ("duplicate", "near_duplicate")})) == [
        None, "boilerplate", None,
    ]  # fmt: skip


def test_boilerplate_keeps_the_first_copies():
    texts = ["I can't help.", "other", "i can't  HELP.", "I can't help.", "I can't help."]
    items = [pair(f"{text} {number}", text) for number, text in enumerate(texts)]
    settings = FilterSettings(max_same_chosen=2, skip=("near_duplicate",))
    assert copies(items, settings) == [None, None, None, "boilerplate", "boilerplate"]


def test_a_harmless_twin_is_no_copy_of_the_harmful_prompt():
    long = "Tell me step by step how I can kill {} on my own at home without anyone else in the house noticing it."
    harmful, harmless = (pair(long.format("bees"), "No."), pair(long.format("fees"), "Here is how.", tag="benign"))
    assert jaccard(*(shingles(item.messages[0].content, 5) for item in (harmful, harmless))) >= 0.8
    assert copies([harmful, harmless], FilterSettings()) == [None, None]
    same = pair(long.format("fees"), "Here is how.")
    assert copies([harmful, same], FilterSettings()) == [None, "near_duplicate"]
