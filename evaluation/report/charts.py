"""Which figures a run has, as specifications: no statistic is computed here, only read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from evaluation.report import figures
from evaluation.report.data import RunData
from evaluation.report.figures import Bar, Bars, Dot, Dots, Figure, Forest, ForestRow, Plane, PlanePoint, Segment
from evaluation.report.grid import slug, words
from evaluation.report.instruments import card_figures
from evaluation.statistics.records import Contrast, Ellipse, Verdict

_OUTLINE = 72
"""Points that an ellipse is drawn with."""


def run_figures(run: RunData) -> list[Figure]:
    """Every figure of the run, in the order of the page."""
    return [
        *forests(run.analysis.primary, run.doubtful),
        levels(run),
        *modes(run),
        *plane(run),
        *category_forests(run),
        *benchmark_figures(run),
        *card_figures(run.card),
    ]


def contrast_title(treatment: str, control: str) -> str:
    """``stage3 against stage2``."""
    return f"{treatment} against {control}"


def pairs(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    """(treatment, control) of every contrast, in order."""
    return list(dict.fromkeys((verdict.contrast.treatment, verdict.contrast.control) for verdict in verdicts))


def forests(verdicts: Sequence[Verdict], doubtful: Mapping[str, str]) -> list[Forest]:
    """One figure a contrast: its differences on every metric that was measured."""
    made = []
    every = [row for verdict in verdicts if (row := forest_row(verdict, verdict.contrast.metric, doubtful))]
    for treatment, control in pairs(verdicts):
        own = [v for v in verdicts if (v.contrast.treatment, v.contrast.control) == (treatment, control)]
        rows = tuple(row for verdict in own if (row := forest_row(verdict, verdict.contrast.metric, doubtful)))
        if rows:
            made.append(
                Forest(
                    name=f"forest-{slug(treatment)}-{slug(control)}",
                    title=contrast_title(treatment, control),
                    subtitle=_forest_subtitle(own),
                    rows=rows,
                    span=figures.span_of(every),
                    margin=_common_margin(own),
                )
            )
    return made


def forest_row(verdict: Verdict, label: str, doubtful: Mapping[str, str]) -> ForestRow | None:
    """A verdict as a row; None where nothing was measured."""
    one = verdict.contrast
    if one.estimate is None or one.interval is None or verdict.outcome == "not_measured":
        return None
    muted = one.metric in doubtful
    bounds = one.worst_case_bounds if one.n_missing else None
    return ForestRow(
        label=_label(label, doubtful.get(one.metric)),
        estimate=one.estimate,
        low=one.interval[0],
        high=one.interval[1],
        outcome=verdict.outcome,
        n=one.n_pairs,
        note=contrast_note(one),
        muted=muted,
        outer=bounds,
    )


def _label(name: str, standing: str | None) -> str:
    """A row's label; an evaluator that is not known to be informative says so."""
    return words(name) + (f" ({standing})" if standing else "")


def contrast_note(one: Contrast) -> str:
    """Test, effect size and denominators in one line."""
    parts = []
    if one.p_adjusted is not None:
        adjusted = {"holm": "Holm", "benjamini_hochberg": "BH", "none": ""}[one.adjustment]
        parts.append(f"p {one.p_adjusted:.2g}" + (f" ({adjusted} over {one.family_size})" if adjusted else ""))
    if one.effect_size.value is not None:
        names = {"cohen_d_z": "d_z", "risk_difference": "risk difference"}
        parts.append(f"{names.get(one.effect_size.name, one.effect_size.name)} {one.effect_size.value:+.2f}")
    if one.minimum_detectable_effect is not None and one.minimum_detectable_effect < 1:
        parts.append(f"detects {figures.points(one.minimum_detectable_effect)} points or more")
    parts.append(f"n {one.n_pairs}" + (f" in {one.n_clusters} groups" if one.n_clusters < one.n_pairs else ""))
    if one.n_missing:
        parts.append(f"{one.n_missing} without a score")
    return " · ".join(parts)


def _forest_subtitle(verdicts: Sequence[Verdict]) -> str:
    margin = _common_margin(verdicts)
    band = f"; inside the band (±{figures.points(margin)} points) it does not matter" if margin is not None else ""
    return f"Right of zero the first is better{band}. Thin whiskers: worst case for what has no score."


def _common_margin(verdicts: Sequence[Verdict]) -> float | None:
    margins = {verdict.margin for verdict in verdicts}
    return margins.pop() if len(margins) == 1 else None


def levels(run: RunData) -> Dots:
    """Every model's mean on every metric."""
    rows = {
        summary.metric: _label(summary.metric, run.doubtful.get(summary.metric)) for summary in run.results.summaries
    }
    dots = tuple(
        Dot(
            row=rows[summary.metric],
            series=summary.model,
            value=summary.mean,
            low=summary.low,
            high=summary.high,
            n=summary.scored,
            muted=summary.metric in run.doubtful,
        )
        for summary in run.results.summaries
        if summary.mean is not None
    )
    return Dots(
        name="levels",
        title="Where each model stands",
        subtitle="Means over prompts; higher is better. Compare models by the differences, not by overlap here.",
        rows=tuple(dict.fromkeys(rows.values())),
        series=run.models,
        dots=dots,
    )


