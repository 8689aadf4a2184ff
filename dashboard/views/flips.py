"""The tab *Flips*: which prompts a stage fixed and which it broke, and the answers side by side."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import gradio as gr

from dashboard.flips import ALL, CELLS, MOST_QUERY, SORTS, Flip, Flips, Query, find_flips, metrics_of, pairs_of
from dashboard.page import PICK, Page, block, chosen_run, error_html, link, no_runs_html, parameters
from dashboard.scoring import Scoring
from dashboard.store import Store
from dashboard.views.flip_page import list_html, matrix_html, row_html
from evaluation.report.charts import contrast_title
from evaluation.report.data import RunData
from evaluation.report.grid import words
from runs.errors import UserError

NAME = "flips"
_SEPARATOR = ">"
"""Between the two models of a contrast, in links and menus: ``base>stage3``."""


@dataclass(frozen=True)
class Look:
    """What one reader looks at: everything that a link restores."""

    run: str
    contrast: str
    metric: str
    query: Query
    row: str = ""
    """Prompt id (its beginning) and number of the sample; empty: the first of the list."""

    def address(self) -> str:
        """The link to it."""
        return link(
            {
                "tab": NAME,
                "run": self.run,
                "contrast": self.contrast,
                "metric": self.metric,
                "cell": self.query.cell if self.query.cell != ALL else "",
                "category": self.query.category if self.query.category != ALL else "",
                "q": self.query.text,
                "sort": self.query.sort,
                "row": self.row,
            }
        )


class Finder:
    """Flips by run, contrast and metric, kept while they are in use.

    Args:
        store: where the runs are.
        scoring: what the classifier says; a table made before it spoke is made again.
        kept: tables that are kept.
    """

    def __init__(self, store: Store, scoring: Scoring, kept: int = 6) -> None:
        self.store, self.scoring, self._most = store, scoring, kept
        self._kept: OrderedDict[tuple[str, str, str, str, bool], Flips] = OrderedDict()
        self._lock = Lock()

    def find(self, run: RunData, contrast: str, metric: str) -> Flips:
        """The table. Raises `UsageError` for names that the run does not have."""
        heads = self.scoring.known(run)
        asked = len(heads) >= len(run.samples)  # before all are scored, the order must not change under the reader
        key = (run.results.run_id, run.manifest.created, contrast, metric, asked)
        with self._lock:
            if key not in self._kept:
                control, _, treatment = contrast.partition(_SEPARATOR)
                self._kept[key] = find_flips(run, treatment, control, metric, heads if asked else None)
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return self._kept[key]


def contrast_choices(run: RunData) -> list[tuple[str, str]]:
    """Label and value of every declared contrast."""
    return [(contrast_title(later, earlier), f"{earlier}{_SEPARATOR}{later}") for later, earlier in pairs_of(run)]


def row_key(flip: Flip) -> str:
    """The name of a row in a link."""
    answer = next(iter(flip.row.answers.values()))  # its stored id: the prompt's own is a digest, made when asked for
    return f"{answer.prompt_id[:16]}.{answer.sample}"


def position_of(found: list[Flip], key: str) -> int:
    """Where the row called ``key`` stands; 0 where it is not in the list."""
    return next((index for index, flip in enumerate(found) if row_key(flip) == key), 0)


_ADDRESS = "<button type='button' class='quiet' data-address=\"${value}\">Copy link</button>"
_ADDRESS_SCRIPT = """
const shown = () => element.offsetParent !== null;
watch('value', () => { if (props.value && shown()) history.replaceState(null, '', props.value); });
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  history.replaceState(null, '', props.value);
  navigator.clipboard?.writeText(location.href);
  button.textContent = 'Link copied';
  setTimeout(() => { button.textContent = 'Copy link'; }, 1500);
});
"""
_EXPLAINED = (
    "<p class='small'>Surprise: how far apart two views of an answer are. Before the classifier scored all answers, "
    "these are the response mode and the evaluator; then, the response mode and the classifier. Keys: <kbd>j</kbd> and "
    "<kbd>k</kbd>, or <kbd>←</kbd> and <kbd>→</kbd>.</p>"
)
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}

Values = Mapping[Any, Any]
"""Component → value, as Gradio gives them to a handler whose inputs are a set."""


def build(finder: Finder, page: Page) -> None:
    """Lay the tab out, inside of a ``gr.Tab``."""
    _Tab(finder, page)


class _Tab:
    """The components of the tab, and what happens on each event. It holds nothing of any reader."""

    def __init__(self, finder: Finder, page: Page) -> None:
        self.finder, self.run = finder, page.run
        self.notice = block()
        with gr.Column(visible=False) as self.body:
            self._lay_out_controls()
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=310):
                    self.matrix = block("matrix-block", js_on_load=PICK, elem_id="flips-matrix")
                    self.list = block("list-block", js_on_load=PICK, elem_id="flips-list")
                    self.score = gr.Button("Score all with the classifier", size="sm", elem_id="flips-score")
                    self.scored = block(value=_EXPLAINED)
                with gr.Column(scale=5, min_width=320):
                    self._lay_out_bar()
                    self.row = block("row-block", elem_id="flips-row")
        self.cell, self.key = gr.State("fixed"), gr.State("")
        self._connect(page)

    def _lay_out_controls(self) -> None:
        with gr.Row(elem_classes="controls"):
            self.contrast = gr.Dropdown([], label="Contrast", min_width=190)
            self.metric = gr.Dropdown([], label="Good by", min_width=190)
            self.category = gr.Dropdown([ALL], value=ALL, label="Category", min_width=150)
            self.sort = gr.Dropdown(
                [(name, key) for key, name in SORTS.items()], value="surprise", label="Order", min_width=190
            )
            self.text = gr.Textbox(label="Search", placeholder="words in prompt or answers", max_length=MOST_QUERY)

    def _lay_out_bar(self) -> None:
        with gr.Row(elem_classes="bar-row"):
            self.previous = gr.Button("← Previous", size="sm", elem_id="flips-previous", min_width=90)
            self.next = gr.Button("Next →", size="sm", elem_id="flips-next", min_width=90)
            self.every = gr.Checkbox(False, label="All models", container=False, min_width=110)
            self.differences = gr.Checkbox(True, label="Word differences", container=False, min_width=150)
            self.probabilities = gr.Checkbox(False, label="Classifier", container=False, min_width=110)
            self.address = gr.HTML(
                "",
                html_template=_ADDRESS,
                js_on_load=_ADDRESS_SCRIPT,
                elem_id="flips-address",
                elem_classes=["cai", "address"],
                apply_default_css=False,
            )

    def _connect(self, page: Page) -> None:
        filters: list[Any] = [self.contrast, self.metric, self.category, self.sort, self.text]
        toggles: list[Any] = [self.every, self.differences, self.probabilities]
        inputs: set[Any] = {self.run, *filters, self.cell, self.key, *toggles}
        results = [self.matrix, self.list, self.row, self.address, self.key]
        everything = [self.notice, self.body, *filters, self.cell, *results]
        page.app.load(self.arrive, None, everything, **_QUIET)
        self.run.input(self.reopen, self.run, everything, **_QUIET)
        changed = [component.input for component in (*filters, *toggles) if component is not self.text]
        gr.on(changed, self.show, inputs, results, trigger_mode="always_last", **_QUIET)
        # Gradio's input event misses what is pasted into a field that the page filled.
        self.text.change(self.search, inputs, results, trigger_mode="always_last", **_QUIET)
        self.matrix.pick(self.pick_cell, inputs, [self.cell, *results], **_QUIET)
        self.list.pick(self.pick_row, inputs, results, **_QUIET)
        self.previous.click(self.back, inputs, results, **_QUIET)
        self.next.click(self.on, inputs, results, **_QUIET)
        asked = self.score.click(
            self.ask, self.run, self.scored, concurrency_id="classifier", concurrency_limit=1, **_QUIET
        )
        asked.then(self.show, inputs, results, **_QUIET)

    def look(self, values: Values) -> Look:
        """What the reader looks at."""
        query = Query(
            cell=str(values[self.cell]),
            category=str(values[self.category] or ALL),
            text=str(values[self.text] or "")[:MOST_QUERY],
            sort=str(values[self.sort]),
        )
        return Look(
            str(values[self.run]), str(values[self.contrast]), str(values[self.metric]), query, str(values[self.key])
        )

    def render(self, values: Values, look: Look, place: Callable[[int], int] = int) -> list[Any]:
        """Matrix, list, row, address and row key; ``place`` leads from the present position to the wanted one."""
        try:
            return rendered(
                self.finder,
                look,
                place,
                every_model=bool(values[self.every]),
                diff=bool(values[self.differences]),
                classifier=bool(values[self.probabilities]),
            )
        except UserError as error:
            return ["", "", error_html(error), "", ""]

    def show(self, values: Values) -> list[Any]:
        """After a change of the filters: the same row where it still fits, else the first."""
        return self.render(values, self.look(values))

    def search(self, values: Values) -> list[Any]:
        """The words to search for changed; also when the page is built, before there is anything to search."""
        return self.show(values) if values[self.contrast] else [gr.skip()] * 5

    def pick_cell(self, values: Values, event: gr.EventData) -> list[Any]:
        """A cell of the 2 x 2 was chosen."""
        look, cell = self.look(values), str(event.value)
        return [cell, *self.render(values, replace(look, query=replace(look.query, cell=cell), row=""))]

    def pick_row(self, values: Values, event: gr.EventData) -> list[Any]:
        """A line of the list was chosen."""
        index = int(event.value)
        return self.render(values, self.look(values), lambda _: index)

    def back(self, values: Values) -> list[Any]:
        """To the row before."""
        return self.render(values, self.look(values), lambda position: position - 1)

    def on(self, values: Values) -> list[Any]:
        """To the next row."""
        return self.render(values, self.look(values), lambda position: position + 1)

    def arrive(self, request: gr.Request) -> list[Any]:
        """The page was opened: restore what its address says."""
        found = parameters(request)
        return self.open(chosen_run(self.finder.store, found.get("run")), found)

    def reopen(self, name: str) -> list[Any]:
        """Another run was chosen."""
        return self.open(name, {})

    def open(self, name: str | None, wanted: Mapping[str, str]) -> list[Any]:
        """All outputs for a run; whatever of ``wanted`` does not fit the run gives way to the default."""
        skipped = [gr.skip()] * 11
        if name is None:
            return [no_runs_html(self.finder.store), gr.update(visible=False), *skipped]
        try:
            run = self.finder.store.load(name)
            contrasts, metrics = contrast_choices(run), metrics_of(run)
            if not contrasts or not metrics:
                raise UserError("There are no flips to show.", why="The run has one model, or no scores.")
            contrast = _one_of(wanted.get("contrast"), [value for _, value in contrasts])
            metric = _one_of(wanted.get("metric"), metrics)
            flips = self.finder.find(run, contrast, metric)
            kinds = [ALL, *flips.categories]
            filled = [cell for cell, count in flips.counts.items() if count]
            query = Query(
                cell=_one_of(wanted.get("cell", ALL if wanted.get("row") else None), (*filled, ALL, *CELLS)),
                category=_one_of(wanted.get("category"), kinds),
                text=wanted.get("q", "")[:MOST_QUERY],
                sort=_one_of(wanted.get("sort"), list(SORTS)),
            )
            results = rendered(self.finder, Look(name, contrast, metric, query, wanted.get("row", "")))
        except UserError as error:
            return [error_html(error), gr.update(visible=False), *skipped]
        filters = [
            gr.update(choices=contrasts, value=contrast),
            gr.update(choices=[(words(name), name) for name in metrics], value=metric),
            gr.update(choices=kinds, value=query.category),
            query.sort,
            query.text,
        ]
        return ["", gr.update(visible=True), *filters, query.cell, *results]

    def ask(self, name: str) -> Iterator[str]:
        """Score every answer of the run with the classifier, and say how far it is."""
        try:
            run = self.finder.store.load(name)
            yield "<p class='small' role='status'>The classifier is being loaded …</p>"
            for done in self.finder.scoring.score(run, run.samples):
                yield f"<p class='small' role='status'>{done:,} of {len(run.samples):,} answers scored …</p>"
        except UserError as error:
            yield error_html(error)
            return
        yield _EXPLAINED


def _one_of(wanted: str | None, known: Sequence[str]) -> str:
    return wanted if wanted is not None and wanted in known else known[0]


def rendered(
    finder: Finder,
    look: Look,
    place: Callable[[int], int] = int,
    *,
    every_model: bool = False,
    diff: bool = True,
    classifier: bool = False,
) -> list[Any]:
    """Matrix, list, row, address and row key of what is looked at.

    Args:
        finder: gives the flips.
        look: which ones.
        place: the present position in the list → the wanted one; what leads out of the list stops at its ends.
        every_model: show the answers of all models.
        diff: mark the words that differ.
        classifier: ask the safety classifier about the answers shown; the first time loads it.

    Raises:
        UserError: the run cannot be read, has no such contrast or metric, or there is no classifier.
    """
    run = finder.store.load(look.run)
    flips = finder.find(run, look.contrast, look.metric)
    found = flips.select(look.query)
    matrix = matrix_html(flips, look.query.cell)
    if not found:
        return [matrix, list_html(found, 0), "", replace(look, row="").address(), ""]
    position = min(max(place(position_of(found, look.row)), 0), len(found) - 1)
    flip = found[position]
    if classifier:
        list(finder.scoring.score(run, list(flip.row.answers.values())))
    row = row_html(run, flips, flip, finder.scoring.known(run), every_model=every_model, differences=diff)
    counted = f"<p class='counted' aria-live='polite'>{position + 1:,} of {len(found):,}</p>"
    key = row_key(flip)
    return [matrix, list_html(found, position), counted + row, replace(look, row=key).address(), key]
