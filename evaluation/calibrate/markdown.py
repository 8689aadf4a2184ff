"""The report card for readers: a Markdown table, and the block of it in the guide."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.calibrate.card import CardRow, ReportCard
from evaluation.calibrate.measures import Measure
from evaluation.evaluators.linear import Weights
from runs.errors import UserError

CARD_MARKS = ("<!-- report card: made by evaluate calibrate -->", "<!-- end of the report card -->")
WEIGHT_MARKS = ("<!-- coefficients: made by evaluate calibrate -->", "<!-- end of the coefficients -->")
BASELINES = ("length alone", "a constant")
COLUMNS = (
    "evaluator", "gold", "n (clusters)", "accuracy", "AUC", "precision", "recall", "F1", "ECE", "Brier",
    "rank corr. with length", "above length alone", "unscored",
)  # fmt: skip


def card_markdown(card: ReportCard) -> str:
    """The whole card: standings, then a table for each task."""
    parts = ["# Report card of the evaluators", f"Made by `{card.command}`.", standings_table(card)]
    for task in dict.fromkeys(row.task for row in card.rows):
        rows = [row for row in card.rows if row.task == task]
        parts.append(f"## {task.replace('_', ' ')}\n\n{_table(COLUMNS, [cells(row) for row in rows])}")
    parts += [f"- {note}" for note in card.notes]
    return "\n\n".join(parts) + "\n"


def standings_table(card: ReportCard) -> str:
    """Evaluator and standing; what is not informative stays out of composites."""
    rows = [[name, card.standings.get(name, "unvalidated")] for name in card.evaluators]
    return _table(("evaluator", "standing"), rows)


def cells(row: CardRow) -> list[str]:
    """One line of the card as text."""
    lost = ", ".join(f"{count} {reason}" for reason, count in row.unscored.items())
    return [
        row.evaluator,
        f"{row.dataset} ({row.kind})" if row.evaluator not in BASELINES else row.dataset,
        f"{row.n:,} ({row.clusters:,})",
        *(_interval(measure) for measure in (row.accuracy, row.auc)),
        *(f"{measure.value:.3f}" if measure else "" for measure in (row.precision, row.recall)),
        _interval(row.f1),
        *(f"{number:.3f}" if number is not None else "" for number in (row.calibration_error, row.brier)),
        f"{row.length_correlation:+.2f}" if row.length_correlation is not None else "",
        _signed(row.above_length),
        lost or "",
    ]


def coefficients_markdown(weights: Weights) -> str:
    """Every fitted model with its coefficients, largest first, and how it did on rows that it had not seen."""
    parts = []
    for name, model in weights.models.items():
        measured = model.cross_validated
        head = "own" if "own" in measured else "auc"
        kind = "pairwise accuracy" if model.kind == "pairwise" else "AUC"
        interval = f" [{measured['own_low']:.3f}, {measured['own_high']:.3f}]" if "own_low" in measured else ""
        fitted = ", ".join(f"{count:,} {rows}" for rows, count in model.fitted_on.items())
        listed = sorted(model.coefficients.items(), key=lambda item: -abs(item[1]))
        terms = ", ".join(f"{feature} {weight:+.2f}" for feature, weight in listed if abs(weight) >= 0.005)
        parts.append(
            f"**{name}** (cross-validated {kind} {measured[head]:.3f}{interval}; fitted on {fitted}; "
            f"intercept {model.intercept:+.2f}): {terms}"
        )
    return "\n\n".join(parts)


def replace_block(text: str, marks: tuple[str, str], block: str) -> str:
    """``text`` with what stands between ``marks`` replaced.

    Raises:
        UserError: the marks are not there, once each and in order.
    """
    start, end = marks
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise UserError(f"The guide lacks the lines '{start}' and '{end}'.")
    head, rest = text.split(start)
    return f"{head}{start}\n\n{block.strip()}\n\n{end}{rest.split(end)[1]}"


def guide_card(card: ReportCard) -> str:
    """The card as the guide shows it: standings, and the lines that are not on data fitted on."""
    rows = [row for row in card.rows if row.kind != "fitted on"]
    tables = [standings_table(card)]
    for task in dict.fromkeys(row.task for row in rows):
        part = [row for row in rows if row.task == task]
        tables.append(f"**{task.replace('_', ' ')}**\n\n{_table(COLUMNS, [cells(row) for row in part])}")
    return "\n\n".join(tables)


def _interval(measure: Measure | None) -> str:
    return f"{measure.value:.3f} [{measure.low:.3f}, {measure.high:.3f}]" if measure else ""


def _signed(measure: Measure | None) -> str:
    return f"{measure.value:+.3f} [{measure.low:+.3f}, {measure.high:+.3f}]" if measure else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns that are empty in every row are left out."""
    kept = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    lines = ["| " + " | ".join(columns[index] for index in kept) + " |", "|" + " --- |" * len(kept)]
    return "\n".join(lines + ["| " + " | ".join(row[index] for index in kept) + " |" for row in rows])
