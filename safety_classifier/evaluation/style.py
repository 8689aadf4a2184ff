"""The look that all figures share."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from safety_classifier.evaluation.results import CLASSIFIER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart under all common colour blindnesses, and by their markers in grey.
COLOURS = {
    CLASSIFIER: "#0072B2",
    "tfidf": "#D55E00",
    "word_list": "#009E73",
    "length": "#CC79A7",
    "always_safe": "#777777",
}
MARKERS = {CLASSIFIER: "o", "tfidf": "s", "word_list": "^", "length": "D", "always_safe": "x"}
NAMES = {
    CLASSIFIER: "classifier",
    "tfidf": "TF-IDF + logistic regression",
    "word_list": "word list",
    "length": "length",
    "always_safe": "always safe",
}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "svg.hashsalt": "safety-classifier",
    "svg.fonttype": "path",
}


def words(name: str) -> str:
    """A head's or attack's name for people."""
    return name.replace("_", " ")


def encoded(figure: Figure, kind: str) -> bytes:
    """The figure as ``svg`` or ``png`` (200 dpi), the same bytes for the same results."""
    buffer = io.BytesIO()
    with styled():
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


def grid(
    rows: int, columns: int, *, width: float, height: float, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, Sequence[Axes]]:
    """A figure of rows × columns panels of this size in inches, and its axes in reading order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.0, width * columns), height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, list(np.asarray(axes).ravel())


def colour_of(name: str) -> str:
    """The colour of a scorer."""
    return COLOURS.get(name, "#56B4E9")


def short(name: str) -> str:
    """A scorer's name where there is little room."""
    return {"tfidf": "TF-IDF"}.get(name, NAMES.get(name, name))


def legend_entry(colour: str, marker: str, label: str) -> Any:
    """A marker for a legend, without a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, ms=5, ls="", label=label)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in our style, and leave everybody else's as it was."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield
