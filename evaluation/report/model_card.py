"""A block for a model card: the hub's model-index in YAML, and the tables in Markdown."""

from __future__ import annotations

from typing import Any

import yaml

from evaluation.report import tables
from evaluation.report.data import RunData
from evaluation.report.grid import to_markdown


def model_card(run: RunData) -> str:
    """Markdown with the model-index as front matter; one entry a model of the run."""
    index = {"model-index": [_entry(run, model) for model in run.models]}
    front = yaml.safe_dump(index, sort_keys=False, allow_unicode=True, width=100)
    sentences = "".join(f"- {_escaped(verdict.sentence)}\n" for verdict in run.analysis.primary)
    parts = [
        f"---\n{front}---\n",
        "## Evaluation\n",
        f"{len(run.prompts)} prompts; run `{run.results.run_id[:12]}`."
        + (" **Limited run: not to be reported.**" if run.limited else "")
        + "\n",
        to_markdown(tables.levels_grid(run)),
        f"{tables.levels_grid(run).caption}\n",
        sentences,
    ]
    if run.benchmarks is not None:
        parts.append(to_markdown(tables.benchmark_grid(run)))
    return "\n".join(parts)


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;")


def _entry(run: RunData, model: str) -> dict[str, Any]:
    """A model's entry, as huggingface_hub reads it: task, dataset, metrics."""
    family = str(run.results.config["family"])
    own = [s for s in run.results.summaries if s.model == model and s.mean is not None]
    ours = {
        "task": {"type": "text-generation"},
        "dataset": {"type": "constitutional-ai-prompts", "name": f"{len(run.prompts)} prompts of this project"},
        "metrics": [
            {
                "type": summary.metric,
                "name": summary.metric.replace("_", " "),
                "value": round(float(summary.mean or 0.0), 4),
                "args": {"n": summary.scored, "low": _rounded(summary.low), "high": _rounded(summary.high)},
            }
            for summary in own
        ],
        "source": {"name": f"run {run.results.run_id[:12]}"},
    }
    return {"name": f"{family}-{model}", "results": [ours, *_benchmarks(run, model)]}


def _benchmarks(run: RunData, model: str) -> list[dict[str, Any]]:
    return [
        {
            "task": {"type": "text-generation"},
            "dataset": {"type": level.metric, "name": level.metric},
            "metrics": [{"type": "accuracy", "value": round(float(level.mean or 0.0), 4), "args": {"n": level.scored}}],
        }
        for level in run.analysis.benchmark_levels
        if level.model == model
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
