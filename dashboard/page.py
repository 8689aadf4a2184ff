"""What the tabs share: the page that they are built into, blocks of HTML, errors, links and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import urlencode

import gradio as gr
from gradio.components.plot import PlotData

from dashboard.store import MAKE_ONE, RunEntry, Store
from evaluation.report.figures import Figure, model_colour
from evaluation.report.interactive import plotly_figure
from runs.errors import UserError

LONGEST_PARAMETER = 300
"""Characters of a link's parameter that are read."""
PICK = (
    "element.addEventListener('click', (event) => {"
    " const found = event.target.closest('[data-pick]');"
    " if (found && element.contains(found)) trigger('pick', {value: found.dataset.pick}); });"
)
"""Script of a block of HTML whose elements with ``data-pick`` can be chosen: its event ``pick`` carries their value."""


@dataclass(frozen=True)
class Page:
    """Where a tab is built into."""

    app: gr.Blocks
    run: gr.Dropdown
    """The run that the tabs on results show."""


def block(*classes: str, value: str = "", **settings: Any) -> gr.HTML:
    """A block of our own HTML, without Gradio's styles."""
    return gr.HTML(value, apply_default_css=False, elem_classes=["cai", *classes], **settings)


def parameters(request: gr.Request | None) -> dict[str, str]:
    """The parameters of the page's address, cut to a length that is surely ours."""
    if request is None:
        return {}
    return {str(key)[:40]: str(value)[:LONGEST_PARAMETER] for key, value in dict(request.query_params).items()}


def link(values: Mapping[str, str]) -> str:
    """The address of a state, from the question mark on; empty values are left out."""
    return "?" + urlencode({key: value for key, value in values.items() if value})


def chosen_run(store: Store, wanted: str | None) -> str | None:
    """The run to show: the one asked for, else the first; None where there is none."""
    entries = store.runs
    if wanted and any(entry.name == wanted for entry in entries):
        return wanted
    return entries[0].name if entries else None


def run_choices(entries: Sequence[RunEntry]) -> list[tuple[str, str]]:
    """Label and value for a menu of runs."""
    return [(entry.label, entry.name) for entry in entries]


def error_html(error: UserError) -> str:
    """What failed, why, and the mend."""
    why = f"<p>{escape(error.why)}</p>" if error.why else ""
    mend = f"<p class='mend'>{escape(error.mend)}</p>" if error.mend else ""
    return f"<div class='notice error' role='alert'><h3>{escape(error.what)}</h3>{why}{mend}</div>"


def no_runs_html(store: Store) -> str:
    """The page of a machine that has no results yet."""
    steps = (
        (MAKE_ONE, "answers the prompts with three checkpoints, scores the answers and compares them"),
        ("uv run evaluate --models base stage2 stage3 --limit 20", "the same over 20 prompts, to see how it looks"),
        ("uv run dashboard --results DIR", "shows the runs of another folder"),
    )
    listed = "".join(f"<li><code>{escape(command)}</code><span>{escape(what)}</span></li>" for command, what in steps)
    return (
        "<div class='notice empty'><h2>No runs yet</h2><p>This page shows finished evaluations, and there are none in "
        f"<code>{escape(store.root.name)}/</code>. Make one, then reload:</p><ul class='commands'>{listed}</ul></div>"
    )


def plot_data(figure: Figure | None) -> PlotData | None:
    """A figure for `gr.Plot`; as JSON, because building Plotly's objects would only check what is known."""
    return PlotData(type="plotly", plot=json.dumps(plotly_figure(figure))) if figure is not None else None


def chip(models: Sequence[str], model: str) -> str:
    """A model's name with its colour."""
    colour = model_colour(models, model) if model in models else "var(--faint)"
    return f"<span class='model' style='--c:{colour}'>{escape(model)}</span>"


def section(title: str, lead: str = "", *, identity: str = "") -> str:
    """A heading with a sentence under it."""
    named = f" id='{identity}'" if identity else ""
    told = f"<p class='lead'>{escape(lead)}</p>" if lead else ""
    return f"<div class='heading'{named}><h2>{escape(title)}</h2>{told}</div>"
