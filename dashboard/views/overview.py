"""The tab *Overview*: what a run allows one to say, in sentences, figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from dashboard.page import (
    Page,
    block,
    chip,
    chosen_run,
    error_html,
    no_runs_html,
    parameters,
    plot_data,
    section,
)
from dashboard.store import Store
from evaluation.report import html as report
from evaluation.report import tables
from evaluation.report.charts import contrast_title, run_figures
from evaluation.report.charts import pairs as declared_pairs
from evaluation.report.data import RunData
from evaluation.report.figures import Figure
from evaluation.report.grid import Grid, to_html
from evaluation.report.provenance import provenance_html
from runs.errors import UserError

NAME = "overview"
LEAD_PLANE = (
    "Refusing everything is harmless and useless. Each point is a model, the arrows follow the training; good training "
    "moves left without moving up."
)
LEAD_VERDICT = (
    "Contrasts and metrics were declared before the run; p-values are adjusted over all of them. Undecided does not "
    "mean equal."
)
_NOT_DRAWN = "?"  # no run is called so


def build(store: Store, page: Page, tab: gr.Tab) -> None:
    """Lay ``tab`` out, inside of it."""
    head = block("hero")
    with gr.Column(visible=False) as body:
        block(value=section("What changed", LEAD_VERDICT))
        contrast = gr.Radio([], label="Contrast", elem_classes="segments", container=False, elem_id="overview-contrast")
        verdicts = block("verdict-block")
        forest = gr.Plot(show_label=False, container=False, elem_classes="figure wide")
        block(value=section("Harm against evasion", LEAD_PLANE))
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=340):
                plane = gr.Plot(show_label=False, container=False, elem_classes="figure")
            with gr.Column(scale=6, min_width=340):
                harmful_title, harmful = block(), gr.Plot(show_label=False, container=False, elem_classes="figure")
                harmless_title, harmless = (
                    block(),
                    gr.Plot(show_label=False, container=False, elem_classes="figure"),
                )
        block(value=section("In detail"))
        with gr.Accordion("Levels: every model on every metric", open=True):
            levels = block("table")
        with gr.Accordion("Categories", open=False):
            categories = block("table")
        with gr.Accordion("Principles of the constitution", open=False):
            principles = block("table")
        with gr.Accordion("Benchmarks: the price in capability", open=False):
            benchmarks = block("table")
        with gr.Accordion("Instruments: may the evaluators be trusted?", open=False):
            instruments = block("table")
        with gr.Accordion("Provenance: everything that could have changed a result", open=False):
            provenance = block("table")
    folded = [levels, categories, principles, benchmarks, instruments, provenance]
    outputs = [
        head, body, contrast, verdicts, forest, plane, harmful_title, harmful, harmless_title, harmless, *folded,
    ]  # fmt: skip

    seen = gr.State("")  # the run that is drawn; nothing until the page has arrived

    def show(name: str | None) -> list[Any]:
        return [*shown(store, name, len(outputs)), name or _NOT_DRAWN]

    def arrive(request: gr.Request) -> list[Any]:
        wanted = parameters(request)
        if wanted.get("tab", NAME) != NAME:  # the figures take a browser more than a second: drawn when looked at
            return [*[gr.skip()] * len(outputs), _NOT_DRAWN]
        return show(chosen_run(store, wanted.get("run")))

    def look(name: str | None, drawn: str, request: gr.Request) -> list[Any]:
        # Gradio selects the first tab when the page is built, before the run and the tab of the address are set.
        wanted = parameters(request).get("run")
        name = chosen_run(store, wanted) if wanted else name
        return show(name) if drawn and name != drawn else [gr.skip()] * (len(outputs) + 1)

    def change(name: str, pair: str) -> tuple[str, Any]:
        run = store.load(name)
        return contrast_block(run, pair), plot_data(_forest(run_figures(run), pair))

    page.app.load(arrive, None, [*outputs, seen], api_visibility="private", show_progress="hidden")
    tab.select(look, [page.run, seen], [*outputs, seen], api_visibility="private", show_progress="minimal")
    page.run.input(show, page.run, [*outputs, seen], api_visibility="private", show_progress="minimal")
    contrast.input(change, [page.run, contrast], [verdicts, forest], api_visibility="private", show_progress="hidden")


def shown(store: Store, name: str | None, count: int) -> list[Any]:
    """The values of all ``count`` outputs for the run called ``name``; an error takes the place of the page."""
    if name is None:
        return _alone(no_runs_html(store), count)
    try:
        run = store.load(name)
    except UserError as error:
        return _alone(error_html(error), count)
    found = run_figures(run)
    by_name = {figure.name: figure for figure in found}
    choices = [contrast_title(*pair) for pair in declared_pairs(run.analysis.primary)][::-1]
    first = choices[0] if choices else None
    modes = [by_name.get("modes-harmful"), by_name.get("modes-harmless")]
    return [
        hero(run),
        gr.update(visible=True),
        gr.update(choices=choices, value=first, visible=len(choices) > 1),
        contrast_block(run, first),
        plot_data(_forest(found, first)),
        plot_data(by_name.get("evasiveness-plane")),
        *(value for figure in modes for value in (_caption(figure), plot_data(figure))),
        *details(run),
    ]


def _alone(told: str, count: int) -> list[Any]:
    return [told, gr.update(visible=False), *[gr.skip()] * (count - 2)]


def hero(run: RunData) -> str:
    """Title, facts and warnings."""
    facts = [
        ("Prompts", f"{len(run.prompts):,}"),
        ("Answers", f"{len(run.samples):,}"),
        ("Evaluators", str(len(run.evaluators))),
        ("Made", escape(run.manifest.created[:10])),
        ("Run", f"<span class='mono'>{escape(run.results.run_id[:12])}</span>"),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    path = "<span class='arrow' aria-hidden='true'>→</span>".join(chip(run.models, model) for model in run.models)
    stamps = "".join(f"<p class='stamp' role='note'>{escape(text)}</p>" for text in report.stamps_of(run))
    return (
        f"<div class='hero-top'><div><h2 class='title'>{escape(str(run.results.config['family']))}</h2>"
        f"<p class='lineage'>{path}</p>"
        f"</div><dl class='facts'>{listed}</dl></div>{stamps}"
    )


def contrast_block(run: RunData, title: str | None) -> str:
    """The tally of the run, and the sentences on one contrast."""
    pair = next((pair for pair in declared_pairs(run.analysis.primary) if contrast_title(*pair) == title), None)
    if pair is None:
        return "<p class='lead'>One model: there is nothing to compare it with.</p>"
    legend = (
        "<p class='small'>Points of 100 with 95 % intervals. Right of zero the first model is better; thin whiskers "
        "show the worst case for answers without a score; inside the band a difference does not matter.</p>"
    )
    return f"{report.tally_html(run)}{report.contrast_html(run, pair)}{legend}"


def _forest(found: Sequence[Figure], title: str | None) -> Figure | None:
    return next((figure for figure in found if figure.name.startswith("forest-") and figure.title == title), None)


def _caption(figure: Figure | None) -> str:
    return f"<p class='caption'><b>{escape(figure.title)}</b></p>" if figure is not None else ""


def details(run: RunData) -> list[str]:
    """The folded tables: levels, categories, principles, benchmarks, instruments, provenance."""
    return [
        to_html(tables.levels_grid(run)) + "<h3>Length can pass for quality</h3>" + to_html(tables.lengths_grid(run)),
        _table(tables.category_grid(run), "The prompts of this run have no categories."),
        report.principles_html(run, principle_texts(run)) or _none("This run was not indexed by principle."),
        report.benchmarks_html(run, "") or _none("This run has no benchmarks: add --benchmarks to `uv run evaluate`."),
        report.instruments_html(run, ""),
        provenance_html(run),
    ]


def _table(grid: Grid, otherwise: str) -> str:
    return to_html(grid) if grid.rows else _none(otherwise)


def _none(text: str) -> str:
    return f"<p class='lead'>{escape(text)}</p>"


def principle_texts(run: RunData) -> dict[str, str]:
    """Principle id → its sentence; empty where the run's constitution is no longer on this machine."""
    from critique_revision.constitution import load_principles

    try:
        return {principle.id: principle.text for principle in load_principles(run.constitution).principles}
    except UserError:
        return {}
