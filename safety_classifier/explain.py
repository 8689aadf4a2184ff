"""What each word adds to a logit: contributions that sum to it.

The wide branch is linear: the share of an n-gram is its weight, spread over its characters, and exact. For the deep
branch, integrated gradients (Sundararajan et al. 2017, eq. 1) on the word embeddings along the straight line from a
text of ``[PAD]`` embeddings; special tokens and the prompt of an exchange stay as they are, so that the response
alone is explained. The integral is a Gauss-Legendre sum, and what it misses is reported as the residual.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from runs.config import StrictModel
from safety_classifier.artifact import Artifact
from safety_classifier.features import ngram_spans
from safety_classifier.forward import Forward, remember_compilations
from safety_classifier.model import Leaves, split
from safety_classifier.normalise import Normalised, normalise
from safety_classifier.quantisation import executable
from safety_classifier.windows import Windows, window_shares, windows

Floats = npt.NDArray[np.float64]

STEPS, MOST_STEPS = 32, 256
"""Nodes of the integral to begin with, and at most."""
TOLERANCE = 0.01
"""The residual that is good enough, as a share of the change that is explained."""
_NODES = 16
"""Nodes of one compiled call."""


class Token(StrictModel):
    """A word of the text and what it adds to the logit."""

    start: int
    end: int
    """The word is ``text[start:end]`` of the original text."""
    text: str
    value: float
    """Deep and wide contribution together."""
    wide: float
    """The part that comes from the n-grams."""


class Attribution(StrictModel):
    """``baseline_logit`` + the sum of the values + ``residual`` = ``logit``."""

    head: str
    tokens: tuple[Token, ...]
    """Words in the order of the text; of a long text, those of the windows that decide."""
    baseline_logit: float
    """The logit without the text."""
    logit: float
    """In float32; serving at a lower precision may differ in the second decimal."""
    residual: float
    """What the integral missed."""
    steps: int
    """Nodes of the integral."""


@dataclass(frozen=True)
class _Part:
    """The explanation of one window."""

    words: list[tuple[int, int]]
    """Characters of the window's text."""
    deep: Floats
    wide: Floats
    baseline: float
    logit: float
    steps: int


