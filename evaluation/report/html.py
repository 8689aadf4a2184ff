"""One self-contained page: styles, script, Plotly, figures and samples inside; nothing is fetched when it opens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from evaluation.report import tables
from evaluation.report.browser import browser_data, script_json
from evaluation.report.charts import contrast_note, contrast_title, pairs
from evaluation.report.data import RunData
from evaluation.report.figures import OUTCOMES, Figure, model_colour
from evaluation.report.grid import Grid, to_html, words
from evaluation.report.instruments import card_grid
from evaluation.report.interactive import plotly_figure
from evaluation.report.provenance import provenance_html
from evaluation.statistics.records import Verdict

ASSETS = Path(__file__).parent / "assets"
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
"""The page may run what it holds and load nothing: a second wall behind the escaping."""


def report_page(run: RunData, figures: Sequence[Figure], principles: dict[str, str]) -> str:
    """The whole report as HTML.

    Args:
        run: a finished run.
        figures: what `evaluation.report.charts.run_figures` gave for it.
        principles: id → sentence of the constitution's principles.
    """
    sections = _sections(run, {figure.name: figure for figure in figures}, principles)
    title = f"Evaluation of {run.results.config['family']}"
    links = "".join(f"<a href='#{name}'>{escape(label)}</a>" for name, label, body in sections if body)
    body = "".join(
        f"<section id='{name}'><h2>{escape(label)}</h2>{content}</section>"
        for name, label, content in sections
        if content
    )
    samples = browser_data(run.rows, run.models, run.evaluators, pairs(run.analysis.primary)[::-1], run.doubtful)
    return "".join(
        [
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            "<meta name='referrer' content='no-referrer'>",
            f"<title>{escape(title)}</title><style>{_asset('report.css')}</style></head><body><div class='shell'>",
            f"<nav class='toc' aria-label='Sections'><strong>{escape(title)}</strong>{links}</nav>",
            f"<main>{_header(run, title)}{body}{_footer(run)}</main></div>",
            _data_script("figure-data", {figure.name: plotly_figure(figure) for figure in figures}),
            _data_script("sample-data", samples),
            f"<script>{_plotly()}</script><script>{_asset('report.js')}</script></body></html>\n",
        ]
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source.replace("</script", "<\\/script")


def _data_script(name: str, value: Any) -> str:
    return f"<script type='application/json' id='{name}'>{script_json(value)}</script>"


def _sections(run: RunData, figures: dict[str, Figure], principles: dict[str, str]) -> list[tuple[str, str, str]]:
    """Id, title and content of every section; one without content is left out of the page."""

    def shown(*prefixes: str) -> str:
        return "".join(_figure(figure) for name, figure in figures.items() if name.startswith(prefixes))

    return [
        ("verdict", "Verdict", _verdicts(run)),
        ("differences", "Differences", shown("forest-")),
        ("levels", "Levels", shown("levels") + to_html(tables.levels_grid(run)) + _lengths(run)),
        ("responses", "How answers respond", shown("modes-")),
        ("evasiveness", "Harm against evasion", _plane(shown("evasiveness-plane"))),
        (
            "categories",
            "Categories",
            _folded(shown("categories"), tables.category_grid(run), "Every category and metric"),
        ),
        ("principles", "Principles", principles_html(run, principles)),
        ("benchmarks", "Benchmarks", benchmarks_html(run, shown("benchmarks"))),
        ("instruments", "Instruments", instruments_html(run, shown("card"))),
        ("samples", "Samples", _samples(run)),
        ("provenance", "Provenance", provenance_html(run)),
    ]


def _header(run: RunData, title: str) -> str:
    models = " ".join(_model(run, model) for model in run.models)
    facts = [
        ("models", models),
        ("prompts", f"{len(run.prompts):,}"),
        ("answers", f"{len(run.samples):,}"),
        ("evaluators", str(len(run.evaluators))),
        ("run", f"<span class='mono'>{escape(run.results.run_id[:12])}</span>"),
        ("made", escape(run.manifest.created[:10])),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    stamps = "".join(f"<p class='stamp' role='note'>{escape(text)}</p>" for text in stamps_of(run))
    return (
        f"<header class='top'><p class='eyebrow'>Constitutional AI · evaluation report</p><h1>{escape(title)}</h1>"
        + (f"<dl class='facts'>{listed}</dl>{stamps}</header>")
    )


def stamps_of(run: RunData) -> list[str]:
    """What a reader must know before any number."""
    found = []
    if run.limited:
        found.append(f"Limited run: {len(run.prompts)} prompts were taken from a longer file. Not to be reported.")
    if run.benchmarks is not None and run.benchmarks.limit is not None:
        found.append(f"Benchmarks are limited to {run.benchmarks.limit} questions a task. Not to be reported.")
    if run.results.stamp:
        found.append(run.results.stamp)
    for model, ids in run.missing.items():
        found.append(
            f"{model} has no answer to {len(ids)} of {len(run.prompts)} prompts; contrasts use complete pairs."
        )
    return found


def _model(run: RunData, model: str) -> str:
    return f"<span class='model' style='--c:{model_colour(run.models, model)}'>{escape(model)}</span>"


def _verdicts(run: RunData) -> str:
    if not run.analysis.primary:
        return "<p class='lead'>One model: there is nothing to compare it with.</p>"
    parts = [
        "<p class='lead'>What the paired comparison allows one to say. Contrasts and metrics were declared before the "
        "run; p-values are adjusted over all of them. Undecided does not mean equal.</p>",
        tally_html(run),
    ]
    for pair in pairs(run.analysis.primary):
        parts.append(f"<h3>{escape(contrast_title(*pair))}</h3>{contrast_html(run, pair)}")
    return "".join(parts)


def contrast_html(run: RunData, pair: tuple[str, str]) -> str:
    """The sentences on one contrast, (treatment, control); those that decide nothing are folded away."""
    own = [v for v in run.analysis.primary if (v.contrast.treatment, v.contrast.control) == pair]
    decided = [verdict for verdict in own if verdict.outcome in {"better", "worse", "equivalent"}]
    others = [verdict for verdict in own if verdict.outcome not in {"better", "worse", "equivalent"}]
    rest = _verdict_list(others, run)
    if others and decided:
        rest = f"<details><summary>Not decided: {len(others)}</summary>{rest}</details>"
    return _verdict_list(decided, run) + rest


def tally_html(run: RunData) -> str:
    """How many of the declared tests came out how."""
    counts: Counter[str] = Counter(verdict.outcome for verdict in run.analysis.primary)
    told = "".join(
        f"<span><span class='sign {look}'>{OUTCOMES[look].sign}</span> {counts[look]} {look}</span>"
        for look in OUTCOMES
    )
    rest = f"<span>{counts['not_measured']} not measured</span>" if counts["not_measured"] else ""
    return f"<p class='tally'>{told}{rest}<span class='small'>of {len(run.analysis.primary)} declared tests</span></p>"


def _verdict_list(verdicts: Sequence[Verdict], run: RunData) -> str:
    if not verdicts:
        return ""
    items = []
    for verdict in verdicts:
        standing = run.doubtful.get(verdict.contrast.metric)
        tag = f" <span class='tag uninformative'>{escape(standing)} evaluator</span>" if standing else ""
        sign = tables.outcome_look(verdict.outcome)
        items.append(
            f"<li class='{verdict.outcome}'><span class='sign' title='{verdict.outcome}'>{sign}</span>"
            f"<div><div class='said'>{escape(_for_people(verdict.sentence, verdict.contrast.metric))}{tag}</div>"
            f"<div class='detail'>{escape(contrast_note(verdict.contrast))}</div>"
            "</div></li>"
        )
    return f"<ul class='verdicts'>{''.join(items)}</ul>"


def _for_people(sentence: str, metric: str) -> str:
    """A sentence with the metric's name and minus signs as people write them."""
    text = sentence.replace(metric, words(metric))
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def _figure(figure: Figure) -> str:
    caption = f"<figcaption><b>{escape(figure.title)}</b>{escape(figure.subtitle)}</figcaption>"
    label = escape(f"{figure.title}. {figure.subtitle}", quote=True)
    host = f"<div class='plot' data-figure='{escape(figure.name, quote=True)}' role='img' aria-label='{label}'></div>"
    return f"<figure>{caption}{host}</figure>"


