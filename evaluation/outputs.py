"""What a run leaves on disk and shows on screen. All of it follows from samples and results alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.analysis import FILE as STATISTICS
from evaluation.analysis import Analysis
from evaluation.records import Results, Sample, Summary, Verdict
from runs.atomic import write_text
from runs.console import Reporter
from runs.records import write_jsonl

COLUMNS = (
    "contrast", "metric", "n", "dropped", "estimate", "low", "high", "p", "p_adjusted", "effect_size",
    "minimum_detectable_effect", "outcome", "sentence",
)  # fmt: skip


class Table(NamedTuple):
    """A table for the console and for Markdown."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def write_outputs(folder: Path, samples: Sequence[Sample], results: Results, analysis: Analysis) -> None:
    """Write samples.jsonl, comparison.csv, statistics.json and results.json, each atomically."""
    write_jsonl(folder / "samples.jsonl", samples)
    write_text(folder / "comparison.csv", comparison_csv(results))
    write_text(folder / STATISTICS, analysis.model_dump_json(indent=1) + "\n")
    write_text(folder / "results.json", results.model_dump_json(indent=2) + "\n")


def complete(results: Results, samples: Sequence[Sample], *, stamp: str = "", asked: Sequence[str] = ()) -> Results:
    """``results`` with what lm-eval's readers look for, the answers that are missing, and a stamp.

    ``asked`` holds the ids of all prompts, where some may have no answer at all.
    """
    models = list(results.results)
    prompts = list(dict.fromkeys([*asked, *(sample.prompt_id for sample in samples)]))
    answered = {model: {sample.prompt_id for sample in samples if sample.model == model} for model in models}
    missing = {model: [key for key in prompts if key not in ids] for model, ids in answered.items()}
    table: dict[str, dict[str, Any]] = {}
    for model in models:
        own = [summary for summary in results.summaries if summary.model == model]
        table[model] = {"alias": model, "sample_len": len(answered[model])}
        for summary in own:
            table[model][f"{summary.metric},none"] = summary.mean
            table[model][f"{summary.metric}_ci95,none"] = [summary.low, summary.high]
    return results.model_copy(
        update={
            "results": table,
            "n_samples": {**results.n_samples, "prompts": len(prompts)},
            "stamp": stamp,
            "missing": {model: keys for model, keys in missing.items() if keys},
            "configs": {model: results.identity.get("models", {}).get(model) for model in models},
            "n_shot": dict.fromkeys(models, 0),
            "higher_is_better": {
                model: {s.metric: True for s in results.summaries if s.model == model} for model in models
            },
            "effective": {model: {"original": len(prompts), "effective": len(answered[model])} for model in models},
        }
    )


def comparison_csv(results: Results) -> str:
    """One line a verdict."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for verdict in results.verdicts:
        row = verdict.model_dump()
        writer.writerow([f"{row[name]:.6g}" if isinstance(row[name], float) else row[name] for name in COLUMNS])
    return buffer.getvalue()


def score_table(results: Results) -> Table:
    """The models' means with their intervals and denominators, on a scale of 0 to 100."""
    models = list(dict.fromkeys(summary.model for summary in results.summaries))
    rows = []
    for metric in dict.fromkeys(summary.metric for summary in results.summaries):
        cells = [summary for summary in results.summaries if summary.metric == metric]
        counts = [str(cell.scored) for cell in cells]
        rows.append([metric, *map(_cell, cells), counts[0] if len(set(counts)) == 1 else "/".join(counts)])
    return Table("Scores", ["metric", *models, "prompts"], rows)


def _cell(summary: Summary) -> str:
    if summary.mean is None or summary.low is None or summary.high is None:
        return "not measured"
    return f"{100 * summary.mean:.0f} [{100 * summary.low:.0f}, {100 * summary.high:.0f}]"


def contrast_tables(results: Results) -> list[Table]:
    """The verdicts, in points of 100: one table a contrast."""
    return [
        Table(
            contrast,
            ["metric", "points [95 % interval]", "p (Holm)", "n", "outcome"],
            [_line(verdict) for verdict in results.verdicts if verdict.contrast == contrast],
        )
        for contrast in dict.fromkeys(verdict.contrast for verdict in results.verdicts)
    ]


def _line(verdict: Verdict) -> list[str]:
    interval = f"{100 * verdict.estimate:+.1f} [{100 * verdict.low:+.1f}, {100 * verdict.high:+.1f}]"
    return [verdict.metric, interval, f"{verdict.p_adjusted:.2g}", str(verdict.n), verdict.outcome]


def lengths(results: Results) -> str:
    """How long the answers are, and how many the token limit cut: both can pass for a difference in quality."""
    prompts, cut, mean = (results.n_samples[key] for key in ("prompts", "cut_at_the_limit", "mean_tokens"))
    if not any(mean.values()):
        return "Answers: their lengths are not known."
    models = ", ".join(f"{model} {mean[model]:.0f} tokens, {cut[model]} of {prompts} cut" for model in cut)
    return f"Answers: {models}."


def show(results: Results, reporter: Reporter) -> None:
    """Print the scores and a table for each contrast."""
    stamp = "LIMITED RUN: not to be reported. " if results.limited else ""
    stamp += f"{results.stamp} " if results.stamp else ""
    scores = score_table(results)
    caption = f"{stamp}0 to 100, higher is better; 95 % intervals.\n{lengths(results)}"
    reporter.table(scores.title, scores.columns, scores.rows, caption=caption)
    for table in contrast_tables(results):
        reporter.table(table.title, table.columns, table.rows, caption=f"{stamp}Undecided is not equal.")
