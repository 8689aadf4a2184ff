"""Which development pairs the safety classifier was not trained on, and its scores for their answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.calibrate.gold import GoldPair
from evaluation.calibrate.solve import FloatArray
from evaluation.evaluators.classifier import classifier_context, classifier_scores, head_logits, load_classifier
from runs.errors import UserError
from runs.paths import shown

UNSEEN = ("calibration", "test")
"""Splits of the classifier's rows that no weight of it was fitted on; validation chose when to stop."""


def unseen_pairs(pairs: Sequence[GoldPair], rows: Path) -> list[int]:
    """The places of the pairs that no weight of the shipped classifier was fitted on.

    Args:
        pairs: development pairs.
        rows: the classifier's table of rows, with ``text``, ``pair`` and ``split``.

    Raises:
        UserError: the table is missing, is another classifier's, or has none of the pairs; or there is no classifier.
    """
    import pandas

    if not rows.is_file():
        raise UserError(f"There is no table of rows {shown(rows)}.", mend="safety-classifier prepares it.")
    trained_on = load_classifier().manifest.inputs["data"]
    if rows.resolve().parent.name not in (trained_on, trained_on[:16]):
        raise UserError(
            f"{shown(rows)} is not what the shipped classifier was trained from.",
            why=f"Its data are {trained_on[:16]}, the folder's name is {rows.resolve().parent.name}.",
            mend="Another split would pass pairs off as unseen that the classifier was trained on.",
        )
    table = pandas.read_parquet(rows, columns=["text", "pair", "split"])
    table = table[(table["pair"] >= 0) & table["split"].isin(UNSEEN)]
    unseen = {frozenset(texts) for texts in table.groupby("pair")["text"].apply(list)}
    found = [index for index, pair in enumerate(pairs) if frozenset((pair.better, pair.worse)) in unseen]
    if not found:
        raise UserError(f"{shown(rows)} holds none of the {len(pairs)} pairs.", why="Its answers are other ones.")
    return found


def head_scores(pairs: Sequence[GoldPair], chosen: Sequence[int]) -> tuple[list[str], FloatArray]:
    """What the classifier's heads say of the better and of the worse answer.

    Returns:
        The heads, and their logits (n, 2, heads); NaN for pairs not ``chosen``.
    """
    import numpy as np

    texts = [answer for index in chosen for answer in (pairs[index].better, pairs[index].worse)]
    contexts = [classifier_context(pairs[index].prompt) for index in chosen for _ in range(2)]
    rows = [head_logits(row) for row in classifier_scores(texts, contexts)]
    heads = list(rows[0])
    found = np.full((len(pairs), 2, len(heads)), np.nan)
    found[list(chosen)] = np.array([[row[head] for head in heads] for row in rows]).reshape(-1, 2, len(heads))
    return heads, found
