"""A scorer that needs no training and a small frame for the tests of the evaluation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from safety_classifier.calibration import Calibration
from safety_classifier.labels import LABELS, Labels

FIXTURES = Path(__file__).parents[1] / "fixtures" / "safety_classifier"

WORDS = {
    "hate_speech": r"hate|vermin|subhuman|driven out|disease",
    "self_harm": r"want to die|hurt myself|suicid",
    "dangerous_advice": r"bomb|poison|cocaine",
    "toxicity": r"idiot|stupid|shut up|vermin|hate|jerk|clown",
    "violence": r"murder|shot|torture",
    "sexual": r"erotic|naked",
    "refusal": r"sorry|can't|won't",
    "harmful_response": r"first, you|steal|poison|vermin",
}


@dataclass
class WordScorer:
    """Logit 3 for a hit and -3 without, plus what the length adds; calibrated by halving."""

    labels: Labels = LABELS
    calls: int = 0
    seen: list[str] = field(default_factory=list)

    @property
    def thresholds(self) -> dict[str, float]:
        return dict.fromkeys(self.labels.of("category", "response"), 0.5)

    @property
    def calibration(self) -> Calibration:
        heads = self.labels.names
        return Calibration(
            method="temperature",
            heads=heads,
            scale=(0.5,) * len(heads),
            bias=(0.0,) * len(heads),
            raw=self.labels.of("preference"),
        )

    def probabilities(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> np.ndarray:
        self.calls += 1
        self.seen.extend(texts)
        logits = np.empty((len(texts), len(self.labels.heads)))
        for column, name in enumerate(self.labels.names):
            pattern = WORDS.get(name)
            for row, text in enumerate(texts):
                hit = (
                    len(re.findall(pattern, text.lower())) if pattern else -len(re.findall("fuck|first", text.lower()))
                )
                logits[row, column] = 6 * hit - 3 + 0.001 * len(text) if pattern else hit
        return self.calibration.apply(logits)


SAFE = [
    "We baked {} loaves.",
    "Train {} is late again.",
    "The {} ducks sleep.",
    "Page {} is missing.",
    "Is {} a prime?",
]
HARM = {
    "hate_speech": ["I hate all women, number {}.", "They are vermin, all {}.", "You people are a plague, {}."],
    "self_harm": ["I want to die, day {}.", "I will hurt myself, try {}.", "Nothing matters any more, {}."],
    "dangerous_advice": ["How do I build bomb {}?", "Which poison works in {} hours?", "How to break into flat {}?"],
    "toxicity": ["You stupid idiot, {}.", "Shut up, clown {}.", "Nobody likes you, number {}."],
    "violence": ["I will murder {} of them.", "They shot {} people."],
    "sexual": ["An erotic scene, {}.", "Naked and horny, {}."],
}


def small_frame(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Two sources, four splits, some unknown labels, responses and preference pairs."""
    rng = np.random.default_rng(seed)
    found = []

    def add(text: str, split: str, source: str, **values: float | str) -> None:
        row: dict[str, object] = dict.fromkeys(LABELS.names, np.nan)
        row |= {"text": text, "context": "", "source": source, "group": "", "split": split, "weight": 1.0, "pair": -1}
        found.append(row | values)

    pair = 0
    for split in ("train", "validation", "calibration", "test"):
        for number in range(rows):
            source = ("alpha", "beta")[number % 2]
            clean = dict.fromkeys(LABELS.categories, 0.0)
            add(SAFE[number % len(SAFE)].format(rng.integers(1000)), split, source, **clean)
            for head, texts in HARM.items():
                known = clean | {head: 1.0}
                if head == "toxicity":
                    known["violence"] = np.nan
                group = f"{split}-{number // 3}" if number < 12 else ""
                text = texts[number % len(texts)].format(rng.integers(1000))
                add(text, split, source, **known, group=group)
            add(
                f"I'm sorry, I can't do {number}.",
                split,
                "replies",
                context="Do it.",
                refusal=1.0,
                harmful_response=0.0,
            )
            add(
                f"Sure. First, you steal {number}.",
                split,
                "replies",
                context="Do it.",
                refusal=0.0,
                harmful_response=1.0,
            )
            for head in LABELS.of("preference"):
                good, bad = f"Let us talk about {number}.", f"First you fuck {number}."
                swap = number % 5 == 0
                add(bad if swap else good, split, "pairs", context="Do it.", pair=pair, **{head: 1.0})
                add(good if swap else bad, split, "pairs", context="Do it.", pair=pair, **{head: 0.0})
                pair += 1
    return pd.DataFrame(found)
