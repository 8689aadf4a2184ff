"""A table apart from how it is shown: cells, and their form in HTML and in Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from evaluation.report.figures import OUTCOMES, points


@dataclass(frozen=True)
class Cell:
    """A cell: what is read first, what is read second, and how it looks."""

    text: str
    aside: str = ""
    """An interval or a denominator, in a fainter tone."""
    look: str = ""
    """``unmeasured``, ``text``, ``name``, ``interval``, or an outcome."""
    down: int = 1
    """Rows that it spans; 0: it stands under such a cell, and is blank outside of HTML."""
    across: int = 1
    """Columns that it spans; 0 as above."""


@dataclass(frozen=True)
class Grid:
    """A table with a head."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    muted: frozenset[int] = frozenset()
    """Rows of uninformative evaluators."""


def to_html(grid: Grid) -> str:
    """``grid`` as HTML; every text is escaped."""
    textual = {place for row in grid.rows for place, cell in enumerate(row) if cell.look in {"text", "name"}}
    head = "".join(
        f"<th scope='col'{' class=text' if place in textual else ''}>{escape(column)}</th>"
        for place, column in enumerate(grid.columns)
    )
    body = []
    for number, row in enumerate(grid.rows):
        cells = "".join(_html_cell(cell) for cell in row)
        body.append(f"<tr{' class=muted' if number in grid.muted else ''}>{cells}</tr>")
    caption = f"<p class='small'>{escape(grid.caption)}</p>" if grid.caption else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f"<div class='scroll'>{table}</div>{caption}"


def _html_cell(cell: Cell) -> str:
    if cell.down == 0 or cell.across == 0:
        return ""
    spans = (f" rowspan={cell.down}" if cell.down > 1 else "") + (f" colspan={cell.across}" if cell.across > 1 else "")
    aside = f" <span class='ci'>{escape(cell.aside)}</span>" if cell.aside else ""
    sign = ""
    look = cell.look
    if look in OUTCOMES:
        sign, look = f"<span class='sign {look}'>{OUTCOMES[look].sign}</span> ", "interval"
    kind = f" class='{look}'" if look else ""
    return f"<td{kind}{spans}>{sign}{escape(cell.text)}{aside}</td>"


def to_markdown(grid: Grid) -> str:
    """``grid`` in Markdown."""
    rows = [[_markdown_cell(cell) for cell in row] for row in grid.rows]
    lines = [[_markdown_text(column) for column in grid.columns], ["---", *["---:"] * (len(grid.columns) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    sign = f"{OUTCOMES[cell.look].sign} " if cell.look in OUTCOMES else ""
    return _markdown_text(f"{sign}{cell.text} {cell.aside}".strip())


def _markdown_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def interval_text(low: float, high: float, *, signed: bool = False) -> str:
    """``[12.0, 34.5]`` in points."""
    return f"[{points(low, signed=signed)}, {points(high, signed=signed)}]"


def words(name: str) -> str:
    """A metric's name for people."""
    return name.replace("_", " ")


def slug(name: str) -> str:
    """``name`` as part of a file name."""
    return "".join(character if character.isalnum() else "-" for character in name)
