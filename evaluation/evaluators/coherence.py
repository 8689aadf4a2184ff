"""Is this English that somebody could have meant? Cheap traits that word salad, gibberish and loops fail.

Each trait is a number in [0, 1] and `Coherence.value` is the least of them: a text is as coherent as its
worst trait. The bounds of the ramps were set on human-labelled model answers and on the same answers with
their words shuffled (tests/evaluation/evaluators/test_human_labels.py); they are not fitted weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from evaluation.evaluators.text import Text, Token, lexicon, word_list

MIN_WORDS = 6
"""Below this many words, order and function words say nothing: "Paris." is a fine answer."""


@dataclass(frozen=True)
class Coherence:
    """The traits of one text, each in [0, 1], 1 = as in sound prose."""

    function_words: float
    """Share of grammatical words, against a list of content words strung together."""
    word_likeness: float
    """Share of words that are spelt like English, against key-mashing."""
    order: float
    """Absence of breaks such as "the of" or "a is", which shuffled words are full of."""
    structure: float
    """Sentences of a readable length, against one endless line."""
    repetition: float
    """One minus the share of the text that repeats earlier text; 1 up to a fifth."""

    @property
    def value(self) -> float:
        """The worst trait other than repetition, which has a penalty of its own."""
        return min(self.function_words, self.word_likeness, self.order, self.structure)


def ramp(value: float, low: float, high: float) -> float:
    """0 at ``low``, 1 at ``high``, linear between; ``low`` may be the greater one."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def coherence(text: Text, echoes: Sequence[tuple[int, int]] = ()) -> Coherence:
    """Measure ``text`` without its code blocks, each different sentence once.

    Args:
        text: the answer.
        echoes: ranges copied from the prompt, left out: sound words of the prompt must not hide salad. They
            apply to texts without code.
    """
    prose = text.prose
    ignored = echoes if prose is text else ()
    sentences: dict[tuple[str, ...], list[Token]] = {}
    for first, last in prose.sentences:
        inside = [token for token in prose.tokens if first <= token.start < last]
        own = [token for token in inside if not any(start <= token.start < end for start, end in ignored)]
        if own:
            sentences.setdefault(tuple(token.text for token in own), own)
    return _measure(text, prose, list(sentences.values()))


def _measure(text: Text, prose: Text, sentences: list[list[Token]]) -> Coherence:
    words = [token.text for sentence in sentences for token in sentence]
    enough = len(words) >= MIN_WORDS
    longest = max((len(sentence) for sentence in sentences), default=0)
    return Coherence(
        function_words=_function_words(words, len(sentences)) if enough else 1.0,
        word_likeness=ramp(_likeness(words), 0.45, 0.75) if len(words) > 2 else 1.0,  # a name, or all code
        order=_order(prose, sentences) if enough else 1.0,
        structure=ramp(longest, 250, 120),
        repetition=ramp(repeated_share(text.words), 0.9, 0.2),
    )


def _function_words(words: list[str], sentences: int) -> float:
    """Prose has 35-55 % function words, numbers aside; lists fewer, so each line or sentence counts as half a word."""
    known = word_list("function_words")
    count, total = sum(word in known for word in words), sum(not word.isdigit() for word in words)
    if not total:
        return 1.0
    return min(ramp((count + 0.5 * sentences) / total, 0.12, 0.25), ramp(count / total, 0.95, 0.8))


def _likeness(words: list[str]) -> float:
    """Share of words that are numbers, known, or made of letter triples that English words have."""
    return sum(plausible_word(word) for word in words) / len(words)


@lru_cache(maxsize=1)
def _triples() -> tuple[frozenset[str], frozenset[str]]:
    known = word_list("common_words") | word_list("function_words") | word_list("asking_words")
    return known, frozenset(triple for word in known for triple in _letter_triples(word))


def _letter_triples(word: str) -> list[str]:
    framed = f"^{word}$"
    return [framed[index : index + 3] for index in range(len(framed) - 2)]


@lru_cache(maxsize=20_000)
def plausible_word(word: str) -> bool:
    """Whether ``word`` is a number, a listed word, or has mostly (60 %) letter triples of listed words."""
    known, triples = _triples()
    if word in known or word.isdigit() or len(word) <= 2:
        return True
    mine = _letter_triples(word)
    return sum(triple in triples for triple in mine) / len(mine) >= 0.6


@lru_cache(maxsize=1)
def _break_rules() -> dict[str, frozenset[str]]:
    """For each word, the words that may not follow it."""
    rules: dict[str, frozenset[str]] = {}
    for rule in lexicon()["order_breaks"]:
        for word in rule["after"].split():
            rules[word] = rules.get(word, frozenset()) | frozenset(rule["not"].split())
    return rules


def _order(prose: Text, sentences: list[list[Token]]) -> float:
    """1 where breaks of word order are as rare as in prose, 0 where they are as common as in shuffled words."""
    rules, enders = _break_rules(), word_list("sentence_enders_not")
    chances = breaks = 0
    for sentence in sentences:
        for word, following in pairwise(sentence):
            if prose.plain[word.end : following.start].strip():
                continue  # punctuation between the two begins a new phrase
            if word.text in rules:
                chances += 1
                breaks += following.text in rules[word.text]
            elif _stray_capital(prose, word, following):
                chances, breaks = chances + 1, breaks + 1
        if len(sentence) > 1:
            breaks += sentence[-1].text in enders
    starts, small = _small_starts(prose, sentences)
    chances, breaks = chances + starts, breaks + small
    # Two breaks in a short text may be chance: the extra count in the denominator damps them.
    return 1.0 if chances < 2 else ramp(breaks / (chances + 1), 0.13, 0.05)


def _stray_capital(prose: Text, word: Token, following: Token) -> bool:
    """Whether a grammatical word other than "I" has a capital after a word without one, as in "again If"."""
    grammatical = following.text in word_list("function_words") and following.text.split("'")[0] != "i"
    return grammatical and prose.is_small(word.start) and prose.is_capital(following.start)


def _small_starts(prose: Text, sentences: list[list[Token]]) -> tuple[int, int]:
    """How many sentences follow a full stop on the same line, and how many of those start with a small letter.

    (0, 0) for a text without capitals: all-small is a style, mixed is a sign of shuffling.
    """
    follow = [
        sentence[0]
        for sentence in sentences[1:]
        if prose.plain[: sentence[0].start].rstrip(" \"'([-").endswith((".", "!", "?"))
    ]
    if not any(prose.is_capital(sentence[0].start) for sentence in sentences):
        return 0, 0
    return len(follow), sum(prose.is_small(token.start) for token in follow)


def repeated_share(words: tuple[str, ...], size: int = 4) -> float:
    """Share of the words that lie in a run of ``size`` words seen earlier: 0 for fresh text, near 1 for a loop."""
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for index in range(len(words) - size + 1):
        run = words[index : index + size]
        if run in seen:
            covered.update(range(index, index + size))
        seen.add(run)
    if len(words) >= MIN_WORDS and len(set(words)) <= 2:
        return 1.0  # "no no no no": shorter than a run, still a loop
    return len(covered) / len(words) if words else 0.0
