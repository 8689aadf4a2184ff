"""The report: one HTML file that opens with the network off, figures inside, every number with its denominator."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from runs.atomic import make_folder, write_bytes, write_text
from safety_classifier.evaluation.fairness import Bias
from safety_classifier.evaluation.metrics import METRICS, HeadMetrics
from safety_classifier.evaluation.plots import draw_all
from safety_classifier.evaluation.results import CLASSIFIER, Results
from safety_classifier.evaluation.style import NAMES, encoded, words

_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.6rem; border-bottom: 1px solid #ccc; } h3 { margin: 1.4rem 0 .3rem; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .6rem; border-bottom: 1px solid #e3e3e3; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; } thead th { border-bottom: 2px solid #999; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .86rem; } .missed { color: #a40000; } .reached { color: #00611c; }
nav a { margin-right: 1rem; } details { margin: .5rem 0; } summary { cursor: pointer; }
"""
_TITLES = {
    "f1": "F1",
    "auprc": "AUPRC",
    "auroc": "AUROC",
    "ece_mass": "ECE (equal mass)",
    "ece_width": "ECE (equal width)",
    "brier": "Brier",
    "recall_fpr_0.1": "recall at 0.1 % FPR",
    "recall_fpr_1": "recall at 1 % FPR",
    "recall_fpr_5": "recall at 5 % FPR",
    "fpr": "FPR",
}


def write_report(results: Results, folder: Path) -> None:
    """Write report.html and figures/ (PNG and SVG) into ``folder``. Raises `UserError` if the disk refuses."""
    drawn: dict[str, str] = {}
    make_folder(folder / "figures")
    for name, caption, figure in draw_all(results):
        svg = encoded(figure, "svg")
        write_bytes(folder / "figures" / f"{name}.svg", svg)
        write_bytes(folder / "figures" / f"{name}.png", encoded(figure, "png"))
        source = base64.b64encode(svg).decode()
        drawn[name] = (
            f'<figure><img alt="{escape(caption)}" src="data:image/svg+xml;base64,{source}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    write_text(folder / "report.html", _page(results, drawn))


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with everything escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _page(results: Results, drawn: dict[str, str]) -> str:
    sections = {
        "goals": ("Goals", _goals(results)),
        "test": ("Held-out test split", _test(results) + drawn.get("scorers", "") + drawn.get("precision_recall", "")),
        "calibration": ("Calibration", _calibration(results) + drawn.get("reliability", "")),
        "sources": ("Within each source", drawn.get("sources", "") + _sources(results)),
        "attacks": ("Attacks", drawn.get("attacks", "") + _attacks(results)),
        "fairness": ("Fairness", drawn.get("bias", "") + _fairness(results)),
        "suites": (
            "Suites, never trained on",
            drawn.get("suites", "") + drawn.get("functionalities", "") + _suites(results),
        ),
        "latency": ("Latency", _latency(results)),
        "data": ("Rows", _counts(results)),
    }
    kept = {key: section for key, section in sections.items() if section[1]}
    links = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, (title, _) in kept.items())
    body = "".join(f'<h2 id="{key}">{escape(title)}</h2>{text}' for key, (title, text) in kept.items())
    intro = (
        f"Made {results.created}, seed {results.seed}. Intervals are 95 % percentile bootstraps "
        f"(B = {results.settings.resamples:,} on the test split and the suites, {results.settings.attack_resamples:,} "
        f"for attacks, {results.settings.fairness_resamples:,} for fairness) that draw whole groups within sources. "
        "Thresholds were frozen before. A dash means undefined: a class is absent."
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Safety classifier: evaluation</title>'
        f"<style>{_CSS}</style></head><body><h1>Safety classifier: evaluation</h1>"
        f'<p class="note">{escape(intro)}</p><nav>{links}</nav>{body}</body></html>\n'
    )


def _goals(results: Results) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.figure)}</td><td>{escape(one.goal)}</td>"
        f"<td>{'not measured' if one.value is None else f'{one.value:.4f}'}</td>"
        f'<td class="{"reached" if one.reached else "missed"}">{_verdict(one.reached)}</td></tr>'
        for one in results.goals
    )
    head = "<tr><th>figure</th><th>goal</th><th>measured</th><th></th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else ""