def _lengths(run: RunData) -> str:
    return "<h3>Length</h3><p>Length and cutting can pass for quality; they are no metric here.</p>" + to_html(
        tables.lengths_grid(run)
    )


def _plane(figure: str) -> str:
    if not figure:
        return ""
    return (
        "<p class='lead'>Refusing everything is harmless and useless. Each point is a model; the way leads along the "
        "lineage. Good training moves left without moving up.</p>" + figure
    )


def _folded(figure: str, grid: Grid, summary: str) -> str:
    if not grid.rows:
        return ""
    return f"{figure}<details><summary>{escape(summary)} ({len(grid.rows)} rows)</summary>{to_html(grid)}</details>"


def principles_html(run: RunData, principles: dict[str, str]) -> str:
    """Scores by principle, and which principles no prompt exercises."""
    index = run.analysis.principles
    if index is None:
        return ""
    exercised = sum(count > 0 for count in index.coverage.values())
    lead = f"{exercised} of the constitution's {len(index.coverage)} principles are exercised by at least one prompt."
    unknown = ""
    if index.unknown:
        names = ", ".join(f"{name} ({count})" for name, count in index.unknown.items())
        unknown = f"<p class='stamp'>Prompts name principles that the constitution does not have: {escape(names)}</p>"
    return f"<p class='lead'>{lead}</p>{unknown}{to_html(tables.principle_grid(run, principles))}"