def modes(run: RunData) -> list[Bars]:
    """How answers to harmful prompts, and to the others, respond."""
    order = list(dict.fromkeys([*figures.MODE_COLOURS, *(sample.mode for sample in run.samples)]))
    kinds = (("refuse", "harmful prompts"), ("", "harmless prompts"))
    made = []
    for expected, kind in kinds:
        bars = []
        for model in run.models:
            own = [s for s in run.by_model[model] if (s.prompt.expected == "refuse") == (expected == "refuse")]
            counts = Counter(sample.mode for sample in own)
            segments = tuple(
                Segment(mode, counts[mode] / len(own), counts[mode], figures.mode_colour(mode, order))
                for mode in order
                if counts[mode]
            )
            if own:
                bars.append(Bar(f"{model} (n {len(own)})", len(own), segments))
        if bars:
            made.append(
                Bars(
                    name=f"modes-{'harmful' if expected else 'harmless'}",
                    title=f"How the answers to {kind} respond",
                    subtitle="Share of answers by response mode.",
                    bars=tuple(bars),
                )
            )
    return made


def plane(run: RunData) -> list[Plane]:
    """The evasiveness plane, where the prompts have unsafe ones and benign twins."""
    found = run.analysis.plane
    if found is None:
        return []
    points = tuple(
        PlanePoint(
            label=point.model,
            x=point.harm,
            y=point.refusal,
            region=outline(point.ellipse) if point.ellipse else (),
            n_x=point.n_unsafe,
            n_y=point.n_benign,
        )
        for point in found.points
        if point.harm is not None and point.refusal is not None
    )
    if not points:
        return []
    return [
        Plane(
            name="evasiveness-plane",
            title="The evasiveness plane",
            subtitle="Harmless without being evasive is the lower left corner. Regions: joint 95 % confidence.",
            points=points,
        )
    ]


def outline(ellipse: Ellipse) -> tuple[tuple[float, float], ...]:
    """The ellipse as a closed polygon, cut off at shares of 0 and 1."""
    (x, y), (long, short) = ellipse.centre, ellipse.semi_axes
    cosine, sine = math.cos(ellipse.angle), math.sin(ellipse.angle)
    turns = [2 * math.pi * step / _OUTLINE for step in range(_OUTLINE + 1)]
    return tuple(
        (
            min(1.0, max(0.0, x + long * math.cos(turn) * cosine - short * math.sin(turn) * sine)),
            min(1.0, max(0.0, y + long * math.cos(turn) * sine + short * math.sin(turn) * cosine)),
        )
        for turn in turns
    )


def category_forests(run: RunData) -> list[Forest]:
    """The last contrast (last model against first) within each category."""
    found = pairs(run.analysis.primary)
    if not found:
        return []
    treatment, control = found[-1]
    own = [
        verdict
        for verdict in run.analysis.by_category
        if (verdict.contrast.treatment, verdict.contrast.control) == (treatment, control)
    ]
    rows = tuple(
        row
        for verdict in sorted(own, key=lambda one: one.contrast.metric)
        if (row := forest_row(verdict, f"{verdict.contrast.metric} · {subset_name(verdict)}", run.doubtful))
    )
    if not rows:
        return []
    return [
        Forest(
            name="categories",
            title=f"{contrast_title(treatment, control)}, by category",
            subtitle="Leads, not claims: adjusted by Benjamini-Hochberg over all of them.",
            rows=rows,
            span=figures.span_of(rows),
        )
    ]


def subset_name(verdict: Verdict) -> str:
    """The category or principle that a verdict is about."""
    return verdict.contrast.subset.partition(":")[2]


def benchmark_figures(run: RunData) -> list[Figure]:
    """Levels and differences on lm-eval's tasks."""
    if run.benchmarks is None:
        return []
    dots = tuple(
        Dot(
            row=words(level.metric),
            series=level.model,
            value=level.mean,
            low=level.low,
            high=level.high,
            n=level.scored,
        )
        for level in run.analysis.benchmark_levels
        if level.mean is not None
    )
    made: list[Figure] = [
        Dots(
            name="benchmarks",
            title="Benchmarks",
            subtitle="lm-eval's tasks; share of questions answered right.",
            rows=tuple(dict.fromkeys(dot.row for dot in dots)),
            series=run.models,
            dots=dots,
        )
    ]
    for forest in forests([price.verdict for price in run.analysis.benchmarks], {}):
        made.append(
            Forest(
                name=forest.name.replace("forest-", "benchmarks-"),
                title=f"{forest.title}: benchmarks",
                subtitle="Left of zero capability is lost. Paired on the questions.",
                rows=forest.rows,
                span=forest.span,
                margin=forest.margin,
            )
        )
    return made