def _verdict(reached: bool | None) -> str:
    return "-" if reached is None else "reached" if reached else "missed"


def _test(results: Results) -> str:
    parts = []
    for name, table in results.tables.items():
        macro = f"macro ({', '.join(words(head) for head in table.macro_over)})"
        rows = [_metric_row(macro, table.macro), *(_metric_row(words(head), one) for head, one in table.heads.items())]
        header = ["head", "positive / labelled", "threshold", *(_TITLES.get(key, key) for key in METRICS)]
        shown = html_table(header, rows)
        title = NAMES.get(name, name)
        first = name == CLASSIFIER
        parts.append(f"<h3>{escape(title)}</h3>{shown}" if first else _folded(title, shown))
    pairs = [
        [NAMES.get(name, name), words(head), source, f"{one.pairs:,}", str(one.accuracy)]
        for name, found in results.pairs.items()
        for head, pooled in found.items()
        for source, one in [("all", pooled), *pooled.sources.items()]
    ]
    if pairs:
        header = ["scorer", "head", "source", "pairs", "accuracy"]
        parts.append("<h3>Preference pairs</h3>" + html_table(header, pairs))
    return "".join(parts)


def _metric_row(name: str, one: HeadMetrics) -> list[str]:
    threshold = "" if one.threshold is None else "never" if one.threshold > 1 else f"{one.threshold:.3f}"
    return [
        name,
        f"{one.positives:,} / {one.labelled:,}",
        threshold,
        *(str(one.metrics.get(key, "-")) for key in METRICS),
    ]


def _calibration(results: Results) -> str:
    if results.calibration is None:
        return ""
    scale = dict(zip(results.calibration.heads, results.calibration.scale, strict=True))
    bias = dict(zip(results.calibration.heads, results.calibration.bias, strict=True))
    rows = [
        [
            words(head),
            f"{one.positives:,} / {one.labelled:,}",
            f"{scale[head]:.3f}",
            f"{bias[head]:+.3f}",
            *(f"{before:.4f} → {after:.4f}" for before, after in (one.ece_mass, one.ece_width, one.brier)),
        ]
        for head, one in results.reliability.items()
    ]
    header = ["head", "positive / labelled", "slope", "offset", "ECE (equal mass)", "ECE (equal width)", "Brier"]
    note = f"Method: {results.calibration.method}; fitted on its own split, measured on the test split, before → after."
    return f'<p class="note">{escape(note)}</p>' + html_table(header, rows)


def _sources(results: Results) -> str:
    names = list(results.within_source)
    cells = {
        name: {(one.head, one.source): str(one.auroc) for one in found} for name, found in results.within_source.items()
    }
    rows = [
        [
            words(one.head),
            one.source,
            f"{one.positives:,} / {one.negatives:,}",
            *(cells[name].get((one.head, one.source), "-") for name in names),
        ]
        for one in results.within_source[CLASSIFIER]
    ]
    header = ["head", "source", "positive / negative", *(f"AUROC, {NAMES.get(name, name)}" for name in names)]
    return html_table(header, rows) if rows else ""


def _attacks(results: Results) -> str:
    parts = []
    for name, found in results.attacks.items():
        rows = [
            [
                words(one.attack),
                words(one.head),
                f"{one.positives:,} / {one.rows:,}",
                *map(str, (one.clean, one.attacked, one.loss, one.recall_loss)),
            ]
            for one in found
        ]
        header = ["attack", "head", "positive / rows", "clean AUROC", "attacked", "loss", "loss of recall"]
        parts.append(_folded(f"All attacks: {NAMES.get(name, name)}", html_table(header, rows)))
    return "".join(parts)


