"""The prepared data as the evaluation reads it: a table of rows with one nullable column a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from runs.errors import UserError
from safety_classifier.calibration import Floats, Ints
from safety_classifier.labels import Labels

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("text", "context", "source", "group", "split", "pair")
TEST, TRAIN, VALIDATION = "test", "train", "validation"


@dataclass(frozen=True)
class Rows:
    """Rows as arrays: texts, contexts, targets and the groups that are resampled together."""

    texts: list[str]
    contexts: list[str]
    targets: Floats
    """(n, heads) of 0 and 1; NaN where unknown, and in the preference heads."""
    sources: list[str]
    clusters: Ints
    """(n,) number of the group; a row without a group is one by itself."""
    strata: Ints
    """(n,) number of the source."""
    pairs: dict[str, Ints]
    """Preference head to (m, 2) row numbers: the chosen and the rejected response."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Ints) -> Rows:
        """These rows only, without the pairs."""
        return Rows(
            texts=[self.texts[row] for row in rows],
            contexts=[self.contexts[row] for row in rows],
            targets=self.targets[rows],
            sources=[self.sources[row] for row in rows],
            clusters=self.clusters[rows],
            strata=self.strata[rows],
            pairs={},
        )


def rows_of(frame: pd.DataFrame, labels: Labels, split: str) -> Rows:
    """The rows of one split.

    Args:
        frame: the prepared table: text, context, source, group, split, pair and one column a head (NaN: unknown).
            The rows of a preference pair follow each other with the same ``pair``, the chosen response first, and carry
            1 and 0 in their head.
        labels: the schema.
        split: the split to take.

    Raises:
        UserError: a column is missing, the split is empty, a label lies outside [0, 1], a text is missing, or a
            pair is broken; the column and the row's index are named.
    """
    missing = [name for name in (*REQUIRED, *labels.names) if name not in frame.columns]
    if missing:
        raise UserError(f"The data has no column {', '.join(repr(name) for name in missing)}.")
    part = frame[frame["split"] == split]
    if not len(part):
        raise UserError(f"The data has no rows in the split '{split}'.", mend=f"Splits: {sorted(set(frame['split']))}.")
    empty = part.index[part["text"].isna()]
    if len(empty):
        raise UserError(f"Row {empty[0]}: column 'text' is empty.", why=f"{len(empty)} rows have no text.")
    targets = np.stack([_column(part, name) for name in labels.names], axis=1)
    pairs = _pairs(part, targets, labels)
    targets[:, [labels.column(name) for name in labels.of("preference")]] = np.nan
    sources = part["source"].astype(str).tolist()
    return Rows(
        texts=part["text"].astype(str).tolist(),
        contexts=part["context"].fillna("").astype(str).tolist(),
        targets=np.where(np.isnan(targets), np.nan, (targets >= 0.5).astype(np.float64)),
        sources=sources,
        clusters=cluster_codes(sources, part["group"].fillna("").astype(str).tolist()),
        strata=np.unique(np.array(sources), return_inverse=True)[1],
        pairs=pairs,
    )


def cluster_codes(sources: list[str], groups: list[str]) -> Ints:
    """(n,) numbers: rows of one source and group share theirs, rows without a group have their own."""
    keys: dict[tuple[str, str, int], int] = {}
    return np.array(
        [
            keys.setdefault((source, group, -1 if group else row), len(keys))
            for row, (source, group) in enumerate(zip(sources, groups, strict=True))
        ],
        dtype=np.int64,
    )


def _column(part: pd.DataFrame, name: str) -> Floats:
    try:
        values: Floats = part[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise UserError(f"Column '{name}' holds values that are not numbers.", why=str(error)) from error
    outside = np.flatnonzero((values < 0) | (values > 1))
    if len(outside):
        row = int(outside[0])
        raise UserError(
            f"Row {part.index[row]}: column '{name}' is {values[row]:g}.", mend="Labels lie between 0 and 1."
        )
    return values


def _pairs(part: pd.DataFrame, targets: Floats, labels: Labels) -> dict[str, Ints]:
    marks = part["pair"].astype("string").fillna("").to_numpy()
    rows = np.flatnonzero((marks != "") & (marks != "-1"))
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in labels.of("preference")}
    if len(rows) % 2:
        raise UserError(f"Row {part.index[rows[-1]]}: the preference pairs of the split have an odd number of rows.")
    for first, second in rows.reshape(-1, 2):
        if second != first + 1 or marks[first] != marks[second]:
            raise UserError(
                f"Row {part.index[first]}: its preference pair is not whole.", why="Its two rows must be adjacent."
            )
        heads = [name for name in found if not np.isnan(targets[first, labels.column(name)])]
        if not heads:
            raise UserError(f"Row {part.index[first]}: a preference pair without a label in a preference head.")
        for name in heads:
            column = labels.column(name)
            if not targets[first, column] > targets[second, column]:
                raise UserError(f"Row {part.index[first]}: column '{name}' does not put the chosen response first.")
            found[name].append((int(first), int(second)))
    return {name: np.array(pairs, np.int64) for name, pairs in found.items() if pairs}
