"""The report card's records."""

from __future__ import annotations

from typing import Literal

from evaluation.calibrate.measures import Measure
from runs.config import StrictModel

Standing = Literal["informative", "uninformative"]
Kind = Literal["held out", "fitted on", "cross-validated"]
"""Whether an evaluator has seen the rows of a line; cross-validated numbers come from the fit itself."""


class GoldSource(StrictModel):
    """A gold file and what was read from it."""

    name: str
    format: str
    sha256: str
    rows: int
    rejected: dict[str, int]
    """Reason → rows that could not be used."""
    fitted_on: bool
    """Whether the shipped weights were fitted on this very file: its rows then prove nothing."""


class CardRow(StrictModel):
    """One evaluator, or one baseline, on one gold set."""

    evaluator: str
    task: str
    dataset: str
    kind: Kind
    n: int
    clusters: int
    unscored: dict[str, int]
    """Reason → rows that are in no measure of this line."""
    accuracy: Measure | None = None
    """Of pairs: how often the better answer scores higher, ties as a half. Of labels: share of right classes."""
    auc: Measure | None = None
    precision: Measure | None = None
    recall: Measure | None = None
    f1: Measure | None = None
    calibration_error: float | None = None
    brier: float | None = None
    length_correlation: float | None = None
    """Spearman's correlation of the score with the answer's words."""
    length: Measure | None = None
    """The headline measure (accuracy of pairs, AUC of labels) of length alone, in whichever direction is better."""
    above_length: Measure | None = None
    """Headline minus that, on the same draws."""

    @property
    def headline(self) -> Measure | None:
        """What the line is judged by."""
        return self.auc or self.accuracy

    @property
    def clears_length(self) -> bool:
        """Whether the interval of the difference to length alone lies above zero."""
        return self.above_length is not None and self.above_length.low > 0


class ReportCard(StrictModel):
    """How the evaluators fare against people's labels."""

    schema_version: Literal[1] = 1
    command: str
    evaluators: dict[str, str]
    """Name → version."""
    gold: list[GoldSource]
    rows: list[CardRow]
    standings: dict[str, Standing]
    """Evaluator → whether it clears the length baseline on the task that it is made for."""
    notes: list[str]
    seed: int
    draws: int
