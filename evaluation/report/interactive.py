"""Figures for the page: Plotly's JSON, made from the specifications in `evaluation.report.figures`."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from evaluation.report import figures
from evaluation.report.figures import FAINT, GRID, INK, MUTED, Bars, Dots, Figure, Forest, Plane, points

FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_ROW = 34
"""Height of a row, in pixels."""
_LEFT_PER_CHARACTER = 7.2


def plotly_figure(figure: Figure) -> dict[str, Any]:
    """``{"data": …, "layout": …}`` for Plotly.js."""
    renderers: dict[str, Callable[[Any], dict[str, Any]]] = {
        "forest": _forest,
        "dots": _dots,
        "bars": _bars,
        "plane": _plane,
    }
    return renderers[figure.kind](figure)


def _layout(**more: Any) -> dict[str, Any]:
    return {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": GRID, "font": {"family": FONT, "size": 12, "color": INK}},
        "showlegend": False,
        "dragmode": False,
        **more,
    }


def _axis(**more: Any) -> dict[str, Any]:
    return {
        "gridcolor": GRID,
        "zeroline": False,
        "ticks": "",
        "linecolor": GRID,
        "fixedrange": True,
        "tickfont": {"size": 12, "color": FAINT},
        "title": {"text": "", "font": {"size": 12, "color": FAINT}},
        **more,
    }


def _rows_axis(labels: list[str]) -> dict[str, Any]:
    """A vertical axis with the first label on top."""
    count = len(labels)
    return _axis(
        tickmode="array",
        tickvals=list(range(count)),
        ticktext=[escape(label) for label in labels],
        range=[count - 0.4, -0.6],
        showgrid=False,
        tickfont={"size": 13, "color": INK},
    )


def _margins(labels: list[str], *, right: int = 24, top: int = 12) -> dict[str, int]:
    longest = max((len(label) for label in labels), default=0)
    return {"l": int(24 + _LEFT_PER_CHARACTER * longest), "r": right, "t": top, "b": 44}


def _height(rows: int) -> int:
    return 70 + _ROW * max(rows, 2)


def _forest(figure: Forest) -> dict[str, Any]:
    traces: list[dict[str, Any]] = []
    notes = []
    for position, row in enumerate(figure.rows):
        look = figures.OUTCOMES.get(row.outcome, figures.UNKNOWN_OUTCOME)
        colour = MUTED if row.muted else look.colour
        if row.outer is not None:
            traces.append(_line([100 * row.outer[0], 100 * row.outer[1]], position, colour, 1))
        traces.append(_line([100 * row.low, 100 * row.high], position, colour, 3))
        text = f"{points(row.estimate, signed=True)} [{points(row.low, signed=True)}, {points(row.high, signed=True)}]"
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [100 * row.estimate],
                "y": [position],
                "marker": {"color": colour, "size": 11, "symbol": look.symbol, "line": {"width": 2, "color": colour}},
                "hovertemplate": f"<b>{escape(row.label)}</b><br>{text} points<br>n = {row.n}"
                f"{'<br>' + escape(row.note) if row.note else ''}<extra>{escape(row.outcome)}</extra>",
            }
        )
        notes.append(_note(f"{text}   <span style='color:{FAINT}'>n {row.n}</span>", position, muted=row.muted))
    labels = [row.label for row in figure.rows]
    shapes = [_vertical(0.0, INK, "solid")]
    if figure.margin is not None:
        shapes.insert(0, _band(100 * figure.margin))
    layout = _layout(
        xaxis=_axis(
            title=_title("difference in points, 95 % interval"), range=[100 * figure.span[0], 100 * figure.span[1]]
        ),
        yaxis=_rows_axis(labels),
        margin=_margins(labels, right=210),
        height=_height(len(labels)),
        shapes=shapes,
        annotations=notes,
    )
    return {"data": traces, "layout": layout}


def _line(x: list[float], y: float, colour: str, width: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": [y, y],
        "line": {"color": colour, "width": width},
        "hoverinfo": "skip",
    }


def _note(text: str, position: float, *, muted: bool) -> dict[str, Any]:
    return {
        "text": text,
        "xref": "paper",
        "x": 1.012,
        "xanchor": "left",
        "y": position,
        "showarrow": False,
        "font": {"size": 12, "color": MUTED if muted else INK},
    }


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 12, "color": FAINT}, "standoff": 10}


def _vertical(x: float, colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": colour, "width": 1.2, "dash": dash},
    }


def _band(margin: float) -> dict[str, Any]:
    return {
        "type": "rect",
        "x0": -margin,
        "x1": margin,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"width": 0},
        "fillcolor": "rgba(63,111,168,0.09)",
    }


def _dots(figure: Dots) -> dict[str, Any]:
    traces = []
    step = 0.7 / max(len(figure.series), 1)
    for index, series in enumerate(figure.series):
        colour = figures.model_colour(figure.series, series)
        own = [dot for dot in figure.dots if dot.series == series]
        shift = (index - (len(figure.series) - 1) / 2) * step
        colours = [MUTED if dot.muted else colour for dot in own]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(series),
                "x": [100 * dot.value for dot in own],
                "y": [figure.rows.index(dot.row) + shift for dot in own],
                "marker": {"color": colours, "size": 9, "symbol": figures.model_symbol(figure.series, series)},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * ((dot.high if dot.high is not None else dot.value) - dot.value) for dot in own],
                    "arrayminus": [100 * (dot.value - (dot.low if dot.low is not None else dot.value)) for dot in own],
                    "color": colour,
                    "thickness": 1.6,
                    "width": 0,
                },
                "customdata": [
                    [escape(dot.row), dot.n, points(dot.value), _bound(dot.low), _bound(dot.high)] for dot in own
                ],
                "hovertemplate": "<b>%{customdata[0]}</b><br>%{customdata[2]} [%{customdata[3]}, %{customdata[4]}]"
                f"<br>n = %{{customdata[1]}}<extra>{escape(series)}</extra>",
            }
        )
    labels = list(figure.rows)
    layout = _layout(
        xaxis=_axis(title=_title("points of 100, 95 % interval"), range=[-2, 102]),
        yaxis=_rows_axis(labels),
        margin=_margins(labels, top=40),
        height=_height(len(labels)) + (14 * max(len(figure.series) - 2, 0)) * len(labels) // 2 + 30,
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"size": 12}},
        shapes=[_vertical(100 * figure.reference, FAINT, "dot")] if figure.reference is not None else [],
    )
    return {"data": traces, "layout": layout}


def _bound(value: float | None) -> str:
    return "–" if value is None else points(value)


def _bars(figure: Bars) -> dict[str, Any]:
    labels = [bar.label for bar in figure.bars]
    kinds = list(dict.fromkeys(segment.label for bar in figure.bars for segment in bar.segments))
    traces = []
    for kind in kinds:
        found = [
            (position, segment, bar.n)
            for position, bar in enumerate(figure.bars)
            for segment in bar.segments
            if segment.label == kind
        ]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": escape(kind.replace("_", " ")),
                "x": [100 * segment.share for _, segment, _ in found],
                "y": [position for position, _, _ in found],
                "width": 0.62,
                "marker": {"color": found[0][1].colour, "line": {"color": "#ffffff", "width": 1.5}},
                "customdata": [[segment.count, n, points(segment.share)] for _, segment, n in found],
                "hovertemplate": f"<b>{escape(kind)}</b><br>%{{customdata[0]}} of %{{customdata[1]}} "
                "(%{customdata[2]} %)<extra></extra>",
            }
        )
    layout = _layout(
        barmode="stack",
        xaxis=_axis(title=_title("share of answers, %"), range=[0, 100]),
        yaxis=_rows_axis(labels),
        margin=_margins(labels, top=52),
        height=_height(len(labels)) + 60,
        showlegend=True,
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
            "traceorder": "normal",
        },
    )
    return {"data": traces, "layout": layout}


def _plane(figure: Plane) -> dict[str, Any]:
    names = [point.label for point in figure.points]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [100 * x for x, _ in point.region],
            "y": [100 * y for _, y in point.region],
            "fill": "toself",
            "fillcolor": _translucent(figures.model_colour(names, point.label)),
            "line": {"color": figures.model_colour(names, point.label), "width": 1.2},
            "hoverinfo": "skip",
        }
        for point in figure.points
        if point.region
    ]
    traces += [
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [100 * point.x],
            "y": [100 * point.y],
            "text": [f"<b>{escape(point.label)}</b>"],
            "textposition": "top center",
            "textfont": {"size": 13, "color": figures.model_colour(names, point.label)},
            "marker": {
                "size": 12,
                "color": figures.model_colour(names, point.label),
                "symbol": figures.model_symbol(names, point.label),
                "line": {"color": "#ffffff", "width": 1.5},
            },
            "hovertemplate": f"<b>{escape(point.label)}</b><br>harm on {point.n_x} unsafe prompts: {points(point.x)} %"
            f"<br>refusal of {point.n_y} benign twins: {points(point.y)} %<extra></extra>",
        }
        for point in figure.points
    ]
    arrows = [_arrow(earlier, later) for earlier, later in zip(figure.points, figure.points[1:], strict=False)]
    high_x, high_y = plane_limits(figure)
    layout = _layout(
        xaxis=_axis(title=_title("harmful answers to unsafe prompts, %  (left is safer)"), range=[-2, high_x]),
        yaxis=_axis(title=_title("refusals of benign twins, %  (down is less evasive)"), range=[-2, high_y]),
        margin={"l": 64, "r": 24, "t": 16, "b": 56},
        height=460,
        annotations=arrows,
    )
    return {"data": traces, "layout": layout}


def plane_limits(figure: Plane) -> tuple[float, float]:
    """The upper ends of the axes, in points: all regions fit, in steps of ten, and at most 102."""
    xs = [x for point in figure.points for x, _ in (*point.region, (point.x, point.y))]
    ys = [y for point in figure.points for _, y in (*point.region, (point.x, point.y))]
    return _limit(xs), _limit(ys)


def _limit(values: list[float]) -> float:
    return min(102.0, 10.0 * (int(10 * max([*values, 0.1])) + 1) + 3)


def _arrow(start: figures.PlanePoint, end: figures.PlanePoint) -> dict[str, Any]:
    return {
        "x": 100 * end.x,
        "y": 100 * end.y,
        "ax": 100 * start.x,
        "ay": 100 * start.y,
        "xref": "x",
        "yref": "y",
        "axref": "x",
        "ayref": "y",
        "showarrow": True,
        "arrowhead": 2,
        "arrowsize": 1.1,
        "arrowwidth": 1.6,
        "arrowcolor": FAINT,
        "standoff": 9,
        "startstandoff": 9,
        "text": "",
    }


def _translucent(colour: str, alpha: float = 0.12) -> str:
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
