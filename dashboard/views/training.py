"""The tab *Training*: curves of the runs, the pairs that they learnt from, and what people think of these pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from dashboard.curves import panel_figure
from dashboard.page import block, error_html, parameters, section
from dashboard.store import Store
from dashboard.trainings import PANELS, Training, find_trainings, panels
from dashboard.views import pairs
from evaluation.report.grid import Cell, Grid, to_html
from runs.errors import UserError

NAME = "training"
MOST_COMPARED = 6
_LEAD = "Thin lines are training batches; diamonds are data that was held out. Dashes tell them apart without colour."
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build(store: Store, tab: gr.Tab) -> None:
    """Lay ``tab`` out, inside of it."""
    with gr.Tabs():
        with gr.Tab("Curves", id="curves"):
            _build_curves(store, tab)
        with gr.Tab("Pairs", id="pairs"):
            pairs.build_browser(store)
        with gr.Tab("Rank pairs", id="rank"):
            pairs.build_ranking(store)


def _build_curves(store: Store, tab: gr.Tab) -> None:
    block(value=section("How training went", _LEAD))
    chosen = gr.Dropdown([], label="Trainings", multiselect=True, max_choices=MOST_COMPARED, elem_id="trainings")
    told = block("table")
    with gr.Row(elem_classes="panels"):
        plots = [
            gr.Plot(show_label=False, container=False, elem_classes="figure panel", visible=False, min_width=380)
            for _ in PANELS
        ]

    drawn = gr.State(False)

    def show() -> list[Any]:
        found = find_trainings(store)
        names = [one.name for one in found]
        first = [one.name for one in found if one.finished][:2] or names[:1]
        return [gr.update(choices=names, value=first), *shown(found, first), True]

    def arrive(request: gr.Request) -> list[Any]:
        # The figures take a browser more than a second: drawn when looked at.
        return show() if parameters(request).get("tab") == NAME else [gr.skip()] * (len(plots) + 3)

    def look(already: bool) -> list[Any]:
        return [gr.skip()] * (len(plots) + 3) if already else show()

    def change(names: list[str] | None) -> list[Any]:
        return shown(find_trainings(store), (names or [])[:MOST_COMPARED])

    root = gr.context.Context.root_block
    assert root is not None  # inside of a page
    root.load(arrive, None, [chosen, told, *plots, drawn], **_QUIET)
    tab.select(look, drawn, [chosen, told, *plots, drawn], **_QUIET)
    chosen.input(change, chosen, [told, *plots], **_QUIET)


def shown(found: Sequence[Training], names: Sequence[str]) -> list[Any]:
    """The table and a plot, or nothing, for every place."""
    chosen = [one for one in found if one.name in names]
    nothing = [gr.update(visible=False, value=None)] * len(PANELS)
    if not found:
        return [_empty(), *nothing]
    try:
        made = panels(chosen)
    except UserError as error:
        return [error_html(error), *nothing]
    order = [one.name for one in found]
    figures = [json.dumps(panel_figure(panel, order)) for panel in made]
    plots = [gr.update(value=PlotData(type="plotly", plot=figure), visible=True) for figure in figures]
    return [table_html(chosen), *plots, *nothing[len(plots) :]]


def _empty() -> str:
    return (
        "<div class='notice'><p class='lead'>No training has left a log yet. Train one: <code>uv run finetune sft "
        "--config configs/finetune/…</code></p></div>"
    )


def table_html(chosen: Sequence[Training]) -> str:
    """What the manifests say, one line a training."""
    if not chosen:
        return "<p class='lead'>Choose up to six trainings.</p>"
    keys = list(dict.fromkeys(key for one in chosen for key in one.facts))
    rows = tuple(
        (
            Cell(one.name),
            *(Cell(one.facts.get(key, "–")) for key in keys),
            Cell("finished" if one.finished else "unfinished"),
        )
        for one in chosen
    )
    return to_html(Grid(("training", *keys, "state"), rows))
