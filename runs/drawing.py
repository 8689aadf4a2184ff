"""The page that figures are drawn on, whichever package draws them: title, subtitle, plain axes, PNG and SVG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runs.atomic import write_bytes
from runs.palette import FAINT, GRID, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 8.6
"""Inches."""


def save(
    name: str, title: str, subtitle: str, height: float, plot: Callable[[Axes], None], folder: Path, *, line: int
) -> list[Path]:
    """Draw a figure and write it as PNG (200 dpi) and SVG; the bytes depend on nothing but what is drawn.

    Args:
        name: of the files, without suffix.
        title: above the figure.
        subtitle: below the title, wrapped.
        height: of the figure without its head, in inches.
        plot: draws on the axes.
        folder: where to write.
        line: characters in a line of the subtitle.

    Raises:
        UserError: the folder cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": FAINT,
        "xtick.color": FAINT,
        "ytick.color": INK,
        "svg.hashsalt": name,
        "svg.fonttype": "path",
    }
    written = []
    with rc_context(style):
        lines = textwrap.wrap(subtitle, line)
        head = 0.42 + 0.17 * len(lines)
        height += head
        canvas = Figure(figsize=(WIDTH, height), dpi=200, facecolor=PAPER)
        canvas.set_layout_engine("constrained", rect=(0, 0, 1, 1 - head / height))
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        _plain(axes)
        plot(axes)
        canvas.text(0.01, 1 - 0.1 / height, literal(title), va="top", fontsize=11.5, fontweight="bold", color=INK)
        below = literal("\n".join(lines))
        canvas.text(0.01, 1 - 0.34 / height, below, va="top", fontsize=8.5, color=FAINT, linespacing=1.35)
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            buffer = io.BytesIO()
            canvas.savefig(buffer, format=suffix[1:], metadata=metadata)
            write_bytes(folder / f"{name}{suffix}", buffer.getvalue())
            written.append(folder / f"{name}{suffix}")
    return written


def literal(value: str) -> str:
    """``value`` as text, not TeX: a "$" in a model's or a category's name must not start mathematics."""
    return value.replace("$", r"\$")


def rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label the rows of a horizontal figure, from the top."""
    axes.set_yticks(range(len(labels)), [literal(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
