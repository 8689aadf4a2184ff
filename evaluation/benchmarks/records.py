"""What a benchmark leaves behind: lm-eval's own results by model, and each question's metrics for paired tests."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from runs.config import StrictModel


class BenchmarkSample(StrictModel):
    """One question of one task, as one model answered it.

    The question itself stays in its data set: lm-eval's digests say which it was.
    """

    model: str
    task: str
    filter: str
    """lm-eval's name of what was done to the answers before scoring; ``none``."""
    doc_id: int
    """Zero-based index in the task's split."""
    doc_hash: str
    prompt_hash: str
    target_hash: str
    target: str
    """The right answer, as lm-eval gives it."""
    metrics: dict[str, float]
    """``acc``, ``acc_norm``, ``exact_match`` …; those that are one number a question."""


class BenchmarkUnit(StrictModel):
    """One model on one requested task or group: the unit of work, a line of ``.work/benchmarks.jsonl``."""

    key: str
    """``model:requested name``."""
    model: str
    name: str
    lm_eval: dict[str, Any]
    """lm-eval's results, configs, versions, n-shot, n-samples, higher_is_better, task_hashes …"""
    samples: tuple[BenchmarkSample, ...]


class Benchmarks(StrictModel):
    """benchmarks.json."""

    schema_version: int = 1
    lm_eval_version: str
    limit: int | None
    """Questions a task; None is all. A limited number is not to be reported."""
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Model → what lm-eval says about it, in the shape of its results file."""
