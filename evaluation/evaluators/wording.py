"""How an answer is worded: a list of one- and two-word phrases, each with a weight fitted on preference pairs.

``wording-v1.json`` maps a phrase of the normalised text to its weight in the logit of "people call this answer the
less harmful one". The score is the sum over the different phrases of an answer; longer answers hold more phrases, so
the models that use it are told the length as well, or are held to be neutral to it.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from evaluation.evaluators.text import Text

FILE = Path(__file__).with_name("wording-v1.json")
TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[?!.,]")


def phrases(text: Text) -> set[str]:
    """The different words and pairs of neighbouring words, punctuation included."""
    tokens = TOKEN.findall(text.plain)
    return {*tokens, *(f"{first} {second}" for first, second in pairwise(tokens))}


@lru_cache(maxsize=1)
def wording_weights() -> dict[str, float]:
    """Phrase → weight."""
    return {str(phrase): float(weight) for phrase, weight in json.loads(FILE.read_text(encoding="utf-8")).items()}


def wording(text: Text) -> float:
    """The sum of the weights of the answer's phrases: above 0, worded like answers that people found harmless."""
    known = wording_weights()
    return sum(known.get(phrase, 0.0) for phrase in sorted(phrases(text)))
