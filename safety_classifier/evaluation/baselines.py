"""What a classifier is compared with: always safe, a word list, the length, TF-IDF with logistic regression.

Each baseline is a `Scorer`: fitted on the same train split, calibrated and given its thresholds (highest F1) on the
validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runs.errors import unknown_name
from safety_classifier.calibration import Calibration, Floats, fit_calibration
from safety_classifier.evaluation.frame import Rows
from safety_classifier.evaluation.lexicon import LEXICON
from safety_classifier.evaluation.scorer import Scores
from safety_classifier.labels import Labels
from safety_classifier.thresholds import Policy, choose_threshold

CHARACTERS = 500
"""TF-IDF reads so many characters at the beginning of a text and as many at its end: bounds its time and memory."""
FEATURES = 2**18
"""Hash buckets of the word n-grams, and as many of the character n-grams."""
PAIRS = 15_000
"""Preference pairs that a baseline is fitted on, at most."""
NEVER = 2.0
"""A threshold that no probability reaches: a head without training rows flags nothing."""


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline."""

    labels: Labels
    thresholds: dict[str, float]
    score: Callable[[Sequence[str]], Scores]
    """Texts to probabilities (n, heads). Contexts are ignored by all baselines."""
    unfitted: tuple[str, ...] = ()
    """Heads without training rows of both classes: constant scores, never flagged."""
    calibration: Calibration | None = None

    def probabilities(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> Scores:
        """As `Scorer.probabilities`; ``contexts`` are ignored."""
        return self.score(texts)


Fit = Callable[[Labels, Rows, Rows, int], Baseline]


def fit_baseline(name: str, labels: Labels, train: Rows, validation: Rows, *, seed: int) -> Baseline:
    """Fit one baseline.

    Args:
        name: of `BASELINES`.
        labels: the schema.
        train: the rows that the classifier was trained on.
        validation: for calibration and thresholds.
        seed: of what is random in the fit.

    Raises:
        UsageError: there is no such baseline.
    """
    if name not in BASELINES:
        raise unknown_name("baseline", name, BASELINES)
    return BASELINES[name](labels, train, validation, seed)


def always_safe(labels: Labels, train: Rows, validation: Rows, seed: int) -> Baseline:
    """Flag nothing. The probability is the share of positives in the train split: a fair floor for the Brier score."""
    row = np.array([_prevalence(train.targets[:, column]) for column in range(len(labels.heads))], np.float32)
    heads = labels.of("category", "response")
    return Baseline(labels, dict.fromkeys(heads, NEVER), lambda texts: np.tile(row, (len(texts), 1)))


def word_list(labels: Labels, train: Rows, validation: Rows, seed: int) -> Baseline:
    """One word of the list flags: the probability is 1 - 2^-(number of hits) and the threshold one half."""

    def score(texts: Sequence[str]) -> Scores:
        found = np.zeros((len(texts), len(labels.heads)), np.float32)
        for name, pattern in LEXICON.items():
            if name in labels.names:
                found[:, labels.column(name)] = [1 - 0.5 ** len(pattern.findall(text)) for text in texts]
        for name in labels.of("preference"):
            found[:, labels.column(name)] = [-len(LEXICON["harmful_response"].findall(text)) for text in texts]
        return found

    return Baseline(labels, dict.fromkeys(labels.of("category", "response"), 0.5), score)


def length(labels: Labels, train: Rows, validation: Rows, seed: int) -> Baseline:
    """Logistic regression on the logarithm of the number of characters: what the length alone gives away."""

    def features(texts: Sequence[str]) -> Floats:
        size = np.log1p(np.array([len(text) for text in texts], np.float64))
        return np.stack([size, size**2], axis=1)

    return _linear(labels, train, validation, features, seed)


def tfidf(labels: Labels, train: Rows, validation: Rows, seed: int) -> Baseline:
    """TF-IDF of word 1-2-grams and character 2-5-grams (within words), hashed, and a logistic regression a head."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    plain = {"n_features": FEATURES, "alternate_sign": False, "norm": None, "dtype": np.float32}
    words = HashingVectorizer(ngram_range=(1, 2), **plain)
    letters = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), **plain)

    def counts(texts: Sequence[str]) -> Any:
        cut = [_ends(text) for text in texts]
        return hstack([words.transform(cut), letters.transform(cut)], format="csr")

    weighting = TfidfTransformer(sublinear_tf=True)
    fitted = weighting.fit_transform(counts(train.texts))
    return _linear(labels, train, validation, lambda texts: weighting.transform(counts(texts)), seed, fitted)


BASELINES: dict[str, Fit] = {"always_safe": always_safe, "word_list": word_list, "length": length, "tfidf": tfidf}
"""All baselines, by name."""


def _linear(
    labels: Labels,
    train: Rows,
    validation: Rows,
    features: Callable[[Sequence[str]], Any],
    seed: int,
    fitted: Any = None,
) -> Baseline:
    """Logistic regression a head, calibrated and cut on validation; ``fitted`` holds the features of ``train``."""
    table = features(train.texts) if fitted is None else fitted
    weights: dict[str, tuple[Floats, float]] = {}
    for name in labels.of("category", "response"):
        y = train.targets[:, labels.column(name)]
        known = np.flatnonzero(~np.isnan(y))
        if len(np.unique(y[known])) == 2:
            weights[name] = _regress(table[known], y[known], seed)
    for name, pairs in train.pairs.items():
        some = np.random.default_rng(seed).permutation(pairs)[:PAIRS]
        weights[name] = _regress_pairs(
            table[some[:, 0]] - table[some[:, 1]], seed, sparse=not isinstance(table, np.ndarray)
        )

    def logits(texts: Sequence[str]) -> Floats:
        if not texts:
            return np.zeros((0, len(labels.heads)))
        given = features(texts)
        columns = [
            np.asarray(given @ weights[name][0]).ravel() + weights[name][1]
            if name in weights
            else np.full(len(texts), -30.0)
            for name in labels.names
        ]
        return np.stack(columns, axis=1)

    seen = logits(validation.texts)
    calibration = fit_calibration(labels, seen, validation.targets)
    thresholds = _thresholds(labels, calibration.apply(seen), validation.targets, weights)
    unfitted = tuple(name for name in labels.names if name not in weights)
    return Baseline(labels, thresholds, lambda texts: calibration.apply(logits(texts)), unfitted, calibration)


def _thresholds(labels: Labels, probabilities: Scores, targets: Floats, weights: Mapping[str, Any]) -> dict[str, float]:
    thresholds = {}
    for name in labels.of("category", "response"):
        column = labels.column(name)
        known = ~np.isnan(targets[:, column])
        if name not in weights:
            thresholds[name] = NEVER
        elif len(np.unique(targets[known, column])) < 2:
            thresholds[name] = 0.5  # nothing to choose by: the calibrated even chance
        else:
            found = choose_threshold(targets[known, column], probabilities[known, column], policy=Policy(), name=name)
            thresholds[name] = found.threshold
    return thresholds


def _regress(table: Any, targets: Floats, seed: int) -> tuple[Floats, float]:
    """Slope (features,) and offset."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=4.0, solver="liblinear", random_state=seed)
    model.fit(table, targets)
    return model.coef_[0], float(model.intercept_[0])


def _regress_pairs(differences: Any, seed: int, *, sparse: bool) -> tuple[Floats, float]:
    """Bradley-Terry on features: chosen minus rejected, and the mirror image, without an offset."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    mirrored = [differences, -differences]
    both: Any = vstack(mirrored).tocsr() if sparse else np.concatenate(mirrored)
    targets = np.repeat([1.0, 0.0], differences.shape[0])
    model = LogisticRegression(C=1.0, solver="liblinear", fit_intercept=False, random_state=seed)
    model.fit(both, targets)
    return model.coef_[0], 0.0


def _ends(text: str) -> str:
    return text if len(text) <= 2 * CHARACTERS else f"{text[:CHARACTERS]} {text[-CHARACTERS:]}"


def _prevalence(targets: Floats) -> float:
    known = targets[~np.isnan(targets)]
    return float(known.mean()) if len(known) else 0.0
