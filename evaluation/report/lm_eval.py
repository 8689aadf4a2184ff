"""One model's results in the shape of lm-eval's results file (`lm_eval.result_schema.EvalResults`)."""

from __future__ import annotations

from typing import Any

from evaluation.metrics import RATES
from evaluation.records import Summary
from evaluation.report.data import RunData
from runs.identity import digest


def lm_eval_results(run: RunData, model: str) -> dict[str, Any]:
    """``results``, ``configs``, ``versions``, ``n-shot``, ``higher_is_better``, ``n-samples``, ``config``.

    A task is one of our metrics, with the one metric ``score``; the benchmarks of the run stand beside them under
    their own names.
    """
    own = [summary for summary in run.results.summaries if summary.model == model and summary.mean is not None]
    names = [summary.metric for summary in own]
    found: dict[str, Any] = {
        "results": {summary.metric: _task(summary) for summary in own},
        "group_subtasks": {"constitutional": names},
        "configs": {name: _config(run, name) for name in names},
        "versions": {name: run.results.versions.get(name) for name in names},
        "n-shot": dict.fromkeys(names, 0),
        "higher_is_better": {name: {"score": True} for name in names},
        "n-samples": {
            summary.metric: {
                "original": summary.scored + sum(summary.unscored.values()),
                "effective": summary.scored,
            }
            for summary in own
        },
        "task_hashes": {name: _task_hash(run, name) for name in names},
        "config": {
            "model": model,
            "model_args": run.results.identity.get("models", {}).get(model),
            "batch_size": run.results.config.get("batch_size"),
            "device": run.results.config.get("device"),
            "use_cache": None,
            "limit": run.results.config.get("limit"),
            "gen_kwargs": run.results.config["sampling"],
            "random_seed": run.results.config["sampling"]["seed"],
        },
        "git_hash": run.manifest.git.get("commit"),
        "date": run.manifest.created,
        "transformers_version": run.manifest.packages.get("transformers"),
        "total_evaluation_time_seconds": str(run.manifest.wall_seconds),
    }
    if run.benchmarks is not None and model in run.benchmarks.models:
        for key, value in run.benchmarks.models[model].items():
            if isinstance(value, dict) and key != "config":
                found[key] = {**found.get(key, {}), **value}
        found["lm_eval_version"] = run.benchmarks.lm_eval_version
    return found


def _task(summary: Summary) -> dict[str, Any]:
    return {
        "name": summary.metric,
        "alias": summary.metric,
        "sample_len": summary.scored,
        "score,none": summary.mean,
        "score_ci95,none": [summary.low, summary.high],
    }


def _config(run: RunData, metric: str) -> dict[str, Any]:
    return {
        "task": metric,
        "output_type": "generate_until",
        "generation_kwargs": run.results.config["sampling"],
        "metric_list": [{"metric": "score", "aggregation": "mean", "higher_is_better": True}],
        "description": "rate from response modes" if metric in RATES else "mean of an evaluator's values",
    }


def _task_hash(run: RunData, metric: str) -> str:
    """Digest of the prompts that the metric was asked on."""
    if metric in RATES:
        return digest(sorted(run.prompts))
    return digest(sorted({sample.prompt_id for sample in run.samples if metric in sample.scores}))
