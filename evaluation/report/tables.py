"""Tables for the page and for Markdown: what stands in each cell, from a run's statistics."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.records import Summary
from evaluation.report.charts import contrast_title, pairs, subset_name
from evaluation.report.data import RunData
from evaluation.report.figures import OUTCOMES, UNKNOWN_OUTCOME, points
from evaluation.report.grid import Cell, Grid, interval_text, words
from evaluation.statistics.records import PrincipleScore, Verdict

NOT_MEASURED = "not measured"


def levels_grid(run: RunData) -> Grid:
    """Means with intervals and denominators: rows are metrics, columns models."""
    rows, muted = [], set()
    for number, metric in enumerate(run.metrics):
        found = {summary.model: summary for summary in run.results.summaries if summary.metric == metric}
        if metric in run.doubtful:
            muted.add(number)
        unscored = sum(sum(summary.unscored.values()) for summary in found.values())
        rows.append(
            (
                Cell(words(metric), run.doubtful.get(metric, "")),
                *(level_cell(found.get(model)) for model in run.models),
                Cell(_denominators([found[model].scored for model in run.models if model in found])),
                Cell(str(unscored) if unscored else "0", _reasons(list(found.values()))),
            )
        )
    return Grid(
        columns=("metric", *run.models, "scored prompts", "unscored answers"),
        rows=tuple(rows),
        caption="Points of 100 with 95 % intervals; higher is better. Unscored answers are in no mean.",
        muted=frozenset(muted),
    )


def level_cell(summary: Summary | None) -> Cell:
    """A mean with its interval."""
    if summary is None or summary.mean is None:
        return Cell(NOT_MEASURED, look="unmeasured")
    if summary.low is None or summary.high is None:
        return Cell(points(summary.mean), look="interval")
    return Cell(points(summary.mean), _interval(summary.low, summary.high), "interval")


def _interval(low: float, high: float) -> str:
    """An interval of a mean, cut to the scale: a symmetric one can pass its ends."""
    return interval_text(max(0.0, low), min(1.0, high))


def _denominators(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else " / ".join(map(str, counts))


def _reasons(summaries: Sequence[Summary]) -> str:
    reasons: dict[str, int] = {}
    for summary in summaries:
        for reason, count in summary.unscored.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))


def verdict_cell(verdict: Verdict | None) -> Cell:
    """A difference with its interval and outcome."""
    if verdict is None or verdict.contrast.interval is None or verdict.contrast.estimate is None:
        return Cell(NOT_MEASURED, look="unmeasured")
    low, high = verdict.contrast.interval
    aside = f"{interval_text(low, high, signed=True)} n {verdict.contrast.n_pairs}"
    if verdict.outcome == "not_measured":
        return Cell(NOT_MEASURED, f"n {verdict.contrast.n_pairs}", "unmeasured")
    return Cell(points(verdict.contrast.estimate, signed=True), aside, verdict.outcome)


def category_grid(run: RunData) -> Grid:
    """The contrasts within each category."""
    return _drill_down_grid(run.analysis.by_category, "category", run)


def _drill_down_grid(verdicts: Sequence[Verdict], what: str, run: RunData) -> Grid:
    columns = pairs(verdicts)
    found = {(subset_name(v), v.contrast.metric, (v.contrast.treatment, v.contrast.control)): v for v in verdicts}
    keys = sorted({(subset, metric) for subset, metric, _ in found}, key=lambda key: (key[0], _rank(key[1], run)))
    rows = tuple(
        (
            Cell(words(subset)),
            Cell(words(metric), look="name"),
            *(verdict_cell(found.get((subset, metric, pair))) for pair in columns),
        )
        for subset, metric in keys
    )
    muted = frozenset(number for number, (_, metric) in enumerate(keys) if metric in run.doubtful)
    return Grid(
        columns=(what, "metric", *(contrast_title(*pair) for pair in columns)),
        rows=rows,
        caption=f"Differences in points with 95 % intervals; {_legend()} by Benjamini-Hochberg over all rows: leads to "
        "look into, not claims.",
        muted=muted,
    )


def _legend() -> str:
    return ", ".join(f"{look.sign} {outcome}" for outcome, look in OUTCOMES.items())


def _rank(metric: str, run: RunData) -> int:
    return run.metrics.index(metric) if metric in run.metrics else len(run.metrics)


def principle_grid(run: RunData, texts: dict[str, str]) -> Grid:
    """Scores by principle of the constitution, and how many prompts exercise each.

    Args:
        run: the run.
        texts: principle id → its sentence.
    """
    index = run.analysis.principles
    if index is None:
        return Grid(columns=("principle",), rows=())
    rows: list[tuple[Cell, ...]] = []
    for principle, count in index.coverage.items():
        own = [score for score in index.scores if score.principle == principle]
        measured = {(score.metric, score.model): score for score in own if score.status == "measured"}
        metrics = [metric for metric in run.metrics if any(key[0] == metric for key in measured)]
        down = max(1, len(metrics))
        head = (Cell(principle, texts.get(principle, ""), "text", down=down), Cell(str(count), down=down))
        if not metrics:
            why = next((score.why for score in own if score.n_prompts), "no prompt exercises it")
            across = len(run.models) + 1
            rows.append((*head, Cell(NOT_MEASURED, why, "unmeasured", across=across), *_covered(across - 1)))
        for metric in metrics:
            cells = [_principle_cell(measured.get((metric, model))) for model in run.models]
            rows.append((*head, Cell(words(metric), look="name"), *cells))
            head = (Cell("", down=0), Cell("", down=0))
    return Grid(
        columns=("principle", "prompts", "metric", *run.models),
        rows=tuple(rows),
        caption='Means in points with 95 % intervals. A principle without enough prompts reads "not measured", '
        "which is not a pass.",
    )


def _covered(count: int) -> list[Cell]:
    return [Cell("", across=0)] * count


def _principle_cell(score: PrincipleScore | None) -> Cell:
    if score is None or score.mean is None:
        return Cell(NOT_MEASURED, look="unmeasured")
    interval = f"{_interval(*score.interval)} " if score.interval else ""
    return Cell(points(score.mean), f"{interval}n {score.n_scored}", "interval")


def benchmark_grid(run: RunData) -> Grid:
    """lm-eval's tasks: levels, and what each stage costs."""
    columns = pairs([one.verdict for one in run.analysis.benchmarks])
    levels = {(level.metric, level.model): level for level in run.analysis.benchmark_levels}
    found = {
        (one.verdict.contrast.metric, (one.verdict.contrast.treatment, one.verdict.contrast.control)): one.verdict
        for one in run.analysis.benchmarks
    }
    tasks = list(dict.fromkeys(task for task, _ in levels))
    rows = tuple(
        (
            Cell(words(task)),
            *(level_cell(levels.get((task, model))) for model in run.models),
            *(verdict_cell(found.get((task, pair))) for pair in columns),
            Cell(_denominators([level.scored for (name, _), level in levels.items() if name == task])),
        )
        for task in tasks
    )
    return Grid(
        columns=("task", *run.models, *(contrast_title(*pair) for pair in columns), "questions"),
        rows=rows,
        caption=f"Share of right answers in points, and paired differences ({_legend()}), with 95 % intervals.",
    )


def lengths_grid(run: RunData) -> Grid:
    """How long the answers are: length can pass for quality."""
    rows = []
    for model, own in run.by_model.items():
        cut = sum(sample.finish_reason == "length" for sample in own)
        mean = sum(sample.completion_tokens for sample in own) / len(own) if own else 0.0
        missing = len(run.missing.get(model, []))
        cells = (
            Cell(model),
            Cell(str(len(own))),
            Cell(str(missing)),
            Cell(f"{mean:.0f}" if mean else "not known"),
            Cell(f"{cut} of {len(own)}"),
        )
        rows.append(cells)
    return Grid(columns=("model", "answers", "missing", "mean tokens", "cut at the limit"), rows=tuple(rows))


def outcome_look(outcome: str) -> str:
    """The sign of an outcome."""
    return OUTCOMES.get(outcome, UNKNOWN_OUTCOME).sign
