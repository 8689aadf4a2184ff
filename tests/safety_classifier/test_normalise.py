"""The normaliser undoes disguises, leaves real text alone, and survives hostile input."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_classifier.normalise import DIGEST, VERSION, normalise, normalise_all

DISGUISES = [
    ("i d i o t", "idiot"),
    ("you i.d.i.o.t!", "you idiot!"),
    ("i-d-i-o-t", "idiot"),
    ("y o u  a r e  d u m b", "you are dumb"),
    ("1 d 1 0 t", "idiot"),
    ("1d10t", "idiot"),
    ("h4t3", "hate"),
    ("b1tch", "bitch"),
    ("sh!t", "shit"),
    ("a$$hole", "asshole"),
    ("@sshole", "asshole"),
    ("5tupid l0ser", "stupid loser"),
    ("p1ease he1p", "please help"),
    ("KILL Y0URSELF", "KILL YOURSELF"),
    ("f*ck", "fuck"),
    ("ïdïòt", "idiot"),
    ("іdіоt", "idiot"),  # Cyrillic letters in a Latin word
    ("that is ѕех", "that is sex"),  # a whole word in look-alikes
    ("ｉｄｉｏｔ", "idiot"),
    ("𝓲𝓭𝓲𝓸𝓽", "idiot"),
    ("ɪᴅɪᴏᴛ", "idiot"),
    ("🅱itch", "bitch"),
    ("🇮🇩🇮🇴🇹", "idiot"),
    ("i\u200bd\u200bi\u2060o\u00adt", "idiot"),
    ("\u202eidiot\u202c", "idiot"),
    ("h̸̡e̷l̴l̸o", "hello"),
]


@pytest.mark.parametrize(("hidden", "shown"), DISGUISES)
def test_disguises_are_undone_and_counted(hidden: str, shown: str) -> None:
    result = normalise(hidden)
    assert result.text == shown
    assert 0 < result.obfuscation <= 1


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("soooo goooood", "soo good"),
        ("wow!!!!!!!!", "wow!!!"),
        ("see https://example.org/a?b=1.", "see url."),
        ("@friend hi", "user hi"),
        ("mail me@example.org now", "mail email now"),
        ("one\n\n two\t 3 ", "one two 3"),
        ("a\x00b", "ab"),
        ("don’t “do” it", 'don\'t "do" it'),
        ("café", "cafe"),
        ("🐀🐀🐀🐀 ew", ":rat: :rat: ew"),
        ("🖕🏿you", ":middle finger: :dark skin: you"),
        ("🏳️\u200d🌈", ":rainbow flag:"),
        ("🇺🇸", ":flag us:"),
        ("U.S.A.", "USA."),
    ],
)
def test_ordinary_variation_is_folded(raw: str, shown: str) -> None:
    assert normalise(raw).text == shown


@pytest.mark.parametrize(
    "text",
    [
        "covid19, b2b, 2nd, mp3s, h1n1, gpt4o, log4j, 4chan, 3d, 401k and ipv6",
        "at 10:30am for $5.99 or US$5, $100k, 7pm",
        "1 2 3 4",
        "World War III, AAA batteries, hello!How",
        "$HOME and $name",
        "Привет, как дела? А я в школе. Сука",
        "за́мок п’ять «кот» № 5",
        "Γειά σου Κόσμε, α και β",
        "שלום עולם, מה שלומך?",
        "مرحبا بالعالم می\u200cخواهم",
        "हिन्दी क्षेत्र",
        "これはテストです。日本語",
        "ภาษาไทยน้ำ",
        "한국어 문장",
        "我 是 谁",
        "",
    ],
)
def test_real_text_survives(text: str) -> None:
    result = normalise(text)
    assert result.text == text
    assert result.obfuscation == 0
    assert result.offsets == tuple(range(len(text)))


def test_offsets_point_at_the_letters() -> None:
    raw = "so i.d.i.o.t 😂 і4m"
    result = normalise(raw)
    start = result.text.index("idiot")
    assert [raw[result.offsets[start + i]] for i in range(5)] == list("idiot")
    assert raw[result.offsets[result.text.index("tears")]] == "😂"


ODDITIES = ["http://", "www.", "@", "a", "b c d", " ", "1", "!", "$", "ss", "d1e", "é", "а", "ѕ", "\u0301", "\n", "  "]
ODDITIES += ["🏳", "🌈", "ﬁ", "𝓲", "Ⅳ", "*", "III", "u", "\u200d", "\ufe0f", "🇺", "’", "ﷺ", "\u1100", "\u1161", ".", "-"]


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(ODDITIES), max_size=16).map("".join)))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once.text).text == once.text
    assert len(once.offsets) == len(once.text)
    assert list(once.offsets) == sorted(once.offsets)
    assert all(0 <= offset < len(text) for offset in once.offsets)
    assert 0 <= once.obfuscation <= 1
    assert normalise_all([text]) == [once.text]
    once.text.encode()


@pytest.mark.parametrize(
    "unit", ["a ", "1a", "@", "i.", "a@", "e\u0327\u0301", "\u0301", "a.b-", "www.", "а", "\ud800", "ﷺ"]
)
def test_hostile_input_takes_linear_time(unit: str) -> None:
    def seconds(length: int) -> float:
        started = time.perf_counter()
        normalise(unit * (length // len(unit)))
        return time.perf_counter() - started

    # Ten times the text in far less than a hundred times the time.
    assert seconds(200_000) < 40 * seconds(20_000) + 0.2


def test_the_tables_are_versioned() -> None:
    assert VERSION
    assert len(DIGEST) == 16
