"""The classifier for callers: texts in, calibrated probabilities and decisions out.

>>> classifier = Classifier.load()
>>> classifier.classify(["You are wonderful."])[0].safe  # doctest: +SKIP
0.99
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runs.config import StrictModel
from runs.errors import UserError
from runs.identity import digest
from runs.manifest import Manifest
from safety_classifier.artifact import Artifact, load_artifact
from safety_classifier.calibration import Calibration
from safety_classifier.forward import Call, Forward, remember_compilations
from safety_classifier.labels import Labels
from safety_classifier.normalise import Normalised, normalise, normalise_all
from safety_classifier.quantisation import resolve_precision
from safety_classifier.windows import Ints, Logits, Windows, combine, windows

if TYPE_CHECKING:
    from safety_classifier.explain import Attribution, Explainer

_ROWS, _CHARACTERS = 1024, 1 << 20
"""A block of texts is featurised at once; its bounds keep memory flat."""


class Span(StrictModel):
    """Where in the original text a score comes from: ``text[start:end]``."""

    start: int
    end: int


class Classification(StrictModel):
    """What the classifier says of one text."""

    probabilities: dict[str, float]
    """Category to calibrated probability."""
    flagged: dict[str, bool]
    """Category (and response head, in an exchange) to whether its probability reaches its threshold."""
    escalate: dict[str, bool]
    """The same heads to whether the probability is in the band where a stronger judge should decide."""
    safe: float
    """Probability that no category applies, were they independent: the product of (1 - p)."""
    response: dict[str, float] | None
    """Response head to probability; only for a response with its prompt."""
    preference: dict[str, float] | None
    """Preference head to Bradley-Terry score, of meaning only beside another response to the same prompt."""
    decided: dict[str, Span]
    """Category to the part of the text that decided it: all of it, or one window of a long text."""
    windows: int
    """In how many windows the text was read."""
    obfuscation: float
    """Share of the characters that were disguised."""
    empty: bool
    """Nothing was left to read; the probabilities are 0."""

    @property
    def harmful(self) -> bool:
        """Whether any category is flagged."""
        return any(self.flagged[name] for name in self.probabilities)


class Classifier:
    """A checked artifact, compiled. Scoring is thread-safe; results keep the order of the input.

    A text with nothing to read (empty, spaces, invisible characters) has probability 0 in all category and response
    heads.

    Args:
        artifact: what `load_artifact` read.
        precision: ``auto`` (what this machine is fast at), ``float32``, ``bfloat16`` or ``int8`` (W8A8).

    Raises:
        UsageError: an unknown precision.
    """

    def __init__(self, artifact: Artifact, *, precision: str = "auto") -> None:
        remember_compilations()
        self.artifact = artifact
        self.precision = resolve_precision(precision)
        self.featuriser = artifact.featuriser()
        self.forward = Forward(artifact.model(), self.featuriser, self.precision)

    @classmethod
    def load(cls, folder: Path | None = None, *, precision: str = "auto") -> Classifier:
        """Read and check an artifact; the shipped one by default. Raises `IntegrityError` as `load_artifact` does."""
        return cls(load_artifact(folder), precision=precision)

    @property
    def labels(self) -> Labels:
        """The schema; columns follow its heads."""
        return self.artifact.labels

    @property
    def calibration(self) -> Calibration:
        """The map from logits to probabilities."""
        return self.artifact.calibration

    @property
    def manifest(self) -> Manifest:
        """How the artifact was made."""
        return self.artifact.manifest

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """Threshold of each category and response head."""
        return self.artifact.thresholds.values

    @cached_property
    def identity(self) -> str:
        """Digest of everything that a score depends on: the artifact's scoring files and the precision."""
        return digest({"artifact": self.artifact.identity, "precision": self.precision})

    def warm(
        self,
        buckets: Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compile (or read from the cache) before the first request; arguments as `Forward.warm`."""
        self.forward.warm(buckets, rows, progress)

    def logits(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> Logits:
        """Scores before calibration: float32 (n, heads).

        Args:
            texts: what is judged; of any length.
            contexts: the prompts that they answer, "" where a text stands alone; None: all stand alone.

        Raises:
            UserError: a row is not a string; it is named. Or the numbers of texts and contexts differ.
        """
        return self._logits(texts, contexts)[0]

    def probabilities(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> Logits:
        """Calibrated probabilities, float32 (n, heads); preference heads are raw scores. Arguments as `logits`."""
        scores, empty = self._logits(texts, contexts)
        found = self.calibration.apply(scores)
        if empty:
            found[np.ix_(empty, self._scored)] = 0.0
        return found

    def classify(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Classification]:
        """Probabilities with decisions and where they come from. Arguments and errors as `logits`."""
        return [found for block in self._blocks(texts, contexts) for found in self._classify(*block)]

    def explain(self, text: str, head: str, context: str = "") -> Attribution:
        """What each word adds to the logit of ``head``; see `safety_classifier.explain`."""
        return self._explainer.explain(text, head, context)

    @cached_property
    def _explainer(self) -> Explainer:
        from safety_classifier.explain import Explainer

        return Explainer(self.artifact)

    @cached_property
    def _scored(self) -> list[int]:
        return self.labels.columns(self.labels.of("category", "response"))

    def _logits(self, texts: Sequence[str], contexts: Sequence[str] | None) -> tuple[Logits, list[int]]:
        """Logits (n, heads) and the rows with nothing to read. A block is featurised while the last is scored."""
        done: list[Logits] = []
        empty: list[int] = []
        pending: tuple[Windows, list[Call], int] | None = None
        rows = 0
        for part, prompts in self._blocks(texts, contexts):
            clean = normalise_all(part)
            empty += [rows + row for row, text in enumerate(clean) if not text]
            rows += len(part)
            found = windows(self.featuriser, clean, prompts)
            started = (found, self.forward.start(found.encoded), len(part))
            if pending is not None:
                done.append(self._finish(*pending)[0])
            pending = started
        if pending is None:
            return np.zeros((0, len(self.labels.heads)), np.float32), []
        done.append(self._finish(*pending)[0])
        return (done[0] if len(done) == 1 else np.concatenate(done)), empty

    def _finish(self, found: Windows, calls: list[Call], count: int) -> tuple[Logits, Ints]:
        return combine(self.labels, self.forward.finish(calls, len(found.encoded)), found, count)

    def _blocks(
        self, texts: Sequence[str], contexts: Sequence[str] | None
    ) -> Iterator[tuple[Sequence[str], Sequence[str] | None]]:
        """Checked texts in blocks of bounded size, with their contexts."""
        check_texts(texts, "text")
        if contexts is not None:
            check_texts(contexts, "context")
            if len(contexts) != len(texts):
                raise UserError(f"{len(texts)} texts came with {len(contexts)} contexts.")
        start = 0
        while start < len(texts):
            end, characters = start, 0
            while end < len(texts) and end - start < _ROWS and (end == start or characters < _CHARACTERS):
                characters += len(texts[end])
                end += 1
            yield texts[start:end], None if contexts is None else contexts[start:end]
            start = end

    def _classify(self, texts: Sequence[str], contexts: Sequence[str] | None) -> Iterator[Classification]:
        normalised = [normalise(text) for text in texts]
        found = windows(self.featuriser, [text.text for text in normalised], contexts)
        logits, decided = self._finish(found, self.forward.start(found.encoded), len(texts))
        probabilities = self.calibration.apply(logits)
        counts = np.bincount(found.owner, minlength=len(texts))
        for row, text in enumerate(normalised):
            if not text.text:
                probabilities[row, self._scored] = 0.0
            exchange = contexts is not None and contexts[row] != ""
            spans = [_original(text, len(texts[row]), found.places[window]) for window in decided[row]]
            yield self._judged(probabilities[row], exchange, spans, int(counts[row]), text)

    def _judged(
        self, row: npt.NDArray[np.float32], exchange: bool, spans: list[Span], count: int, text: Normalised
    ) -> Classification:
        values = dict(zip(self.labels.names, row.tolist(), strict=True))
        categories = self.labels.categories
        response, preference = self.labels.of("response"), self.labels.of("preference")
        decided = (*categories, *response) if exchange else categories
        thresholds = self.artifact.thresholds
        return Classification(
            probabilities={name: values[name] for name in categories},
            flagged={name: values[name] >= self.thresholds[name] for name in decided},
            escalate={name: thresholds.escalate(name, values[name]) for name in decided},
            safe=float(np.prod([1.0 - values[name] for name in categories])),
            response={name: values[name] for name in response} if exchange else None,
            preference={name: values[name] for name in preference} if exchange else None,
            decided={name: spans[self.labels.column(name)] for name in decided},
            windows=count,
            obfuscation=text.obfuscation,
            empty=not text.text,
        )


def check_texts(texts: Sequence[Any], what: str) -> None:
    """Refuse what is not a list of strings.

    Raises:
        UserError: one string, or a row of another type; the row is named, counted from 0.
    """
    if isinstance(texts, str | bytes):
        raise UserError(f"A list of {what}s is due, and one {type(texts).__name__} came.", mend="Put it into a list.")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            mend = "Decode it first." if isinstance(text, bytes) else "Leave the row out, or give a string."
            raise UserError(f"Row {row}: the {what} is {_shown(text)}, not a string.", mend=mend)


def _shown(value: object) -> str:
    return "None" if value is None else "NaN" if value != value else f"of type {type(value).__name__}"


def _original(text: Normalised, length: int, places: Sequence[int]) -> Span:
    """The characters of the original that a window covers."""
    start, end = places[0], places[-1]
    if (start, end) == (0, len(text.text)):
        return Span(start=0, end=length)
    return Span(start=text.offsets[start], end=text.offsets[end - 1] + 1)
