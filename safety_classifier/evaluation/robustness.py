"""What attacks cost: the loss of AUROC on the same rows, clean and attacked, with paired intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runs.config import StrictModel
from safety_classifier.calibration import Floats, Ints
from safety_classifier.evaluation.attacks import ATTACKS, attack
from safety_classifier.evaluation.frame import Rows
from safety_classifier.evaluation.intervals import Bootstrap, Estimate
from safety_classifier.evaluation.metrics import MACRO, Ranked, decided
from safety_classifier.evaluation.scorer import Scorer
from safety_classifier.labels import Labels


class AttackLoss(StrictModel):
    """One attack on one head (or the macro average over the headline categories)."""

    attack: str
    head: str
    rows: int
    positives: int
    clean: Estimate
    attacked: Estimate
    loss: Estimate
    """Clean minus attacked AUROC, the rows resampled together."""
    recall_loss: Estimate
    """Clean minus attacked recall at the frozen threshold."""


def sample_rows(labels: Labels, rows: Rows, *, per_class: int, seed: int) -> Ints:
    """Row numbers with up to ``per_class`` rows of either class of each headline category, sorted."""
    rng = np.random.default_rng(seed)
    chosen: set[int] = set()
    for name in labels.of("category", headline=True):
        column = rows.targets[:, labels.column(name)]
        for value in (0.0, 1.0):
            options = np.flatnonzero(column == value)
            chosen.update(int(row) for row in rng.permutation(options)[:per_class])
    return np.array(sorted(chosen), dtype=np.int64)


def attack_losses(
    scorer: Scorer,
    rows: Rows,
    *,
    attacks: Sequence[str] = tuple(ATTACKS),
    resamples: int,
    seed: int,
) -> list[AttackLoss]:
    """The loss of each headline category and of their mean under each attack.

    Args:
        scorer: the thing under evaluation.
        rows: labelled rows; positives and negatives are attacked alike, so that the attack itself tells nothing.
        attacks: names of `ATTACKS`.
        resamples: of the paired bootstrap.
        seed: of the attacks and of the bootstrap.
    """
    labels = scorer.labels
    clean = scorer.probabilities(rows.texts, rows.contexts)
    heads = [
        name
        for name in labels.of("category", headline=True)
        if {0.0, 1.0} <= set(np.unique(rows.targets[:, labels.column(name)]))
    ]
    found = []
    for name in attacks:
        attacked = scorer.probabilities(attack(name, rows.texts, seed=seed), rows.contexts)
        pairs = {
            head: tuple(
                Ranked(
                    scores[:, labels.column(head)],
                    rows.targets[:, labels.column(head)],
                    flagged=decided(scores, labels, head, scorer.thresholds),
                )
                for scores in (clean, attacked)
            )
            for head in heads
        }

        def statistic(weights: Floats, pairs: dict[str, tuple[Ranked, ...]] = pairs) -> dict[str, Floats]:
            values: dict[str, Floats] = {}
            for head, both in pairs.items():
                before, after = (one(weights) for one in both)
                values[f"{head}/clean"], values[f"{head}/attacked"] = before["auroc"], after["auroc"]
                values[f"{head}/loss"] = before["auroc"] - after["auroc"]
                absent = np.full(len(weights), np.nan)
                values[f"{head}/recall_loss"] = before.get("recall", absent) - after.get("recall", absent)
            for part in ("clean", "attacked", "loss", "recall_loss"):
                values[f"{MACRO}/{part}"] = np.mean([values[f"{head}/{part}"] for head in pairs], axis=0)
            return values

        estimates = Bootstrap(rows.clusters, rows.strata, resamples, seed).estimates(statistic)
        for head in (MACRO, *heads):
            counted = [pairs[one][0] for one in (heads if head == MACRO else [head])]
            found.append(
                AttackLoss(
                    attack=name,
                    head=head,
                    rows=sum(one.labelled for one in counted),
                    positives=sum(one.positives for one in counted),
                    clean=estimates[f"{head}/clean"],
                    attacked=estimates[f"{head}/attacked"],
                    loss=estimates[f"{head}/loss"],
                    recall_loss=estimates[f"{head}/recall_loss"],
                )
            )
    return found
