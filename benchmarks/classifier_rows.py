"""What the classifier's benchmark scores, and what a contestant must be able to do.

Every contestant gets the same weights and the same rows: texts of random words whose lengths follow the training data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from safety_classifier.features import Encoded, Featuriser, load_tokenizer

Logits = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]

MAX_TOKENS = 128
"""The longest row; longer texts are cut here by every contestant."""

LENGTHS = (
    *((6, 14), (8, 42), (12, 140), (16, 134), (20, 118), (24, 98), (32, 140)),
    *((40, 84), (48, 64), (62, 64), (80, 40), (100, 20), (127, 14), (128, 28)),
)
"""Upper ends of ranges of token lengths (the first begins at 4), and their rows of a thousand."""


class Contestant(Protocol):
    """A classifier in one framework at one precision."""

    batch: int | None
    """Rows a call; None where the contestant packs rows itself."""

    def score(self, rows: Encoded) -> Logits:
        """Logits (rows, heads) in the order of the rows, from token ids."""

    def score_texts(self, texts: Sequence[str]) -> Logits:
        """The same from strings."""

    def step(self, rows: int, length: int) -> None:
        """One training step on ``rows`` full rows of ``length`` tokens, finished when it returns."""


@dataclass(frozen=True)
class Setting:
    """A folder with everything that a contestant loads: weights, shapes, tokenizer."""

    folder: Path

    @property
    def arrays(self) -> Path:
        """Safetensors with the arrays of the model under their dotted paths."""
        return self.folder / "weights.safetensors"

    @property
    def shape(self) -> dict[str, Any]:
        """``ModelConfig`` as JSON, and the number of ``heads``."""
        found: dict[str, Any] = json.loads((self.folder / "shape.json").read_text(encoding="utf-8"))
        return found

    @property
    def featuriser(self) -> Featuriser:
        """From text to rows, as the product does it."""
        config = self.shape["config"]
        tokenizer = load_tokenizer(self.folder / "tokenizer.json")
        return Featuriser(tokenizer, max_tokens=config["max_tokens"], gram_bits=config["gram_bits"])


def draw_lengths(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Token lengths with the special ones, as in the training data: mean 31, 90th percentile 62, the last 2.8 % cut."""
    rng = np.random.default_rng(seed)
    ends, weights = (np.array(column) for column in zip(*LENGTHS, strict=True))
    bins = rng.choice(len(ends), count, p=weights / weights.sum())
    starts = np.concatenate([[4], ends[:-1] + 1])
    return rng.integers(starts[bins], ends[bins] + 1)


def make_texts(featuriser: Featuriser, lengths: Sequence[int], seed: int) -> list[str]:
    """Texts of random words, each of one word piece, so that a text has the length asked for.

    Frequent words, drawn by Zipf's law, and a good fifth of commas: characters and n-grams a token are as in real text
    (3.6 and 9). BERT's vocabulary is in the order of frequency.
    """
    vocabulary = featuriser.tokenizer.get_vocab()
    whole = sorted((place, word) for word, place in vocabulary.items() if word.isascii() and word.isalpha())
    words = [word for _, word in whole if len(word) > 1][:2000]
    rng = np.random.default_rng(seed)
    texts = []
    for length in lengths:
        ranks = np.exp(rng.uniform(0, np.log(len(words)), length - 2)).astype(np.int64)
        drawn = [words[rank - 1] for rank in ranks]
        commas = rng.random(length - 2) < 0.3
        joined = [
            "," if comma and place and not commas[place - 1] else f" {word}"
            for place, (word, comma) in enumerate(zip(drawn, commas, strict=True))
        ]
        texts.append("".join(joined).strip())
    return texts


def stream(featuriser: Featuriser, count: int, seed: int = 0) -> list[str]:
    """Texts in the order in which they arrive, of real lengths."""
    return make_texts(featuriser, draw_lengths(count, seed).tolist(), seed)


def part(rows: Encoded, start: int, end: int) -> Encoded:
    """Some of the rows."""
    return Encoded(rows.ids[start:end], rows.second[start:end], rows.grams[start:end])


def forward_flops(encoder: dict[str, Any], length: int) -> float:
    """Floating-point operations of the encoder's products for one row."""
    width, hidden, layers = encoder["hidden_size"], encoder["intermediate_size"], encoder["num_hidden_layers"]
    linear = 2 * length * (4 * width * width + 2 * width * hidden)
    return float(layers * (linear + 4 * length * length * width))


def training_batch(shape: dict[str, Any], rows: int, length: int) -> Arrays:
    """A full batch with targets, all heads annotated, nine n-grams a token as real texts have."""
    rng = np.random.default_rng(0)
    config, heads = shape["config"], shape["heads"]
    return {
        "ids": rng.integers(5, config["encoder"]["vocab_size"], (rows, length)).astype(np.int32),
        "grams": rng.integers(0, 2 ** config["gram_bits"], (rows, 9 * length)).astype(np.int32),
        "targets": rng.integers(0, 2, (rows, heads)).astype(np.float32),
    }
