"""What a study measures of a checkpoint, and how it differs from another one, prompt by prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from pydantic import Field

from critique_revision.text import ROLE_MARKER, words
from evaluation.evaluators.response_mode import REFUSALS
from evaluation.metrics import FULL_REFUSALS
from evaluation.records import Sample
from evaluation.statistics.mean import mean_interval
from runs.config import StrictModel

Value = Callable[[Sample], float | None]
"""A number of one answer; None where the measure does not apply to its prompt."""


HARMFUL, BENIGN = "refusals of harmful requests", "refusals of benign requests"


def _harmful(sample: Sample) -> bool:
    return sample.prompt.expected == "refuse"


def _score(name: str) -> Value:
    def value(sample: Sample) -> float | None:
        judgement = sample.scores.get(name)
        return None if judgement is None else judgement.value

    return value


MEASURES: dict[str, Value] = {
    HARMFUL: lambda row: float(row.mode in FULL_REFUSALS) if _harmful(row) else None,
    BENIGN: lambda row: None if _harmful(row) else float(row.mode in REFUSALS),
    "helpfulness": _score("helpfulness"),
    "harm prevention": _score("harm_prevention"),
    "words, benign requests": lambda row: None if _harmful(row) else float(len(words(row.response))),
    "cut at the limit": lambda row: float(row.finish_reason == "length"),
    "role markers": lambda row: float(ROLE_MARKER.search(row.response) is not None),
}
"""Genuine refusals only, engaged or bare, count on harmful requests; on benign ones, every mode that refuses."""


class Estimate(StrictModel):
    """A mean over prompts with its 95 % interval."""

    mean: float
    low: float | None
    high: float | None
    n: int
    """Prompts."""


class Row(StrictModel):
    """One checkpoint, or one group of seeds, of a study."""

    name: str
    about: str
    seeds: int
    pairs: int | None
    """Pairs that it was trained on; None: it is where the study starts from."""
    values: dict[str, Estimate]
    against: dict[str, dict[str, Estimate]]
    """Reference checkpoint → measure → paired difference, this minus the reference."""
    by_seed: dict[str, list[float]] = Field(default_factory=dict)
    """Measure → each seed's mean; the intervals are over prompts and do not hold what seeds add."""
    by_category: dict[str, dict[str, Estimate]] = Field(default_factory=dict)
    """Category of the prompts → measure → mean."""


class Outcome(StrictModel):
    """A finished study, without a word of its prompts."""

    title: str
    command: str
    prompts: dict[str, int]
    """Category → prompts."""
    max_new_tokens: int
    rows: list[Row]


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and interval over prompts: Wilson's for 0/1 values, else Student's t; None without values."""
    if not values:
        return None
    found = mean_interval(values)
    return Estimate(mean=found.mean, low=found.low, high=found.high, n=len(values))


def per_prompt(runs: Sequence[Sequence[Sample]], measure: Value) -> dict[str, float]:
    """Prompt → the measure's mean over the runs (seeds), for prompts to which it applies in all of them."""
    tables = [{row.prompt_id: value for row in run if (value := measure(row)) is not None} for run in runs]
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    return {key: fmean(table[key] for table in tables) for key in shared}


def row(
    name: str,
    about: str,
    runs: Sequence[Sequence[Sample]],
    references: Mapping[str, Sequence[Sample]],
    pairs: int | None,
) -> Row:
    """Measure a checkpoint.

    Args:
        name: of the checkpoint or group.
        about: what it is.
        runs: its answers, one list a seed; the unit is the prompt, so seeds are averaged first.
        references: checkpoint → answers, to compare with.
        pairs: training pairs.
    """
    values, by_seed, by_category = {}, {}, {}
    against: dict[str, dict[str, Estimate]] = {reference: {} for reference in references}
    for label, measure in MEASURES.items():
        own = per_prompt(runs, measure)
        if (found := estimate(list(own.values()))) is not None:
            values[label] = found
            by_seed[label] = [fmean(per_prompt([run], measure).values()) for run in runs]
        for reference, answers in references.items():
            other = per_prompt([answers], measure)
            apart = [own[key] - other[key] for key in own if key in other]
            if (found := estimate(apart)) is not None:
                against[reference][label] = found
    for category in sorted({sample.prompt.category for sample in runs[0]}):
        part = [[sample for sample in run if sample.prompt.category == category] for run in runs]
        measured = {label: estimate(list(per_prompt(part, measure).values())) for label, measure in MEASURES.items()}
        by_category[category] = {label: found for label, found in measured.items() if found is not None}
    return Row(
        name=name,
        about=about,
        seeds=len(runs),
        pairs=pairs,
        values=values,
        against=against,
        by_seed=by_seed,
        by_category=by_category,
    )
