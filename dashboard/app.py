"""The page: tabs over one store. Building it runs no model and reads no run; the tabs read when they are opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from dashboard.api import add_api
from dashboard.page import Page, block, chosen_run, parameters, run_choices
from dashboard.scoring import Scoring
from dashboard.store import Store
from dashboard.views import arena, classifier, flips, live, overview, training

TITLE = "Constitutional AI"
_BRAND = f"<div class='brand'><h1>{TITLE}</h1><span>what training changed, and at what cost</span></div>"
QUEUE = 64
"""Events that may wait; beyond, a reader is told that the server is busy."""
_CACHE = (3600, 24 * 3600)
"""Uploads and downloads: looked through every hour, kept for a day."""
CONCURRENCY = 8
"""Handlers of one kind that run at once; what uses a model is limited further."""


def build_app(store: Store) -> gr.Blocks:
    """The dashboard on ``store``.

    Nothing of a reader is kept on the server but Gradio's own session state: two readers do not see each other's.
    """
    scoring = Scoring()
    finder = flips.Finder(store, scoring)
    app = gr.Blocks(title=f"{TITLE} dashboard", fill_width=True, analytics_enabled=False, delete_cache=_CACHE)
    with app:
        with gr.Row(elem_classes="top-row"):
            block(value=_BRAND)
            entries = store.runs
            run = gr.Dropdown(
                run_choices(entries), value=chosen_run(store, None), label="Run", visible=bool(entries), elem_id="run",
                filterable=len(entries) > 8,
            )  # fmt: skip
        page = Page(app, run)
        tabs: dict[str, tuple[str, Callable[[gr.Tab], None]]] = {
            "overview": ("Overview", lambda tab: overview.build(store, page, tab)),
            "flips": ("Flips", lambda _: flips.build(finder, page)),
            "live": ("Live", lambda _: live.build(store)),
            "arena": ("Arena", lambda _: arena.build(store)),
            "classifier": ("Classifier", lambda _: classifier.build(scoring)),
            "training": ("Training", lambda tab: training.build(store, tab)),
        }
        with gr.Tabs(elem_id="tabs") as shown:
            for name, (label, build) in tabs.items():
                with gr.Tab(label, id=name, elem_id=f"tab-{name}") as tab:
                    build(tab)

        def arrive(request: gr.Request) -> tuple[Any, Any]:
            wanted = parameters(request)
            now = store.runs
            name = wanted.get("tab", "")
            return (
                gr.update(selected=name) if name in tabs else gr.skip(),
                gr.update(choices=run_choices(now), value=chosen_run(store, wanted.get("run")), visible=bool(now)),
            )

        app.load(arrive, None, [shown, run], api_visibility="private", show_progress="hidden")
        run.input(None, run, None, js=_REMEMBER_RUN, api_visibility="private")
        add_api(finder)
    app.queue(default_concurrency_limit=CONCURRENCY, max_size=QUEUE)
    return app


_REMEMBER_RUN = (
    "(run) => { const at = new URL(location); const tab = at.searchParams.get('tab'); at.search = '';"
    " if (tab) at.searchParams.set('tab', tab); at.searchParams.set('run', run); history.replaceState(null, '', at); }"
)
