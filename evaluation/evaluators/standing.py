"""What the committed report card says of an evaluator: may its numbers be put into a composite?"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from evaluation.calibrate.card import ReportCard
from runs.errors import IntegrityError
from runs.paths import ARTIFACTS, shown

CARD = ARTIFACTS / "evaluators" / "report_card.json"
Standing = Literal["informative", "uninformative", "unvalidated"]


@lru_cache(maxsize=4)
def read_card(path: Path = CARD) -> ReportCard | None:
    """The report card; None where there is none.

    Raises:
        IntegrityError: the file is not a card.
    """
    if not path.is_file():
        return None
    try:
        return ReportCard.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise IntegrityError(
            f"{shown(path)} is not a report card.",
            why=str(error).split("\n", 1)[0],
            mend="Make it again: uv run evaluate calibrate --gold-dir DIR",
        ) from error


def standing(name: str, path: Path = CARD) -> Standing:
    """``informative`` where the evaluator beat length alone on people's labels, ``unvalidated`` where it has none."""
    card = read_card(path)
    if card is None or name not in card.standings:
        return "unvalidated"
    return card.standings[name]


def uninformative(name: str, path: Path = CARD) -> bool:
    """Whether to keep the evaluator out of every composite and to mark it on every chart.

    What is not shown to know more than length counts as knowing no more.
    """
    return standing(name, path) != "informative"
