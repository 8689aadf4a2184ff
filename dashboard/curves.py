"""Panels of training curves as Plotly's JSON."""

from __future__ import annotations

from html import escape
from typing import Any

from dashboard.trainings import Curve, Panel, plain_name
from evaluation.report.figures import FAINT, GRID, INK, MODEL_COLOURS
from evaluation.report.interactive import FONT

_DASHES = ("solid", "dash", "dot", "dashdot")
_HEIGHT = 340


def panel_figure(panel: Panel, order: list[str]) -> dict[str, Any]:
    """``{"data": …, "layout": …}`` of one panel; a training has the same colour in every panel.

    Training curves are thin lines, held-out ones have marks. ``order`` holds the names of all trainings.
    """
    traces = []
    for curve in panel.curves:
        colour = MODEL_COLOURS[(order.index(curve.training) + 2) % len(MODEL_COLOURS)]
        own = [one.label for one in panel.curves if one.training == curve.training and not one.held_out]
        dash = "dash" if curve.held_out else _DASHES[own.index(curve.label) % len(_DASHES)]
        short = curve.training.rpartition("/")[2]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if curve.held_out or len(curve.points) < 3 else "lines",
                "name": escape(f"{short} · {_label(curve, panel)}"),
                "x": [step for step, _ in curve.points],
                "y": [value for _, value in curve.points],
                "line": {"color": colour, "width": 2, "dash": dash},
                "marker": {"size": 8, "symbol": "diamond", "color": colour},
                "hovertemplate": f"<b>{escape(curve.training)}</b><br>{escape(curve.label)} %{{y:.4g}} at step %{{x}}"
                "<extra></extra>",
            }
        )
    return {"data": traces, "layout": _layout(panel.title)}


def _label(curve: Curve, panel: Panel) -> str:
    """What a curve is called: its split, and its own name where a panel has several."""
    split = "held out" if curve.held_out else "training"
    own = plain_name(curve.label)
    several = len({plain_name(one.label) for one in panel.curves}) > 1
    return f"{own.rpartition('/')[2]}, {split}" if several else split


def _layout(title: str) -> dict[str, Any]:
    axis = {
        "gridcolor": GRID, "zeroline": False, "linecolor": GRID, "tickfont": {"size": 12, "color": FAINT},
        "fixedrange": True,
    }  # fmt: skip
    return {
        "title": {"text": f"<b>{escape(title)}</b>", "font": {"size": 14, "color": INK}, "x": 0.01, "xanchor": "left"},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 44, "b": 96},
        "height": _HEIGHT,
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": -0.24, "yanchor": "top", "font": {"size": 12}},
        "xaxis": {**axis, "title": {"text": "step", "font": {"size": 12, "color": FAINT}, "standoff": 6}},
        "yaxis": axis,
        "dragmode": False,
    }
