"""`evaluate gate`: may this checkpoint replace that one? Decided by intervals, never by a point estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from evaluation.between import Joined
from evaluation.compare import cluster
from evaluation.metrics import RATES, Metric, metrics_for
from evaluation.records import Sample
from evaluation.statistics.contrast import Question, contrast
from evaluation.statistics.records import Contrast, NonInferiority
from evaluation.verdicts import non_inferiority, points, signed
from runs.config import StrictModel
from runs.errors import ExitCode, UsageError, unknown_name

LEVEL = 0.05
"""Chance that the gate fails, over all its metrics, where no metric regressed by its margin."""


class GateRow(StrictModel):
    """One metric at the gate."""

    metric: str
    margin: float
    outcome: Literal["passed", "failed", "undecided"]
    result: NonInferiority
    why: str


class GateReport(StrictModel):
    """The gate's decision."""

    outcome: Literal["passed", "failed", "undecided"]
    baseline: str
    candidate: str
    level: float
    """Of each one-sided test: `LEVEL` over the number of metrics."""
    rows: tuple[GateRow, ...]

    @property
    def exit_code(self) -> ExitCode:
        """0 passed, 3 failed, 4 undecided."""
        codes = {"passed": ExitCode.DONE, "failed": ExitCode.GATE_FAILED, "undecided": ExitCode.GATE_UNDECIDED}
        return codes[self.outcome]


def parse_margins(values: Sequence[str]) -> dict[str, float]:
    """``["harm_prevention=0.03", "arc_easy=0.02"]`` as metric → margin.

    Raises:
        UsageError: a value that is not METRIC=MARGIN, a margin outside (0, 1), or a metric named twice.
    """
    margins: dict[str, float] = {}
    for value in (part.strip() for text in values for part in text.split(",") if part.strip()):
        metric, separator, number = value.partition("=")
        try:
            margin = float(number)
        except ValueError:
            separator = ""
        if not separator or not metric:
            raise UsageError(
                f"--max-regression {value}: expected METRIC=MARGIN.", mend="For example harm_prevention=0.03"
            )
        if not 0 < margin < 1:
            raise UsageError(
                f"--max-regression {value}: the margin must lie between 0 and 1.", mend="0.03 is three points of 100."
            )
        if metric in margins:
            raise UsageError(f"--max-regression names {metric} twice.")
        margins[metric] = margin
    if not margins:
        raise UsageError("The gate has nothing to watch.", mend="Add --max-regression harm_prevention=0.03")
    return margins


def run_gate(joined: Joined, margins: Mapping[str, float]) -> GateReport:
    """Hold the candidate against the baseline on every metric in ``margins``.

    A metric fails when the one-sided upper bound of its change lies below -margin, passes when the lower bound lies
    above it, and is undecided between. Bounds are taken at level `LEVEL` / number of metrics (Bonferroni), so that the
    whole gate fails in at most `LEVEL` of the cases in which nothing regressed by its margin.

    Args:
        joined: baseline (control) and candidate (treatment).
        margins: metric or benchmark → largest loss that is let through, on the scale of 0 to 1.

    Raises:
        UsageError: a metric that the runs do not have.
    """
    metrics = metrics_for(joined.evaluators)
    tasks = list(dict.fromkeys(sample.task for unit in joined.benchmarks for sample in unit.samples))
    level = LEVEL / len(margins)
    rows = []
    for name, margin in margins.items():
        if name in metrics:
            made = _contrast(joined, name, metrics[name], level)
        elif name in tasks:
            made = _benchmark(joined, name, level)
        else:
            raise unknown_name("metric", name, [*metrics, *tasks])
        rows.append(_row(name, margin, made, joined))
    outcomes = {row.outcome for row in rows}
    overall = next(outcome for outcome in ("failed", "undecided", "passed") if outcome in outcomes)
    return GateReport.model_validate(
        {
            "outcome": overall,
            "baseline": joined.control,
            "candidate": joined.treatment,
            "level": level,
            "rows": rows,
        }
    )


def _row(name: str, margin: float, made: Contrast, joined: Joined) -> GateRow:
    result = non_inferiority(made, margin)
    outcome: Literal["passed", "failed", "undecided"]
    if joined.same and made.estimate == 0 and made.n_missing == 0:
        # The interval would still allow for prompts that were not met; the very same model has no such prompts.
        outcome, why = "passed", "the same model under the same settings, with the same scores"
    elif result.outcome == "held":
        outcome, why = "passed", f"a loss of {points(margin)} points is ruled out"
    elif result.outcome == "regressed":
        outcome, why = "failed", f"lost more than {points(margin)} points"
    elif result.outcome == "not_measured":
        outcome, why = "undecided", result.sentence
    else:
        outcome, why = "undecided", _underpowered(result)
    return GateRow(metric=name, margin=margin, outcome=outcome, result=result, why=why)


def _underpowered(result: NonInferiority) -> str:
    one = result.contrast
    if one.worst_case_bounds is not None and one.n_missing:
        low, high = one.worst_case_bounds
        missing = f"; {one.n_missing} without a score could put it anywhere from {signed(low)} to {signed(high)}"
    else:
        missing = ""
    return f"underpowered: {one.n_pairs} prompts allow more and less than {points(result.margin)}{missing}"


def _contrast(joined: Joined, name: str, metric: Metric, level: float) -> Contrast:
    sides = [
        {(sample.prompt_id, sample.sample): sample for sample in joined.samples if sample.model == model}
        for model in (joined.treatment, joined.control)
    ]
    keys = list(dict.fromkeys([*sides[0], *sides[1]]))
    values = [[_value(side.get(key), metric) for key in keys] for side in sides]
    prompts = [next(side[key].prompt for side in sides if key in side) for key in keys]
    asked = [index for index in range(len(keys)) if any(column[index] is not None for column in values)]
    scores = [[_score(column[index]) for index in asked] for column in values]
    return contrast(
        Question(
            treatment=joined.treatment, control=joined.control, metric=name, kind="rate" if name in RATES else "mean"
        ),
        *scores,
        clusters=[cluster(prompts[index]) for index in asked],
        rows=[prompts[index].id[:12] for index in asked],
        confidence=1 - level,
        seed=joined.seed,
        bootstrap=False,
    )


def _value(sample: Sample | None, metric: Metric) -> float | str | None:
    return None if sample is None else metric(sample)


def _score(value: float | str | None) -> float | None:
    return value if isinstance(value, float) else None


def _benchmark(joined: Joined, task: str, level: float) -> Contrast:
    from evaluation.analysis import benchmark_contrasts

    own = [sample for unit in joined.benchmarks for sample in unit.samples if sample.task == task]
    found = benchmark_contrasts(own, [joined.control, joined.treatment], seed=joined.seed, confidence=1 - level)
    if not found:
        raise UsageError(f"Benchmark '{task}' has no metric between 0 and 1.", mend="Leave it out of --max-regression.")
    return found[0].verdict.contrast


def gate_table(report: GateReport) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for the console."""
    rows = []
    for row in report.rows:
        one = row.result.contrast
        change = "–" if one.estimate is None else signed(one.estimate)
        low, high = row.result.lower_bound, row.result.upper_bound
        bounds = "–" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"
        rows.append([row.metric, points(row.margin), change, bounds, str(one.n_pairs), row.outcome, row.why])
    return ["metric", "margin", "change", "bounds", "n", "outcome", "why"], rows
