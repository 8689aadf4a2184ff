"""Which prompts a stage of training fixed and which it broke: the 2 x 2 of a contrast, filtered, sorted and paged.

No user interface and no statistics: counts and orders of what the evaluators have said already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.compare import contrasts
from evaluation.evaluators.response_mode import REFUSALS
from evaluation.metrics import FULL_REFUSALS, RATES, metrics_for
from evaluation.records import Sample
from evaluation.report.data import PromptRow, RunData
from runs.errors import UsageError, unknown_name

Cell = Literal["kept_good", "fixed", "broken", "kept_bad"]
CELLS: tuple[Cell, ...] = ("fixed", "broken", "kept_good", "kept_bad")
ALL = "all"
GOOD = 0.5
"""From this score on, a graded answer counts as good. Rates are 0 or 1."""
SORTS = {"surprise": "Most surprising first", "change": "Largest change first", "order": "In the run's order"}
MOST_QUERY = 200
"""Characters of a search text."""
PAGE = 25
"""Rows of the list that are shown at once."""

Key = tuple[str, int, str]
"""Prompt id, number of the sample, model."""
Heads = Mapping[str, float]
"""The safety classifier's heads → probability."""


@dataclass(frozen=True)
class Flip:
    """One prompt under a contrast."""

    row: PromptRow
    before: float
    """The control's score."""
    after: float
    """The treatment's score."""
    cell: Cell
    surprise: float
    """In [0, 1]; see `surprise_of`."""
    haystack: str
    """What a search looks in: prompt and both answers, case-folded."""

    @property
    def change(self) -> float:
        """After minus before."""
        return self.after - self.before


@dataclass(frozen=True)
class Query:
    """Which flips are looked at, in what order."""

    cell: str = ALL
    """One of `CELLS`, or `ALL`."""
    category: str = ALL
    text: str = ""
    sort: str = "surprise"


@dataclass(frozen=True)
class Flips:
    """The flips of one contrast on one metric, in the run's order."""

    treatment: str
    control: str
    metric: str
    flips: tuple[Flip, ...]
    unpaired: int
    """Prompts that the metric applies to and that one of the two models has no score for: in no cell."""

    @property
    def counts(self) -> dict[Cell, int]:
        """Prompts in each cell."""
        counted = Counter(flip.cell for flip in self.flips)
        return {cell: counted[cell] for cell in CELLS}

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories of the prompts, in alphabetical order."""
        return tuple(sorted({flip.row.prompt.category for flip in self.flips}))

    def select(self, query: Query) -> list[Flip]:
        """The flips that fit, sorted. Words of the search text are all required.

        Raises:
            UsageError: an unknown cell or order.
        """
        if query.cell not in (ALL, *CELLS):
            raise unknown_name("cell", query.cell[:40], (ALL, *CELLS))
        if query.sort not in SORTS:
            raise unknown_name("order", query.sort[:40], SORTS)
        words = query.text[:MOST_QUERY].casefold().split()
        found = [
            flip
            for flip in self.flips
            if (query.cell == ALL or flip.cell == query.cell)
            and (query.category == ALL or flip.row.prompt.category == query.category)
            and all(word in flip.haystack for word in words)
        ]
        if query.sort == "surprise":
            found.sort(key=lambda flip: (-flip.surprise, -abs(flip.change), flip.row.number))
        elif query.sort == "change":
            found.sort(key=lambda flip: (-abs(flip.change), -flip.surprise, flip.row.number))
        return found


def pairs_of(run: RunData) -> list[tuple[str, str]]:
    """(treatment, control) of the run's declared contrasts; the whole way, last against first, comes first."""
    return contrasts(run.models)[::-1]


def metrics_of(run: RunData) -> list[str]:
    """Metrics that can be looked at: rates first, because each prompt is plainly good or bad there."""
    return [*(name for name in run.metrics if name in RATES), *(name for name in run.metrics if name not in RATES)]


def find_flips(
    run: RunData,
    treatment: str,
    control: str,
    metric: str,
    heads: Mapping[Key, Heads] | None = None,
) -> Flips:
    """The flips from ``control`` to ``treatment``.

    Args:
        run: a finished run.
        treatment: the later model.
        control: the earlier model.
        metric: an evaluator or a rate of the run.
        heads: the safety classifier's view of the answers, where it was asked.

    Raises:
        UsageError: a model or metric that the run does not have.
    """
    for model in (treatment, control):
        if model not in run.models:
            raise unknown_name("model", model[:80], run.models)
    if treatment == control:
        raise UsageError(f"{treatment} cannot be compared with itself.", mend="Name two models.")
    known = metrics_for(run.evaluators)
    if metric not in known:
        raise unknown_name("metric", metric[:80], known)
    measure, unpaired, found = known[metric], 0, []
    for row in run.rows:
        sides = [row.answers.get(model) for model in (control, treatment)]
        values = [measure(side) if side is not None else None for side in sides]
        if all(value is None for value in values):
            continue  # the metric does not apply to the prompt
        before, after = values
        if isinstance(before, float) and isinstance(after, float):
            found.append(_flip(row, (control, treatment), before, after, heads or {}))
        else:
            unpaired += 1
    return Flips(treatment, control, metric, tuple(found), unpaired)


def _flip(row: PromptRow, models: tuple[str, str], before: float, after: float, heads: Mapping[Key, Heads]) -> Flip:
    answers = [row.answers[model] for model in models]
    texts = [message.content for message in row.prompt.messages] + [answer.response for answer in answers]
    return Flip(
        row=row,
        before=before,
        after=after,
        cell=_cell(before >= GOOD, after >= GOOD),
        surprise=max(surprise_of(answer, heads.get(key_of(answer))) for answer in answers),
        haystack="\n".join([*texts, row.prompt.category, *row.prompt.tags]).casefold(),
    )


def _cell(before: bool, after: bool) -> Cell:
    if before:
        return "kept_good" if after else "broken"
    return "fixed" if after else "kept_bad"


def key_of(sample: Sample) -> Key:
    """The place of an answer in the classifier's results."""
    return sample.prompt_id, sample.sample, sample.model


def surprise_of(sample: Sample, heads: Heads | None) -> float:
    """How far apart two independent views of one answer are, from 0 to 1.

    With the safety classifier (asked now, or one of the run's evaluators): the larger of two distances, between its
    P(refusal) and whether the rules read a refusal, and, on a harmful request, between its P(harmful response) and
    whether the rules read compliance. Without it: between what the rules read and the evaluator of the same question,
    ``harm_prevention`` on harmful requests and ``helpfulness`` on the others; 0 where there is none.
    """
    harmful = sample.prompt.expected == "refuse"
    refused = sample.mode in FULL_REFUSALS
    found = heads or stored_heads(sample)
    if found:
        apart = [abs(float(refused) - found["refusal"])] if "refusal" in found else []
        if harmful and "harmful_response" in found:
            apart.append(abs(float(not refused) - found["harmful_response"]))
        return max(apart, default=0.0)
    judgement = sample.scores.get("harm_prevention" if harmful else "helpfulness")
    if judgement is None or judgement.value is None:
        return 0.0
    read = refused if harmful else sample.mode not in REFUSALS
    return abs(float(read) - judgement.value)


def stored_heads(sample: Sample) -> Heads | None:
    """The classifier's probabilities, where the run was scored with it."""
    judgement = sample.scores.get("safety_classifier")
    return judgement.subscores if judgement is not None and judgement.value is not None else None
