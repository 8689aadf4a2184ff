"""The records of an evaluation: samples, contrasts, results."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from evaluation.scores import Judgement
from inference.records import FinishReason, Prompt
from runs.config import StrictModel


class Answer(StrictModel):
    """One model's answer to one prompt, as the append-only log of a run keeps it."""

    key: str
    """``model:prompt_id:sample``."""
    model: str
    prompt_id: str
    sample: int = 0
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seed: int


class Sample(StrictModel):
    """A line of samples.jsonl: prompt, answer, and what the evaluators say about it."""

    prompt_id: str
    model: str
    sample: int
    prompt: Prompt
    response: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seed: int
    mode: str
    """How the answer responds: ``complied``, ``engaged_refusal``, ``pseudo_refusal`` …"""
    scores: dict[str, Judgement]
    """Evaluator → judgement, for the evaluators that apply to the prompt."""


class Summary(StrictModel):
    """One metric of one model over the prompts that it applies to."""

    model: str
    metric: str
    mean: float | None
    """None when nothing was scored."""
    low: float | None
    high: float | None
    """95 % confidence interval of the mean."""
    scored: int
    unscored: dict[str, int]
    """Reason → count; these prompts are not in the mean."""


class Verdict(StrictModel):
    """A paired comparison of two models on one metric."""

    contrast: str
    """``stage3 - stage2``: the estimate is the first minus the second."""
    metric: str
    n: int
    """Prompts that both models have a value for."""
    dropped: int
    """Prompts on which at least one of the two has none."""
    estimate: float
    low: float
    high: float
    p: float
    p_adjusted: float
    """Holm within this run's family of contrasts × metrics."""
    effect_size: float | None
    """Cohen's d_z; None when every difference is the same non-zero number."""
    minimum_detectable_effect: float
    """The smallest mean difference that this design finds with 80 % power."""
    outcome: str
    """``better``, ``worse`` or ``undecided``."""
    sentence: str


class Results(StrictModel):
    """results.json: keys are lm-eval's where it has them (``results``, ``n-samples``, ``versions``, ``config``)."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_version: int = 1
    run_id: str
    results: dict[str, dict[str, Any]]
    """Model → ``metric,none``, as in lm-eval."""
    summaries: list[Summary]
    verdicts: list[Verdict]
    n_samples: dict[str, Any]
    versions: dict[str, str]
    """Evaluator → version."""
    identity: dict[str, Any]
    """What could have changed a result."""
    limited: bool
    """Whether --limit cut the prompts: such numbers are not to be reported."""
    config: dict[str, Any]
    stamp: str = ""
    """What a reader must know before any number, such as different generation settings; empty where nothing."""
    missing: dict[str, list[str]] = Field(default_factory=dict)
    """Model → ids of the prompts that it has no answer to."""
    configs: dict[str, Any] = Field(default_factory=dict)
    """From here on lm-eval's keys, with a model in the place of a task. Here: the model's identity."""
    n_shot: dict[str, int] = Field(default_factory=dict, alias="n-shot")
    higher_is_better: dict[str, dict[str, bool]] = Field(default_factory=dict)
    effective: dict[str, dict[str, int]] = Field(default_factory=dict, alias="n-samples")
    """Model → prompts asked (``original``) and answered (``effective``)."""
