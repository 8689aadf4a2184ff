"""What a run leaves on disk and shows on screen. All of it follows from samples and results alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from evaluation.records import Results, Sample
from runs.atomic import write_text
from runs.console import Reporter
from runs.records import write_jsonl

COLUMNS = (
    "contrast", "metric", "n", "dropped", "estimate", "low", "high", "p", "p_adjusted", "effect_size",
    "minimum_detectable_effect", "outcome", "sentence",
)  # fmt: skip


def write_outputs(folder: Path, samples: Sequence[Sample], results: Results) -> None:
    """Write samples.jsonl, comparison.csv and results.json, each atomically."""
    write_jsonl(folder / "samples.jsonl", samples)
    write_text(folder / "comparison.csv", comparison_csv(results))
    write_text(folder / "results.json", results.model_dump_json(indent=2) + "\n")


def comparison_csv(results: Results) -> str:
    """One line a verdict."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for verdict in results.verdicts:
        row = verdict.model_dump()
        writer.writerow([f"{row[name]:.6g}" if isinstance(row[name], float) else row[name] for name in COLUMNS])
    return buffer.getvalue()


def score_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the models' means with their intervals and denominators."""
    models = list(dict.fromkeys(summary.model for summary in results.summaries))
    rows = []
    for metric in dict.fromkeys(summary.metric for summary in results.summaries):
        cells = {summary.model: summary for summary in results.summaries if summary.metric == metric}
        row, counts = [metric], []
        for model in models:
            cell = cells[model]
            if cell.mean is None or cell.low is None or cell.high is None:
                row.append("not measured")
            else:
                row.append(f"{100 * cell.mean:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]")
            counts.append(cell.scored)
        row.append(str(counts[0]) if len(set(counts)) == 1 else "/".join(map(str, counts)))
        rows.append(row)
    return ["metric (0-100, higher is better)", *models, "prompts"], rows


def contrast_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the verdicts, in points of 100."""
    rows = [
        [
            f"{verdict.contrast}: {verdict.metric}",
            f"{100 * verdict.estimate:+.1f}",
            f"[{100 * verdict.low:+.1f}, {100 * verdict.high:+.1f}]",
            f"{verdict.p_adjusted:.3g}",
            str(verdict.n),
            verdict.outcome,
        ]
        for verdict in results.verdicts
    ]
    return ["contrast", "points", "95 % interval", "p (Holm)", "n", "outcome"], rows


def lengths(results: Results) -> str:
    """How long the answers are, and how many the token limit cut: both can pass for a difference in quality."""
    prompts, cut, mean = (results.n_samples[key] for key in ("prompts", "cut_at_the_limit", "mean_tokens"))
    models = ", ".join(f"{model} {mean[model]:.0f} tokens, {cut[model]} of {prompts} cut" for model in cut)
    return f"Answers: {models}."


def show(results: Results, reporter: Reporter) -> None:
    """Print both tables."""
    stamp = "LIMITED RUN: not to be reported. " if results.limited else ""
    columns, rows = score_table(results)
    reporter.table("Scores", columns, rows, caption=f"{stamp}Means with 95 % intervals. {lengths(results)}")
    columns, rows = contrast_table(results)
    if rows:
        reporter.table("Paired differences", columns, rows, caption=f"{stamp}Undecided is not equal.")
