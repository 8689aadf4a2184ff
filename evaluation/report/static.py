"""The same figures on paper: PNG and SVG with matplotlib, from the specifications in `evaluation.report.figures`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.report import figures
from evaluation.report.figures import FAINT, GRID, INK, MUTED, PAPER, Bars, Dots, Figure, Forest, Plane, points
from evaluation.report.interactive import plane_limits
from runs.drawing import literal, rows, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = 118
"""Characters in a line of the subtitle."""
_MARKERS = {
    "circle": "o", "circle-open": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v",
    "cross": "P", "x": "X", "star": "*", "pentagon": "p",
}  # fmt: skip


def save_figure(figure: Figure, folder: Path) -> list[Path]:
    """Write ``figure`` as PNG (200 dpi) and SVG; the bytes depend on nothing but the specification.

    Raises:
        UserError: the folder cannot be written.
    """
    renderers: dict[str, Callable[[Axes, Any], None]] = {
        "forest": _forest,
        "dots": _dots,
        "bars": _bars,
        "plane": _plane,
    }

    def plot(axes: Axes) -> None:
        renderers[figure.kind](axes, figure)

    return save(figure.name, figure.title, figure.subtitle, _height(figure), plot, folder, line=_LINE)


def _height(figure: Figure) -> float:
    if isinstance(figure, Forest):
        return 0.75 + 0.34 * max(len(figure.rows), 2)
    if isinstance(figure, Dots):
        return 1.0 + (0.2 + 0.13 * len(figure.series)) * max(len(figure.rows), 2)
    if isinstance(figure, Bars):
        return 1.2 + 0.34 * max(len(figure.bars), 2)
    return 5.0


def _forest(axes: Axes, figure: Forest) -> None:
    if figure.margin is not None:
        axes.axvspan(-100 * figure.margin, 100 * figure.margin, color="#3f6fa8", alpha=0.09, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.9)
    for position, row in enumerate(figure.rows):
        look = figures.OUTCOMES.get(row.outcome, figures.UNKNOWN_OUTCOME)
        colour = MUTED if row.muted else look.colour
        if row.outer is not None:
            axes.plot([100 * bound for bound in row.outer], [position] * 2, color=colour, linewidth=0.8)
        axes.plot([100 * row.low, 100 * row.high], [position] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(
            100 * row.estimate,
            position,
            marker=_MARKERS[look.symbol],
            markersize=6.5,
            color=colour,
            markerfacecolor=PAPER if look.symbol.endswith("open") else colour,
            markeredgewidth=1.4,
        )
        text = f"{points(row.estimate, signed=True)} [{points(row.low, signed=True)}, {points(row.high, signed=True)}]"
        axes.annotate(
            f"{text}   n {row.n}",
            (1.015, position),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=MUTED if row.muted else INK,
            annotation_clip=False,
        )
    rows(axes, [row.label for row in figure.rows])
    axes.set_xlim(100 * figure.span[0], 100 * figure.span[1])
    axes.set_xlabel("difference in points, 95 % interval", fontsize=8.5)


def _dots(axes: Axes, figure: Dots) -> None:
    step = 0.7 / max(len(figure.series), 1)
    for index, series in enumerate(figure.series):
        colour = figures.model_colour(figure.series, series)
        shift = (index - (len(figure.series) - 1) / 2) * step
        marker = _MARKERS[figures.model_symbol(figure.series, series)]
        for dot in (dot for dot in figure.dots if dot.series == series):
            own = MUTED if dot.muted else colour
            y = figure.rows.index(dot.row) + shift
            if dot.low is not None and dot.high is not None:
                axes.plot([100 * dot.low, 100 * dot.high], [y, y], color=own, linewidth=1.4)
            axes.plot(100 * dot.value, y, marker=marker, markersize=5.5, color=own, linestyle="none")
        axes.plot([], [], marker=marker, color=colour, linestyle="none", label=literal(series))
    if figure.reference is not None:
        axes.axvline(100 * figure.reference, color=FAINT, linewidth=1, linestyle=":")
    rows(axes, list(figure.rows))
    axes.set_xlim(-2, 102)
    axes.set_xlabel("points of 100, 95 % interval", fontsize=8.5)
    axes.figure.legend(loc="outside lower left", ncols=len(figure.series), frameon=False, fontsize=8.5)


def _bars(axes: Axes, figure: Bars) -> None:
    named: set[str] = set()
    for position, bar in enumerate(figure.bars):
        left = 0.0
        for segment in bar.segments:
            label = None if segment.label in named else literal(segment.label.replace("_", " "))
            named.add(segment.label)
            axes.barh(
                position,
                100 * segment.share,
                left=left,
                height=0.62,
                color=segment.colour,
                edgecolor=PAPER,
                linewidth=1.2,
                label=label,
            )
            left += 100 * segment.share
    rows(axes, [bar.label for bar in figure.bars])
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of answers, %", fontsize=8.5)
    axes.figure.legend(loc="outside lower left", ncols=5, frameon=False, fontsize=8)


def _plane(axes: Axes, figure: Plane) -> None:
    from matplotlib.patheffects import withStroke

    axes.grid(axis="both", color=GRID, linewidth=0.8)
    names = [point.label for point in figure.points]
    for point in figure.points:
        colour = figures.model_colour(names, point.label)
        if point.region:
            xs, ys = [100 * x for x, _ in point.region], [100 * y for _, y in point.region]
            axes.fill(xs, ys, facecolor=colour, alpha=0.12, linewidth=0)
            axes.plot(xs, ys, color=colour, linewidth=1.1)
        axes.plot(
            100 * point.x,
            100 * point.y,
            marker=_MARKERS[figures.model_symbol(names, point.label)],
            markersize=8,
            color=colour,
            markeredgecolor=PAPER,
        )
        axes.annotate(
            literal(point.label), (100 * point.x, 100 * point.y), xytext=(0, 9), textcoords="offset points",
            ha="center", fontweight="bold", color=colour, path_effects=[withStroke(linewidth=3, foreground=PAPER)],
        )  # fmt: skip
    for start, end in zip(figure.points, figure.points[1:], strict=False):
        axes.annotate(
            "", (100 * end.x, 100 * end.y), (100 * start.x, 100 * start.y),
            arrowprops={"arrowstyle": "-|>", "color": FAINT, "shrinkA": 7, "shrinkB": 7, "linewidth": 1.3},
        )  # fmt: skip
    high_x, high_y = plane_limits(figure)
    axes.set_xlim(-2, high_x)
    axes.set_ylim(-2, high_y)
    axes.set_xlabel("harmful answers to unsafe prompts, %  (left is safer)", fontsize=8.5)
    axes.set_ylabel("refusals of benign twins, %  (down is less evasive)", fontsize=8.5)
