"""The thing under evaluation, and a scorer that remembers: analyses run again from stored scores, without the model."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from runs.atomic import write_bytes
from runs.errors import UserError
from safety_classifier.calibration import Calibration
from safety_classifier.labels import Labels

Scores = npt.NDArray[np.float32]


@runtime_checkable
class Scorer(Protocol):
    """Anything that scores texts: the shipped classifier, a checkpoint, a baseline."""

    @property
    def labels(self) -> Labels:
        """The schema; the columns of `probabilities` follow its heads."""
        ...

    @property
    def thresholds(self) -> dict[str, float]:
        """Frozen threshold of each category and response head: flagged when the probability is at least this."""
        ...

    def probabilities(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> Scores:
        """Calibrated probabilities (n, heads); preference heads are raw scores.

        Args:
            texts: what is judged.
            contexts: the prompts that the texts answer, "" where a text stands alone; None: all stand alone.
        """
        ...


@runtime_checkable
class Calibrated(Protocol):
    """A scorer that says how its probabilities were calibrated, so that the report can show before and after."""

    @property
    def calibration(self) -> Calibration | None:
        """The map from logits to probabilities."""
        ...


def calibration_of(scorer: Scorer) -> Calibration | None:
    """The calibration of ``scorer``, of the scorer that it remembers, or None."""
    inner = scorer.inner if isinstance(scorer, RememberedScorer) else scorer
    return inner.calibration if isinstance(inner, Calibrated) else None


def checked(scorer: Scorer, texts: Sequence[str], contexts: Sequence[str] | None = None) -> Scores:
    """The scorer's probabilities, checked.

    Raises:
        UserError: wrong shape, or a value that is not finite; the row is named.
    """
    if contexts is not None and len(contexts) != len(texts):
        raise UserError(f"{len(texts)} texts came with {len(contexts)} contexts.")
    if not len(texts):
        return np.zeros((0, len(scorer.labels.heads)), np.float32)
    found = np.asarray(scorer.probabilities(texts, contexts), np.float32)
    expected = (len(texts), len(scorer.labels.heads))
    if found.shape != expected:
        raise UserError(f"The scorer returned the shape {found.shape}; {expected} was due.")
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        row, column = (int(index) for index in bad[0])
        raise UserError(
            f"The score of row {row} for '{scorer.labels.names[column]}' is {found[row, column]}.",
            why=f"{len(bad)} scores are not finite.",
            mend="Check the weights of the model.",
        )
    return found


class RememberedScorer:
    """Scores each distinct (text, context) once and keeps the result in a Parquet file.

    The file holds digests, not texts. It belongs to one scorer: its ``identity`` (a digest of the artifact, say) is
    stored with it, and scores under another identity are made anew.

    Args:
        inner: the scorer, or None to answer from the file only; labels and thresholds then come from the file.
        path: the Parquet file; made by `save`.
        identity: what the scores depend on besides the texts; empty: earlier scores are never trusted.

    Raises:
        UserError: without ``inner``, the file is absent or unreadable.
    """

    def __init__(self, inner: Scorer | None, path: Path, *, identity: str = "") -> None:
        self.inner, self.path, self.identity = inner, path, identity
        self._known: dict[bytes, Scores] = {}
        self._texts_scored = 0
        stored = _read(path) if path.is_file() and (inner is None or identity) else None
        if inner is not None:
            self.labels, self.thresholds = inner.labels, dict(inner.thresholds)
        elif stored is not None:
            self.labels, self.thresholds = Labels.model_validate(stored["labels"]), dict(stored["thresholds"])
        else:
            raise UserError(f"There are no stored scores {path}.", mend="Run the evaluation with the model first.")
        if stored is not None and (inner is None or stored["identity"] == identity):
            heads = tuple(head["name"] for head in stored["labels"]["heads"])
            self._known = stored["scores"] if heads == self.labels.names else {}

    def probabilities(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> Scores:
        """As `Scorer.probabilities`.

        Raises:
            UserError: a text is not in the file and there is no model to score it.
        """
        given = contexts if contexts is not None else [""] * len(texts)
        keys = [_digest(text, context) for text, context in zip(texts, given, strict=True)]
        missing = {key: row for row, key in enumerate(keys) if key not in self._known}
        if missing:
            self._score(
                list(missing), [texts[row] for row in missing.values()], [given[row] for row in missing.values()]
            )
        return (
            np.stack([self._known[key] for key in keys]) if keys else np.zeros((0, len(self.labels.heads)), np.float32)
        )

    def _score(self, keys: list[bytes], texts: list[str], contexts: list[str]) -> None:
        if self.inner is None:
            raise UserError(
                f"{len(keys)} texts have no stored score in {self.path}.", mend="Run the evaluation with the model."
            )
        found = checked(self.inner, texts, contexts if any(contexts) else None)
        self._known.update(zip(keys, found, strict=True))
        self._texts_scored += len(keys)

    def save(self) -> None:
        """Write all scores that are known. Raises `UserError` if the disk refuses."""
        import json

        import pyarrow as pa
        import pyarrow.parquet as pq

        scores = (
            np.stack(list(self._known.values())) if self._known else np.zeros((0, len(self.labels.heads)), np.float32)
        )
        columns: dict[str, Any] = {"digest": pa.array(list(self._known), pa.binary(16))}
        columns |= {name: scores[:, column] for column, name in enumerate(self.labels.names)}
        meta = {
            "identity": self.identity,
            "labels": self.labels.model_dump(mode="json"),
            "thresholds": self.thresholds,
        }
        table = pa.table(columns).replace_schema_metadata({"scorer": json.dumps(meta)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        write_bytes(self.path, buffer.getvalue())


def _digest(text: str, context: str) -> bytes:
    # The length of the context keeps ("a", "bc") and ("ab", "c") apart; lone surrogates are allowed in a Python string.
    head = f"{len(context)}:{context}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(head + text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _read(path: Path) -> dict[str, Any]:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        meta: dict[str, Any] = json.loads(table.schema.metadata[b"scorer"])
        names = [head["name"] for head in meta["labels"]["heads"]]
        scores = np.stack([table.column(name).to_numpy() for name in names], axis=1).astype(np.float32)
        keys = table.column("digest").to_pylist()
    except (pa.ArrowInvalid, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"{path} does not hold stored scores.", why=str(error), mend="Delete it; it is made again."
        ) from error
    return meta | {"scores": dict(zip(keys, scores, strict=True))}
