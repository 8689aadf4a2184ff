"""What a figure shows, apart from how it is drawn: the same specification goes to Plotly and to matplotlib.

Values are shares from 0 to 1, or differences of shares; renderers show them in points of 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runs import palette

INK, FAINT, GRID, PAPER = palette.INK, palette.FAINT, palette.GRID, palette.PAPER
MODEL_COLOURS = palette.SERIES
"""Models in the order of their lineage; distinguishable under the common colour-vision deficiencies."""
MODEL_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
"""Colour is never the only mark."""
MUTED = palette.MUTED
"""What an uninformative evaluator says is drawn in this."""


@dataclass(frozen=True)
class Outcome:
    """How a verdict looks."""

    colour: str
    symbol: str
    """Plotly's name of the marker."""
    sign: str
    """The same in running text."""


OUTCOMES = {
    "better": Outcome(palette.BETTER, "triangle-up", "▲"),
    "worse": Outcome(palette.WORSE, "triangle-down", "▼"),
    "equivalent": Outcome("#3f6fa8", "square", "="),
    "undecided": Outcome("#7d858f", "circle-open", "?"),
}
UNKNOWN_OUTCOME = Outcome("#7d858f", "circle-open", "?")

MODE_COLOURS = {
    "engaged_refusal": "#0067a5",
    "bare_refusal": "#7fb2d6",
    "partial": "#8d78b8",
    "deflection": "#c9bfe2",
    "pseudo_refusal": "#e2a23b",
    "complied": "#dcc9a3",
    "complied_with_harm": "#b8431f",
    "harmful_compliance": "#b8431f",
    "echo": "#c3c8ce",
    "incoherent": "#8b929b",
    "empty": "#e0e3e7",
}
_OTHER_MODES = ("#a36f4f", "#4f6f8f", "#7f8f4f", "#8f4f7f")


def mode_colour(mode: str, unknown: Sequence[str] = ()) -> str:
    """The colour of a response mode; modes that this module does not know share a few others."""
    if mode in MODE_COLOURS:
        return MODE_COLOURS[mode]
    return _OTHER_MODES[(list(unknown).index(mode) if mode in unknown else 0) % len(_OTHER_MODES)]


@dataclass(frozen=True)
class ForestRow:
    """One difference with its interval."""

    label: str
    estimate: float
    low: float
    high: float
    outcome: str
    n: int
    note: str = ""
    """Shown on hovering: p-values, test, effect size."""
    muted: bool = False
    """The evaluator is uninformative: drawn in grey, and said so in the label."""
    outer: tuple[float, float] | None = None
    """Worst-case bounds for what could not be scored, drawn as a thin whisker."""


@dataclass(frozen=True)
class Forest:
    """Differences between two models, one row a metric; zero is no difference."""

    name: str
    """The file's stem."""
    title: str
    subtitle: str
    rows: tuple[ForestRow, ...]
    span: tuple[float, float]
    """Both ends of the axis; the same on figures that are read side by side."""
    margin: float | None = None
    """A band of so much around zero within which a difference does not matter."""
    kind: str = field(default="forest", init=False)


@dataclass(frozen=True)
class Dot:
    """One model's level on one row."""

    row: str
    series: str
    value: float
    low: float | None
    high: float | None
    n: int
    muted: bool = False


@dataclass(frozen=True)
class Dots:
    """Levels with intervals: rows of metrics, categories or tasks, one mark a model."""

    name: str
    title: str
    subtitle: str
    rows: tuple[str, ...]
    series: tuple[str, ...]
    dots: tuple[Dot, ...]
    reference: float | None = None
    """A value to compare with, such as a coin's, drawn as a dashed line."""
    reference_label: str = ""
    kind: str = field(default="dots", init=False)


@dataclass(frozen=True)
class Segment:
    """A share of a bar."""

    label: str
    share: float
    count: int
    colour: str


@dataclass(frozen=True)
class Bar:
    """A bar of segments that sum to one."""

    label: str
    n: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Bars:
    """Stacked shares: how each model's answers respond."""

    name: str
    title: str
    subtitle: str
    bars: tuple[Bar, ...]
    kind: str = field(default="bars", init=False)


@dataclass(frozen=True)
class PlanePoint:
    """One model on the evasiveness plane."""

    label: str
    x: float
    """Share of unsafe prompts that it answers with harm: lower is better."""
    y: float
    """Share of their benign twins that it refuses: lower is better."""
    region: tuple[tuple[float, float], ...]
    """Outline of the joint 95 % confidence region, closed; empty where it cannot be computed."""
    n_x: int
    n_y: int
    """Prompts behind each share."""


@dataclass(frozen=True)
class Plane:
    """Harm against evasion: the path of a lineage."""

    name: str
    title: str
    subtitle: str
    points: tuple[PlanePoint, ...]
    kind: str = field(default="plane", init=False)


Figure = Forest | Dots | Bars | Plane


def span_of(rows: Sequence[ForestRow]) -> tuple[float, float]:
    """An axis on which every interval, every whisker and zero fit, with some air."""
    ends = [0.0, *(end for row in rows for end in (row.low, row.high, *(row.outer or ())))]
    low, high = min(ends), max(ends)
    air = max(0.01, 0.05 * (high - low))
    return low - air, high + air


def model_colour(models: Sequence[str], model: str) -> str:
    """A model's colour, by its place in the lineage."""
    return MODEL_COLOURS[list(models).index(model) % len(MODEL_COLOURS)]


def model_symbol(models: Sequence[str], model: str) -> str:
    """A model's marker, by its place in the lineage."""
    return MODEL_SYMBOLS[list(models).index(model) % len(MODEL_SYMBOLS)]


def points(value: float, *, signed: bool = False) -> str:
    """A share as points of 100, with a true minus sign."""
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return ("0.0" if text in {"-0.0", "+0.0"} else text).replace("-", "−")
