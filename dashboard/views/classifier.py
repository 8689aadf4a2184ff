"""The tab *Classifier*: a text, or a file of texts, to calibrated probabilities and the words that mattered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gradio as gr

from dashboard.marks import Mark, marked
from dashboard.page import block, error_html, section
from dashboard.scoring import Scoring
from evaluation.report.grid import Cell, Grid, to_html, words
from runs.errors import UserError
from safety_classifier.labels import LABELS

if TYPE_CHECKING:
    from dashboard.classify import HeadView, Judged, TextView

NAME = "classifier"
STRONGEST = "strongest"
"""Choice of the head whose words are weighed: the most probable one."""
_PREVIEW = 100
_EXAMPLE = "You people are all the same, and nobody would miss you if you were gone."
_LEAD = (
    "Calibrated probabilities: of texts that get 70 %, about 70 in 100 are what the category says. The line on each "
    "bar is the threshold from which a text is flagged. The first question loads the model."
)
_QUIET: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "classifier", "concurrency_limit": 1}


def build(scoring: Scoring) -> None:
    """Lay the tab out, inside of a ``gr.Tab``."""
    block(value=section("Ask the safety classifier", _LEAD))
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            text = gr.Textbox(label="Text", lines=6, max_lines=16, placeholder=_EXAMPLE, elem_id="classifier-text")
            context = gr.Textbox(label="The prompt that it answers (optional)", lines=2, max_lines=8)
            head = gr.Dropdown(
                [
                    ("the most probable category", STRONGEST),
                    *((words(name), name) for name in LABELS.of("category", "response")),
                ],
                value=STRONGEST,
                label="Words that mattered for",
            )
            ask = gr.Button("Classify", variant="primary", elem_id="classifier-ask")
        with gr.Column(scale=6, min_width=320):
            result = block("classifier-result", value=_waiting(), elem_id="classifier-result")
    block(value=section("A file of texts", "CSV, TSV, JSON lines or plain text, up to 5 MB and 5,000 rows."))
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            file = gr.File(
                label="File", file_types=[".csv", ".tsv", ".jsonl", ".txt"], height=130, elem_id="classifier-file"
            )
            with gr.Row():
                text_column = gr.Textbox("text", label="Text column", max_length=80, min_width=120)
                context_column = gr.Textbox("", label="Prompt column", placeholder="none", max_length=80, min_width=120)
            with gr.Row():
                run_file = gr.Button("Classify the file", elem_id="classifier-run-file")
                download = gr.DownloadButton("Download results", interactive=False, elem_id="classifier-download")
        with gr.Column(scale=6, min_width=320):
            table = block("table")

    def one(body: str, prompt: str, name: str) -> str:
        return classified(scoring, body or "", prompt or "", "" if name == STRONGEST else name)

    def many(path: str | None, column: str, prompt_column: str) -> Iterator[tuple[str, Any]]:
        yield from classified_file(scoring, path, column or "text", prompt_column or "")

    gr.on([ask.click, head.input], one, [text, context, head], result, show_progress="minimal", **_QUIET)
    run_file.click(many, [file, text_column, context_column], [table, download], show_progress="hidden", **_QUIET)


def _waiting() -> str:
    return "<div class='notice'><p class='lead'>Paste a text and choose <b>Classify</b>.</p></div>"


def classified(scoring: Scoring, text: str, context: str, head: str) -> str:
    """The result for one text as HTML."""
    from dashboard.classify import look_at

    if not text.strip():
        return _waiting()
    try:
        return view_html(look_at(scoring.classifier, text, context, head))
    except UserError as error:
        return error_html(error)


def view_html(view: TextView) -> str:
    """Probabilities with thresholds, and the text with its words weighed."""
    flagged = [words(head.name) for head in view.heads if head.flagged]
    told = f"Flagged: {', '.join(flagged)}" if flagged else "Nothing flagged"
    kind = "worse" if flagged else "better"
    notes = [f"safe with {100 * view.result.safe:.0f} %"]
    if view.result.windows > 1:
        notes.append(f"read in {view.result.windows} parts")
    if view.result.obfuscation > 0:
        notes.append(f"{100 * view.result.obfuscation:.0f} % of the characters disguised")
    if any(head.escalate for head in view.heads):
        unsure = ", ".join(words(head.name) for head in view.heads if head.escalate)
        notes.append(f"unsure, a stronger judge should decide: {unsure}")
    bars = "".join(map(_bar, view.heads))
    return (
        f"<div class='notice result' role='status'><h3><span class='sign {kind}'>{'▼' if flagged else '▲'}</span> "
        f"{escape(told)}</h3><p class='small'>{escape(' · '.join(notes))}</p>{bars}{_attribution(view)}</div>"
    )


def _bar(head: HeadView) -> str:
    why = (
        f"{head.definition} Flagged from {100 * head.threshold:.0f} %: there, precision was "
        f"{100 * head.precision:.0f} % and recall {100 * head.recall:.0f} %."
    )
    return (
        f"<div class='bar{' over' if head.flagged else ''}' title=\"{escape(why, quote=True)}\">"
        f"<span>{escape(words(head.name))}</span><span class='track' aria-hidden='true'>"
        f"<i style='width:{100 * head.probability:.1f}%'></i><b style='left:{100 * head.threshold:.1f}%'></b></span>"
        f"<span class='value'>{100 * head.probability:.0f} %<span class='sr'> of a threshold of "
        f"{100 * head.threshold:.0f} %</span></span></div>"
    )


def _attribution(view: TextView) -> str:
    found = view.attribution
    if found is None or not found.tokens:
        return ""
    most = max(abs(token.value) for token in found.tokens) or 1.0
    marks = [
        Mark(
            token.start,
            token.end,
            "adds" if token.value > 0 else "takes",
            f"{token.value:+.2f} to the logit".replace("-", "−"),
            abs(token.value) / most,
        )
        for token in found.tokens
        if abs(token.value) > 0.05 * most
    ]
    return (
        f"<h3>Words that mattered for {escape(words(found.head))}</h3><p class='small'><mark class='adds' "
        "style='--s:.7'>Raises</mark> and <mark class='takes' style='--s:.7'>lowers</mark> the logit, by integrated "
        f"gradients; what they miss: {abs(found.residual):.2f} of {found.logit - found.baseline_logit:+.2f}.</p>"
        f"<p class='passage'>{marked(view.text, marks)}</p>"
    )


def classified_file(scoring: Scoring, path: str | None, column: str, context: str) -> Iterator[tuple[str, Any]]:
    """Progress, then the summary and the download; an error takes their place."""
    from dashboard.classify import judge_file, results_csv

    if not path:
        yield "<p class='lead'>Choose a file first.</p>", gr.update(interactive=False)
        return
    try:
        yield "<p class='lead' role='status'>The classifier is being loaded …</p>", gr.update(interactive=False)
        classifier, judged = scoring.classifier, []
        for batch in judge_file(classifier, Path(path), column, context):
            judged += batch
            yield f"<p class='lead' role='status'>{len(judged):,} rows done …</p>", gr.update(interactive=False)
    except UserError as error:
        yield error_html(error), gr.update(interactive=False)
        return
    with TemporaryDirectory(prefix="dashboard-") as folder:  # Gradio takes its copy before it asks for more
        written = Path(folder) / "classified.csv"
        written.write_text(results_csv(classifier, judged), encoding="utf-8")
        yield batch_html(judged), gr.update(value=str(written), interactive=True)


def batch_html(judged: list[Judged]) -> str:
    """Counts, and the first rows, the least safe first."""
    good = [(one.row, one.result) for one in judged if one.result is not None]
    flagged = Counter(name for _, result in good for name, on in result.flagged.items() if on)
    told = ", ".join(f"{words(name)} {count}" for name, count in flagged.most_common()) or "none"
    broken = len(judged) - len(good)
    worst = sorted(good, key=lambda pair: pair[1].safe)[:_PREVIEW]
    rows = tuple(
        (
            Cell(str(row.number)),
            Cell(" ".join(row.text.split())[:160], look="text"),
            Cell(f"{100 * result.safe:.0f} %"),
            Cell(", ".join(words(name) for name, on in result.flagged.items() if on) or "–", look="text"),
        )
        for row, result in worst
    )
    grid = Grid(("row", "text", "safe", "flagged"), rows, caption=f"The {len(rows):,} least safe rows.")
    missed = f" {broken:,} rows could not be read; the download says why." if broken else ""
    return (
        f"<h3 role='status'>{len(good):,} of {len(judged):,} rows judged</h3><p>Flagged: {escape(told)}.{missed}</p>"
        f"{to_html(grid)}"
    )
