"""From samples to verdicts: paired contrasts along the lineage, with intervals and adjusted p-values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from evaluation.config import EvaluationRun
from evaluation.evaluators.protocol import Evaluator
from evaluation.metrics import Metric, metrics_for
from evaluation.records import Results, Sample, Summary, Verdict
from evaluation.statistics.mean import mean_interval
from evaluation.statistics.multiplicity import holm
from evaluation.statistics.paired import PairedContrast, paired_contrast

ALPHA = 0.05


def contrasts(models: Sequence[str]) -> list[tuple[str, str]]:
    """The comparisons that a lineage declares: each model with the one before it, and the last with the first."""
    steps = [(later, earlier) for earlier, later in pairwise(models)]
    if len(models) > 2:
        steps.append((models[-1], models[0]))
    return steps


def compare(
    samples: Sequence[Sample],
    run: EvaluationRun,
    *,
    run_id: str,
    identity: dict[str, Any],
    evaluators: Sequence[Evaluator],
) -> Results:
    """Summaries of every model and verdicts on every contrast, from samples alone."""
    metrics = metrics_for([evaluator.name for evaluator in evaluators])
    by_model = {model: [sample for sample in samples if sample.model == model] for model in run.models}
    summaries = [
        summarise(model, name, metric, by_model[model]) for name, metric in metrics.items() for model in run.models
    ]
    return Results(
        run_id=run_id,
        results=_lm_eval_results(run.models, summaries),
        summaries=summaries,
        verdicts=_verdicts(by_model, metrics, run),
        n_samples={
            "prompts": len(next(iter(by_model.values()))),
            "cut_at_the_limit": {
                model: sum(s.finish_reason == "length" for s in own) for model, own in by_model.items()
            },
            "mean_tokens": {model: fmean(s.completion_tokens for s in own) for model, own in by_model.items()},
        },
        versions={evaluator.name: evaluator.version for evaluator in evaluators},
        identity=identity,
        limited=run.limit is not None,
        config=run.model_dump(mode="json", exclude={"prompts"}),
    )


def summarise(model: str, name: str, metric: Metric, samples: Sequence[Sample]) -> Summary:
    """Mean and interval of a metric over one model's samples, with what could not be scored, by reason."""
    found = [metric(sample) for sample in samples]
    values = [value for value in found if isinstance(value, float)]
    unscored = Counter(value for value in found if isinstance(value, str))
    interval = mean_interval(values) if values else None
    return Summary(
        model=model,
        metric=name,
        mean=interval.mean if interval else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        scored=len(values),
        unscored=dict(sorted(unscored.items())),
    )


def _verdicts(by_model: dict[str, list[Sample]], metrics: dict[str, Metric], run: EvaluationRun) -> list[Verdict]:
    cells = [
        (f"{later} - {earlier}", name, *_pairs(by_model[later], by_model[earlier], metric))
        for later, earlier in contrasts(run.models)
        for name, metric in metrics.items()
    ]
    cells = [cell for cell in cells if len(cell[2]) >= 2]
    tests = [paired_contrast(first, second, seed=run.sampling.seed) for _, _, first, second, _ in cells]
    adjusted = holm([test.p_value for test in tests])
    return [
        _verdict(contrast, name, test, p, dropped)
        for (contrast, name, _, _, dropped), test, p in zip(cells, tests, adjusted, strict=True)
    ]


def _pairs(later: Sequence[Sample], earlier: Sequence[Sample], metric: Metric) -> tuple[list[float], list[float], int]:
    """The values of both models on the prompts that both have a value for, and how many others there are."""
    first, second, dropped = [], [], 0
    for one, other in zip(later, earlier, strict=True):
        a, b = metric(one), metric(other)
        if isinstance(a, float) and isinstance(b, float):
            first.append(a)
            second.append(b)
        elif a is not None or b is not None:
            dropped += 1
    return first, second, dropped


def _verdict(contrast: str, name: str, test: PairedContrast, p_adjusted: float, dropped: int) -> Verdict:
    decided = p_adjusted < ALPHA and (test.low > 0 or test.high < 0)
    outcome = ("better" if test.estimate > 0 else "worse") if decided else "undecided"
    return Verdict(
        contrast=contrast,
        metric=name,
        n=test.n,
        dropped=dropped,
        estimate=test.estimate,
        low=test.low,
        high=test.high,
        p=test.p_value,
        p_adjusted=p_adjusted,
        effect_size=test.effect_size,
        minimum_detectable_effect=test.minimum_detectable_effect,
        outcome=outcome,
        sentence=_sentence(contrast, name, test, outcome),
    )


def _sentence(contrast: str, name: str, test: PairedContrast, outcome: str) -> str:
    later, earlier = contrast.split(" - ")
    points, low, high = (f"{100 * value:+.1f}" for value in (test.estimate, test.low, test.high))
    if outcome == "undecided":
        smallest = f"{100 * test.minimum_detectable_effect:.1f}"
        return (
            f"Cannot tell whether {later} differs from {earlier} in {name}: {points} points [{low}, {high}] over "
            f"{test.n} prompts, which can show effects of {smallest} points or more."
        )
    return f"{later} is {outcome} than {earlier} in {name}: {points} points [{low}, {high}] over {test.n} prompts."


def _lm_eval_results(models: Sequence[str], summaries: Sequence[Summary]) -> dict[str, dict[str, float | None]]:
    """The shape of lm-eval's ``results``: metric and filter as the key."""
    table: dict[str, dict[str, float | None]] = {model: {} for model in models}
    for summary in summaries:
        table[summary.model][f"{summary.metric},none"] = summary.mean
    return table