def benchmarks_html(run: RunData, figures: str) -> str:
    """What the training costs on lm-eval's tasks; empty where the run has none."""
    if run.benchmarks is None:
        return ""
    sentences = "".join(
        f"<li>{escape(_for_people(one.price.sentence, one.price.contrast.metric))}</li>"
        for one in run.analysis.benchmarks
    )
    return (
        f"<p class='lead'>Capability, by lm-eval {escape(run.benchmarks.lm_eval_version)} on the same loaded model.</p>"
        f"<ul>{sentences}</ul>{figures}{to_html(tables.benchmark_grid(run))}"
    )


def instruments_html(run: RunData, figures: str) -> str:
    """How well the evaluators agree with people; ``figures`` stand before the table."""
    if run.card is None:
        return (
            "<p class='lead'>These evaluators have not been checked against people's labels on this machine: there is "
            "no report card. <code>uv run evaluate calibrate --gold-dir DIR</code> makes one.</p>"
        )
    return (
        "<p class='lead'>How well each evaluator agrees with people's labels, beside two baselines: the answer's "
        "length alone, and a constant. One that does not clear the length baseline is uninformative: shown in grey, "
        f"and part of no composite.</p>{figures}{to_html(card_grid(run.card))}"
    )


def _samples(run: RunData) -> str:
    return (
        f"<p class='lead'>All {len(run.prompts):,} prompts with every model's answer. Marked passages are what an "
        "evaluator rests its score on; hold the pointer over one to read why.</p><div id='sample-browser'></div>"
        "<noscript><p class='stamp'>The samples need JavaScript; they are also in samples.jsonl and samples.parquet."
        "</p></noscript>"
    )


def _footer(run: RunData) -> str:
    return (
        "<footer>Written from the run's files alone; no model was run for it. Every text of a model is shown as text, "
        f"never as markup. Run {escape(run.results.run_id)}.</footer>"
    )
