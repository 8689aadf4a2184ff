"""Which rows train, validate, calibrate and test: by a hash of everything that must stay together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runs.errors import IntegrityError
from safety_classifier.data.dedup import NORMAL, digests, near_pairs, normal_forms
from safety_classifier.data.minhash import Pairs, chain, components

if TYPE_CHECKING:
    import pandas

SHARES = {"train": 0.80, "validation": 0.06, "calibration": 0.06, "test": 0.08}
"""Splits in order, with the share of the hash range that each gets."""


def assign(
    together: NDArray[np.int64], keys: NDArray[np.int64], test_rows: NDArray[np.bool_], seed: int
) -> NDArray[np.str_]:
    """The split of each row.

    A component gets its split from its smallest key, so that neither the order of rows nor other components matter.

    Args:
        together: the component of each row, from 0, shape (rows,).
        keys: a digest of each row's content, shape (rows,).
        test_rows: rows that their source sets aside for testing; their whole component is tested on.
        seed: another seed is another assignment.
    """
    count = int(together.max(initial=-1)) + 1
    smallest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(smallest, together, keys)
    share = digests([f"{seed}:{key}" for key in smallest]).view(np.uint64) / 2.0**64
    split = np.searchsorted(np.cumsum(list(SHARES.values()))[:-1], share, side="right")
    names = list(SHARES)
    split[together[test_rows]] = names.index("test")
    return np.array(names)[split[together]]


def row_pairs(frame: pandas.DataFrame) -> Pairs:
    """Pairs of rows that must not be in different splits: of one group, one text, nearly one text, or one preference.

    Args:
        frame: rows with ``text``, ``context``, ``group`` and ``pair``; the `NORMAL` columns are used where it has them.

    Returns:
        Pairs of row positions that connect what belongs together, shape (pairs, 2).
    """
    texts, contexts = (
        frame[normal].tolist() if normal in frame.columns else normal_forms(frame[column].tolist())
        for normal, column in zip(NORMAL, ("text", "context"), strict=True)
    )
    single = np.flatnonzero(frame["pair"].to_numpy() < 0)
    near = near_pairs([texts[i] for i in single], [contexts[i] for i in single])
    copies = chain(digests([f"{context}\0{text}" for context, text in zip(contexts, texts, strict=True)]))
    return np.concatenate([single[near], copies, *declared_pairs(frame)])


def declared_pairs(frame: pandas.DataFrame) -> list[Pairs]:
    """Pairs of rows of one group, and the two rows of each preference."""
    found = []
    for column, absent in (("group", ""), ("pair", -1)):
        rows = np.flatnonzero((frame[column] != absent).to_numpy())
        codes = frame[column].iloc[rows].astype(str).factorize()[0]
        found.append(rows[chain(codes.astype(np.int64))])
    return found


def check_no_leak(frame: pandas.DataFrame) -> None:
    """Refuse rows in different splits that are copies, near-copies, or of one group.

    Raises:
        IntegrityError: naming how many pairs and the first one's row numbers and sources, never the text.
    """
    pairs = row_pairs(frame)
    split = frame["split"].to_numpy()
    apart = pairs[split[pairs[:, 0]] != split[pairs[:, 1]]]
    if len(apart):
        first, second = (f"row {i} ({frame['source'].iloc[i]}, {split[i]})" for i in apart[0])
        raise IntegrityError(
            f"{len(apart)} pairs of rows leak between splits; the first: {first} and {second}.",
            mend="Prepare the data again; rows are not to be moved between splits by hand.",
        )


def connected(frame: pandas.DataFrame, more: Pairs) -> NDArray[np.int64]:
    """The component of each row under `row_pairs` and ``more``, shape (rows,)."""
    return components(np.concatenate([row_pairs(frame), more]), len(frame))
