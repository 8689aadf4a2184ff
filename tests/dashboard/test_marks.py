from __future__ import annotations

import re
from html import unescape

from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.marks import MOST_CHARACTERS, Mark, marked, word_differences

TEXTS = st.text(st.sampled_from("ab <>&\"'\n{$}é"), max_size=60)


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=5))
def test_marks_neither_add_nor_lose_text_nor_let_markup_through(text: str, spans: list[tuple[int, int]]) -> None:
    marks = [Mark(min(span), max(span), "evidence", 'why "<b>"') for span in spans]
    shown = marked(text, marks)
    assert unescape(re.sub(r"</?(?:mark|ins|del)[^<>]*>", "", shown)) == text
    assert "<b>" not in shown


def test_overlapping_marks_have_all_looks_and_reasons() -> None:
    shown = marked("abcdef", [Mark(0, 4, "new"), Mark(2, 6, "evidence", "because")])
    assert shown == (
        '<ins class="new">ab</ins><ins class="new evidence" title="because">cd</ins>'
        '<mark class="evidence" title="because">ef</mark>'
    )


def test_long_texts_are_cut_and_say_so() -> None:
    shown = marked("x" * (MOST_CHARACTERS + 5), [Mark(MOST_CHARACTERS - 1, MOST_CHARACTERS + 3, "evidence")])
    assert "5 more characters" in shown


def test_differences_are_the_changed_words() -> None:
    before, after = "The cat sat on the old mat all day long.", "The cat sat on the new mat all day long."
    gone, new = word_differences(before, after)
    assert [before[mark.start : mark.end] for mark in gone] == ["old"]
    assert [after[mark.start : mark.end] for mark in new] == ["new"]


def test_equal_texts_and_texts_without_anything_in_common_have_no_marks() -> None:
    assert word_differences("the same words here", "the same words here") == ([], [])
    assert word_differences("To add a touch of humour to it", "I cannot help with that request") == ([], [])
    assert word_differences("a " * 4000, "b") == ([], [])
