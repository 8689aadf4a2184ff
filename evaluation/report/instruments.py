"""The evaluators' report card, as figures and as a table: may a number that they give be trusted?"""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.calibrate.card import CardRow, ReportCard
from evaluation.calibrate.measures import Measure
from evaluation.report.figures import Dot, Dots, points
from evaluation.report.grid import Cell, Grid, interval_text, slug, words

INFORMATIVE, UNVALIDATED = "informative", "unvalidated"
_SERIES = ("evaluator", "length alone")
_COIN = 0.5


def standings_of(card: ReportCard | None, versions: Mapping[str, str]) -> dict[str, str]:
    """Evaluator → ``informative``, ``uninformative`` or ``unvalidated``; empty where there is no card at all.

    An evaluator that changed since the card was made is unvalidated: the card speaks of another one.
    """
    if card is None:
        return {}
    return {
        name: card.standings.get(name, UNVALIDATED) if card.evaluators.get(name) == version else UNVALIDATED
        for name, version in versions.items()
    }


def card_figures(card: ReportCard | None) -> list[Dots]:
    """One figure a task: every evaluator's headline measure beside length alone."""
    if card is None:
        return []
    return [_task_figure(card, task) for task in dict.fromkeys(row.task for row in card.rows) if _shown(card, task)]


def _shown(card: ReportCard, task: str) -> list[CardRow]:
    return [row for row in card.rows if row.task == task and row.headline is not None]


def _task_figure(card: ReportCard, task: str) -> Dots:
    dots = []
    for row in _shown(card, task):
        label = f"{words(row.evaluator)} · {words(row.dataset)}" + (f" ({row.kind})" if row.kind != "held out" else "")
        muted = row.kind == "fitted on" or card.standings.get(row.evaluator, UNVALIDATED) != INFORMATIVE
        for series, measure in zip(_SERIES, (row.headline, row.length), strict=True):
            if measure is not None:
                dots.append(Dot(label, series, measure.value, measure.low, measure.high, row.n, muted=muted))
    return Dots(
        name=f"card-{slug(task)}",
        title=f"Instruments: {words(task)}",
        subtitle="Agreement with people's labels (AUC, or accuracy on pairs). Dotted: a coin. Grey: does not clear "
        "length alone, or was fitted on these rows.",
        rows=tuple(dict.fromkeys(dot.row for dot in dots)),
        series=_SERIES,
        dots=tuple(dots),
        reference=_COIN,
        reference_label="a coin",
    )


def card_grid(card: ReportCard) -> Grid:
    """Every line of the card."""
    rows = tuple(_line(card, row) for row in card.rows)
    muted = frozenset(
        number for number, row in enumerate(card.rows) if card.standings.get(row.evaluator, UNVALIDATED) != INFORMATIVE
    )
    columns = (
        "evaluator", "task", "gold", "n (clusters)", "accuracy", "AUC", "F1", "length alone", "above length",
        "rank corr. with length",
    )  # fmt: skip
    caption = (
        "Points of 100 with 95 % cluster-bootstrap intervals. Lines that the weights were fitted on prove nothing."
    )
    return Grid(columns, rows, caption=caption, muted=muted)


def _line(card: ReportCard, row: CardRow) -> tuple[Cell, ...]:
    return (
        Cell(words(row.evaluator), card.standings.get(row.evaluator, UNVALIDATED)),
        Cell(words(row.task), look="name"),
        Cell(row.dataset, "" if row.kind == "held out" else row.kind, "name"),
        Cell(f"{row.n:,} ({row.clusters:,})"),
        *(_measure(measure) for measure in (row.accuracy, row.auc, row.f1, row.length)),
        _measure(row.above_length, signed=True),
        Cell("–" if row.length_correlation is None else f"{row.length_correlation:+.2f}".replace("-", "−")),
    )


def _measure(measure: Measure | None, *, signed: bool = False) -> Cell:
    if measure is None:
        return Cell("–")
    return Cell(
        points(measure.value, signed=signed), interval_text(measure.low, measure.high, signed=signed), "interval"
    )