def _fairness(results: Results) -> str:
    parts = []
    for name, found in results.fairness.items():
        rows, swaps, groups = [], [], []
        for where, biases in (("templates", found.templates), ("test rows", found.mentions)):
            for head, one in biases.items():
                four = map(str, (one.overall, one.final, one.worst_bpsn, one.odds_gap))
                rows.append([where, words(head), f"{one.rows:,}", str(len(one.groups)), *four])
                groups += _groups(where, head, one)
        for where, shifts in (("templates", found.template_swaps), ("test rows", found.text_swaps)):
            for head, shift in shifts.items():
                numbers = (str(shift.mean), f"{shift.p95:.3f}", f"{100 * shift.flips:.1f} %")
                swaps.append([where, words(head), f"{shift.sentences:,}", f"{shift.pairs:,}", *numbers])
        header = ["rows", "head", "n", "groups", "overall AUC", "final bias metric", "worst BPSN AUC", "odds gap"]
        parts.append(f"<h3>{escape(NAMES.get(name, name))}</h3>" + html_table(header, rows))
        header = ["identity swaps in", "head", "sentences", "pairs", "mean |shift|", "p95", "flips"]
        parts.append(html_table(header, swaps))
        header = ["rows", "head", "group", "positive / negative", "subgroup", "BPSN", "BNSP", "recall", "FPR"]
        parts.append(_folded("Every group", html_table(header, groups)))
    return "".join(parts)


def _groups(where: str, head: str, bias: Bias) -> list[list[str]]:
    return [
        [
            where,
            words(head),
            group.group,
            f"{group.positives:,} / {group.negatives:,}",
            *map(str, (group.subgroup, group.bpsn, group.bnsp)),
            f"{group.recall:.3f}",
            f"{group.fpr:.3f}",
        ]
        for group in bias.groups
    ]


def _suites(results: Results) -> str:
    parts = []
    for suite, scorers in results.suites.items():
        first = scorers[CLASSIFIER]
        parts.append(f"<h3>{escape(suite)} ({first.rows:,} texts)</h3><p class='note'>{escape(first.note)}</p>")
        keys = ("auroc", "auprc", "f1", "accuracy", "precision", "recall", "fpr")
        rows = [
            [
                task,
                NAMES.get(name, name),
                f"{answer.positives:,} / {answer.labelled:,}",
                *(str(answer.metrics[key]) for key in keys),
                "-" if answer.best_f1 is None else f"{answer.best_f1:.3f}",
            ]
            for task in first.tasks
            for name, answer in ((name, found.tasks[task]) for name, found in scorers.items())
        ]
        header = [
            "task",
            "scorer",
            "positive / labelled",
            *(_TITLES.get(key, key) for key in keys),
            "best F1 (its own labels)",
        ]
        parts.append(html_table(header, rows) if rows else "")
        pairs = [
            [words(head), NAMES.get(name, name), f"{pair.pairs:,}", str(pair.accuracy)]
            for name, found in scorers.items()
            for head, pair in found.pairs.items()
        ]
        parts.append(html_table(["head", "scorer", "pairs", "accuracy"], pairs) if pairs else "")
        for column, slices in first.breakdown.items():
            cells = [
                [one.value, f"{one.rows:,}", f"{one.positives:,}", str(one.accuracy), f"{one.mean_score:.3f}"]
                for one in slices
            ]
            table = html_table([column, "rows", "positive", "accuracy", "mean score"], cells)
            parts.append(_folded(f"By {column} ({next(iter(first.tasks))}, classifier)", table))
    return "".join(parts)


def _latency(results: Results) -> str:
    rows = [
        [
            str(one.batch),
            str(one.calls),
            f"{one.p50_ms:.1f}",
            f"{one.p95_ms:.1f}",
            f"{one.texts_per_second:,.0f}",
            f"{one.mean_characters:.0f}",
            f"{one.load_average:.1f}",
        ]
        for one in results.latency
    ]
    header = ["texts a call", "calls", "p50, ms", "p95, ms", "texts / s", "mean characters", "load average before"]
    return html_table(header, rows) if rows else ""


def _counts(results: Results) -> str:
    keys = list(next(iter(results.counts.values())))
    rows = [[key, *(f"{counts[key]:,}" for counts in results.counts.values())] for key in keys]
    return html_table(["", *results.counts], rows)


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"