class Explainer:
    """Explains one text at a time, in float32.

    Args:
        artifact: what `safety_classifier.artifact.load_artifact` read.
    """

    def __init__(self, artifact: Artifact) -> None:
        remember_compilations()
        model = executable(artifact.model(), "float32")
        self.labels, self.featuriser = artifact.labels, artifact.featuriser()
        self._forward = Forward(model, self.featuriser, "float32")
        self._wide = np.asarray(model.wide[...], np.float64)
        if model.wide_scale is not None:
            self._wide *= np.asarray(model.wide_scale[...], np.float64)
        self._leaves, merge = split(model)

        def slopes(
            leaves: Leaves, row: dict[str, jax.Array], place: jax.Array, head: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            """At ``place`` (nodes,) on the path: gradient of the logit times path (nodes, tokens), and the logit."""
            inner = merge(leaves)
            end = inner.encoder.embed_words(row["ids"])
            pad = inner.encoder.embed_words(jnp.full_like(row["ids"], self.featuriser.pad_id))
            path = jnp.where(row["explained"][..., None], end - pad, 0.0)
            count = place.shape[0]
            batch = {
                "ids": jnp.repeat(row["ids"], count, 0),
                "types": jnp.repeat(row["types"], count, 0),
                "length": jnp.repeat(row["length"], count, 0),
                "grams": jnp.full((count, 1), -1, jnp.int32),
            }

            def logit(words: jax.Array) -> tuple[jax.Array, jax.Array]:
                found = inner(batch, words=words)[:, head]
                return jnp.sum(found), found

            words = end - path + place[:, None, None] * path
            gradient, logits = jax.grad(logit, has_aux=True)(words)
            return jnp.sum(gradient * path, axis=-1), logits

        self._slopes = jax.jit(slopes)

    def explain(self, text: str, head: str, context: str = "") -> Attribution:
        """Contributions of the words of ``text`` to the logit of ``head``.

        Args:
            text: what is judged.
            head: a name of the schema.
            context: the prompt that it answers; it stays fixed.

        Raises:
            UsageError: an unknown head.
        """
        column = self.labels.column(head)
        clean = normalise(text)
        found = windows(self.featuriser, [clean.text], [context] if context else None)
        logits = self._forward(found.encoded)
        shares = window_shares(self.labels, logits, found.weight)[:, column]
        sums: dict[tuple[int, int], list[float]] = {}
        baseline, logit, steps = 0.0, 0.0, 0
        for window in np.flatnonzero(shares):
            part, share = self._part(found, int(window), column), float(shares[window])
            baseline, logit, steps = (
                baseline + share * part.baseline,
                logit + share * part.logit,
                max(steps, part.steps),
            )
            for place, deep, wide in _placed(part, clean, found.places[window]):
                value = sums.setdefault(place, [0.0, 0.0])
                value[0] += share * (deep + wide)
                value[1] += share * wide
        tokens = tuple(
            Token(start=start, end=end, text=text[start:end], value=value, wide=wide)
            for (start, end), (value, wide) in sorted(sums.items())
        )
        residual = logit - baseline - sum(token.value for token in tokens)
        return Attribution(
            head=head, tokens=tokens, baseline_logit=baseline, logit=logit, residual=residual, steps=steps
        )

    def _part(self, found: Windows, window: int, column: int) -> _Part:
        encoded, text = found.encoded, found.texts[window]
        encoding = self.featuriser.tokenizer.encode(text, add_special_tokens=False)
        length, second = encoded.length(window), encoded.second[window]
        first = 1 if second == length else second
        count = length - 1 - first
        words = _words(encoding.word_ids, encoding.offsets, text)
        bucket = next(size for size in self._forward.buckets if size >= length)
        row = self.featuriser.pad(encoded, [window], bucket)
        explained = np.zeros((1, bucket), bool)
        explained[0, first : first + count] = True
        deep_row = {"ids": row["ids"], "types": row["types"], "length": row["length"], "explained": explained}
        values, base, full, steps = self._integral(deep_row, column)
        deep = np.zeros(len(words))
        np.add.at(deep, np.array(encoding.word_ids[:count], np.int64), values[first : first + count])
        wide = _gathered(self._characters(text, row["grams"][0], column), words)
        return _Part(words, deep, wide, base, full + float(wide.sum()), steps)

    def _integral(self, row: dict[str, npt.NDArray[np.generic]], column: int) -> tuple[Floats, float, float, int]:
        """Contribution of each token, and the deep logit at both ends; more nodes until the sum is close."""
        steps = STEPS
        while True:
            nodes, weights = np.polynomial.legendre.leggauss(steps)
            places = (nodes + 1) / 2
            values = np.zeros(row["ids"].shape[1])
            for start in range(0, steps, _NODES):
                slopes, _ = self._at(row, places[start : start + _NODES], column)
                values += (weights[start : start + _NODES] / 2) @ slopes
            _, (base, full) = self._at(row, np.array([0.0, 1.0]), column)
            missed = full - base - values.sum()
            if abs(missed) <= TOLERANCE * abs(full - base) or steps >= MOST_STEPS:
                return values, float(base), float(full), steps
            steps *= 2

    def _at(self, row: dict[str, npt.NDArray[np.generic]], places: Floats, column: int) -> tuple[Floats, Floats]:
        count = len(places)
        filled = np.zeros(_NODES, np.float32)
        filled[:count] = places
        slopes, logits = self._slopes(self._leaves, row, filled, np.int32(column))
        return np.asarray(slopes, np.float64)[:count], np.asarray(logits, np.float64)[:count]

    def _characters(self, text: str, grams: npt.NDArray[np.int32], column: int) -> Floats:
        """What the n-grams add, by character of ``text``: each share is spread evenly over where its n-gram stands."""
        kept = grams[grams >= 0]
        spans = ngram_spans(text, self.featuriser.gram_bits)
        present = np.isin(spans.buckets, kept)
        buckets, start, end = spans.buckets[present], spans.start[present], spans.end[present]
        distinct, which, times = np.unique(buckets, return_inverse=True, return_counts=True)
        share = self._wide[distinct, column] / np.sqrt(max(len(kept), 1)) / times
        per_character = share[which] / np.maximum(end - start, 1)
        slope = np.zeros(len(text) + 1)
        np.add.at(slope, start, per_character)
        np.add.at(slope, end, -per_character)
        return np.cumsum(slope)[:-1]


def to_html(attribution: Attribution, text: str) -> str:
    """Each word on a background by its contribution: red speaks for the head, blue against. All text is escaped."""
    most = max((abs(token.value) for token in attribution.tokens), default=0.0) or 1.0
    pieces, last = [], 0
    for token in attribution.tokens:
        if token.start < last:
            continue  # windows overlap; a character is shown once
        colour = "214,39,40" if token.value > 0 else "31,119,180"
        pieces.append(html.escape(text[last : token.start]))
        pieces.append(
            f'<span style="background:rgba({colour},{abs(token.value) / most * 0.8:.2f})" title="{token.value:+.3f}">'
            f"{html.escape(text[token.start : token.end])}</span>"
        )
        last = token.end
    pieces.append(html.escape(text[last:]))
    return f'<span class="attribution">{"".join(pieces)}</span>'


def _words(ids: list[int | None], offsets: list[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Characters of each word of the tokenizer; of the whole text when it has none."""
    words: list[tuple[int, int]] = []
    for number, (start, end) in zip(ids, offsets, strict=True):
        if number is not None and number < len(words):
            words[number] = (words[number][0], end)
        else:
            words.append((start, end))
    return words or [(0, len(text))]


def _gathered(characters: Floats, words: list[tuple[int, int]]) -> Floats:
    """Sums by word; characters between words go to the word before, those at the front to the first."""
    starts = np.array([start for start, _ in words])
    which = np.maximum(np.searchsorted(starts, np.arange(len(characters)), side="right") - 1, 0)
    return np.bincount(which, weights=characters, minlength=len(words)).astype(np.float64)


def _placed(part: _Part, clean: Normalised, places: range | list[int]) -> list[tuple[tuple[int, int], float, float]]:
    """Words with their place in the original. Words that stand for the same characters (an emoji's name) become one."""
    found: list[tuple[tuple[int, int], float, float]] = []
    for (start, end), deep, wide in zip(part.words, part.deep.tolist(), part.wide.tolist(), strict=True):
        if end <= start:
            continue
        place = clean.offsets[places[start]], clean.offsets[places[end - 1]] + 1
        if found and place[0] < found[-1][0][1]:
            (before, after), *values = found.pop()
            place, deep, wide = (before, max(after, place[1])), deep + values[0], wide + values[1]
        found.append((place, deep, wide))
    return found
