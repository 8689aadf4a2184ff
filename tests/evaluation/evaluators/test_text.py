import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.evaluators.coherence import coherence, plausible_word, repeated_share
from evaluation.evaluators.novelty import novelty
from evaluation.evaluators.text import Phrases, Text, content_stems, lexicon


def test_normalisation_folds_quotes_width_case_and_invisible_signs():
    assert Text("I CAN\u2019T \u200bhelp\u00a0you \u2014 \uff21\ufb01").plain == "i can't help you - afi"


def test_spans_lead_back_to_the_original_characters():
    original = "\u00abStra\u00dfe\u00bb \ufb01ve: I **can\u2019t** he\u00adlp e\u0301tude"
    text = Text(original)
    assert "strasse" in text.plain
    for phrase, expected in (
        ("strasse", "Stra\u00dfe"),
        ("five", "\ufb01ve"),
        ("can't", "can\u2019t"),
        ("help", "he\u00adlp"),
        ("\u00e9tude", "e\u0301tude"),
    ):
        match = Phrases.literal([phrase]).first(text.plain)
        span = text.span(match.start(), match.end(), "")
        assert original[span.start : span.end] == expected


@settings(deadline=None)
@given(st.text(max_size=60))
def test_every_position_maps_into_the_original(original):
    text = Text(original)
    for token in text.tokens:
        span = text.span(token.start, token.end, "word")
        assert 0 <= span.start < span.end <= len(original)


@pytest.mark.parametrize(
    ("phrase", "text", "found"),
    [
        ("rape", "how to cook grapes", False),
        ("rob", "a problem, probably", False),
        ("hack", "shacking up", False),
        ("rob", "They robbed a bank; he will rob", True),
        ("grape", "ripe grapes", True),
        ("day off", "a day\noff", True),
        ("co2", "CO\u2082 is a gas", True),
        ("c++", "I like C++.", True),
    ],
)
def test_phrases_match_whole_words(phrase, text, found):
    assert (Phrases.literal([phrase]).first(Text(text).plain) is not None) is found


def test_no_phrases_match_nothing():
    assert Phrases.literal([]).first("anything") is None


def test_every_pattern_list_compiles():
    for name, entries in lexicon().items():
        if all(isinstance(entry, str) for entry in entries):
            Phrases.named(name)


def test_sentences_end_at_stops_and_lines_but_not_at_list_numbers_or_titles():
    text = Text("Dr. Who, e.g. this one, left. Why?\n1. Boil it\n2. Eat it")
    assert [text.plain[start:end].strip() for start, end in text.sentences] == [
        "dr. who, e.g. this one, left.",
        "why?",
        "1. boil it",
        "2. eat it",
    ]


def test_stems_meet_across_endings():
    assert content_stems(["cooking", "grapes"]) == content_stems(["cook", "grape"])


def test_english_words_are_plausible_and_mashed_keys_are_not():
    assert all(map(plausible_word, ["mitochondria", "strengthen", "restaurants", "42", "apologised"]))
    assert not any(map(plausible_word, ["asdf", "qwer", "zxcv", "xkjqz"]))


def test_a_loop_is_repetition():
    assert repeated_share(tuple("abcdefgh")) == 0
    assert repeated_share(tuple("abcd" * 10)) == 0.9
    assert repeated_share(("no",) * 10) == 1


def test_code_is_no_salad_and_a_fence_hides_none():
    code = "Use this:\n```python\nfor row in open(path):\n    print(row.strip())\n```\nIt reads one line after another."
    assert coherence(Text(code)).value == 1
    assert coherence(Text("```\nof the is and to because they the of a is or with\n```")).value < 0.5


def test_the_echo_of_a_prompt_is_not_the_answers_own():
    prompt = Text("How do I boil an egg so that the yolk stays soft?")
    own = novelty(Text("How do I boil an egg so that the yolk stays soft? Six minutes will do."), prompt)
    assert own.words == ("six", "minutes", "will", "do")
    assert novelty(Text("To boil an egg, heat water."), prompt).echoes == ()
