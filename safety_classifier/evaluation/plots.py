"""The report's figures, drawn from the results alone: one look, honest axes, intervals wherever there are any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from safety_classifier.evaluation.fairness import Bias
from safety_classifier.evaluation.intervals import Estimate
from safety_classifier.evaluation.metrics import MACRO
from safety_classifier.evaluation.results import CLASSIFIER, Results
from safety_classifier.evaluation.style import (
    COLOURS,
    MARKERS,
    NAMES,
    colour_of,
    grid,
    legend_entry,
    short,
    styled,
    words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 10
"""Heads with fewer positive rows are left out of the curves: a handful of rows draws no curve."""
ROW = 0.26
"""Height of one row of a forest plot, in inches."""
CAPTIONS: dict[str, str] = {
    "scorers": (
        "Macro averages over the headline categories on the held-out test split, with 95 % bootstrap intervals."
    ),
    "precision_recall": (
        "Precision against recall on the test split; the legend gives the average precision, the dotted line "
        "the share of positives. Heads with fewer than ten positive rows are left out."
    ),
    "reliability": (
        "Reliability before and after calibration on the test split: share of positives against mean "
        "probability in 15 bins of equal mass; ECE before → after."
    ),
    "sources": (
        "AUROC within each source of the test split (sources with at least ten rows of either class; positive"
        " / negative rows), where the style of a source cannot give the label away. 0.5 is chance."
    ),
    "attacks": (
        "Loss of AUROC under each attack (clean minus attacked, the same rows), with 95 % paired bootstrap "
        "intervals: mean of the headline categories, and each of them. The dotted line is a loss of 0.03."
    ),
    "bias": (
        "Fairness by identity on template sentences: AUC of harmful against harmless sentences that name the "
        "group (subgroup), of harmless ones that name it against other harmful ones (BPSN), and of harmful "
        "ones that name it against other harmless ones (BNSP). Groups are ordered by their worst BPSN; the "
        "dotted line is 0.80."
    ),
    "suites": (
        "Sets that were never trained on: AUROC of every task with both classes, with 95 % bootstrap intervals."
    ),
    "functionalities": (
        "HateCheck's functional tests: accuracy at the frozen threshold, with 95 % bootstrap intervals. "
        "Filled: hateful cases, which should be flagged; hollow: cases that should not."
    ),
}
"""Figure to what it shows, for a reader who sees nothing else."""


def draw_all(results: Results) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of every plot that the results have data for."""
    drawers = (scorers, precision_recall, reliability, sources, attacks, bias, suites, functionalities)
    for drawer in drawers:
        with styled():
            figure = drawer(results)
        if figure is not None:
            yield drawer.__name__, CAPTIONS[drawer.__name__], figure


def scorers(results: Results) -> Figure | None:
    """Macro averages beside the baselines."""
    shown = {
        "f1": "F1 at the frozen threshold",
        "auprc": "AUPRC",
        "auroc": "AUROC",
        "recall_fpr_1": "recall at 1 % FPR",
    }
    names = list(results.tables)
    figure, axes = grid(1, len(shown), width=2.6, height=0.9 + ROW * 1.3 * len(names), sharey=True)
    for axis, (metric, title) in zip(axes, shown.items(), strict=True):
        for row, name in enumerate(names):
            estimate = results.tables[name].macro.metrics.get(metric)
            if estimate is not None:
                _point(axis, estimate, row, name, label=True)
        axis.set_title(title)
        axis.set_xlim(-0.03, 1.12)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axis.set_yticks(range(len(names)), [NAMES.get(name, name) for name in names])
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
    return figure


def precision_recall(results: Results) -> Figure | None:
    """Precision against recall."""
    heads = [
        head
        for head, curves in results.curves.items()
        if CLASSIFIER in curves and results.tables[CLASSIFIER].heads[head].positives >= FEW
    ]
    if not heads:
        return None
    figure, axes = grid(-(-len(heads) // 4), min(4, len(heads)), width=2.7, height=3.3)
    for axis, head in zip(axes, heads, strict=False):
        for name, curve in results.curves[head].items():
            if name == "always_safe":
                continue
            average = results.tables[name].heads[head].metrics["auprc"].value or 0.0
            first = name == CLASSIFIER
            # A threshold has one precision for all the recall that it adds: steps, whose area is the AUPRC.
            axis.plot(
                (0.0, *curve.recall),
                (curve.precision[0], *curve.precision),
                color=colour_of(name),
                lw=2.0 if first else 1.2,
                zorder=3 if first else 2,
                drawstyle="steps-pre",
                label=f"{short(name)} {average:.2f}",
            )
        axis.axhline(results.curves[head][CLASSIFIER].prevalence, color="#777777", lw=1, ls=":")
        axis.set(title=words(head), xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axis.set_xticks([0, 0.5, 1])
        axis.set_aspect("equal", adjustable="box")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, handlelength=1.0, columnspacing=1.0)
    _hide(axes[len(heads) :])
    return figure


def reliability(results: Results) -> Figure | None:
    """Reliability diagrams before and after calibration."""
    heads = list(results.reliability)
    if not heads:
        return None
    figure, axes = grid(-(-len(heads) // 4), min(4, len(heads)), width=2.7, height=2.9)
    for axis, head in zip(axes, heads, strict=False):
        one = results.reliability[head]
        axis.plot([0, 1], [0, 1], color="#777777", lw=1, ls=":", zorder=2)
        for parts, colour, marker, label in (
            (one.before, "#999999", "s", "before"),
            (one.after, COLOURS[CLASSIFIER], "o", "after"),
        ):
            axis.plot(
                [part.confidence for part in parts],
                [part.frequency for part in parts],
                color=colour,
                marker=marker,
                ms=3.5,
                lw=1.3,
                label=label,
                zorder=3,
                clip_on=False,
            )
        axis.set(xlim=(0, 1), ylim=(0, 1), title=words(head), xlabel="mean probability", ylabel="share of positives")
        ece = f"ECE {one.ece_mass[0]:.3f} → {one.ece_mass[1]:.3f}"
        axis.text(0.97, 0.05, ece, ha="right", transform=axis.transAxes, bbox={"fc": "white", "ec": "none", "pad": 1.5})
        axis.set_aspect("equal", adjustable="box")
    handles = [legend_entry("#999999", "s", "before"), legend_entry(COLOURS[CLASSIFIER], "o", "after")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    _hide(axes[len(heads) :])
    return figure


def sources(results: Results) -> Figure | None:
    """A forest of the AUROC within each source."""
    rows = results.within_source[CLASSIFIER]
    if not rows:
        return None
    figure, axes = grid(1, 1, width=6.5, height=0.9 + ROW * len(rows))
    keys = [(one.head, one.source) for one in rows]
    for number, (name, found) in enumerate(results.within_source.items()):
        shift = 0.16 * (number - (len(results.within_source) - 1) / 2)
        for one in found:
            _point(axes[0], one.auroc, keys.index((one.head, one.source)) + shift, name)
    labels = [f"{words(one.head)} · {one.source} ({one.positives:,} / {one.negatives:,})" for one in rows]
    _rows(axes[0], labels)
    axes[0].axvline(0.5, color="#777777", lw=1, ls=":")
    axes[0].set_xlabel("AUROC within the source")
    axes[0].set_xlim(right=1.005)
    _legend(figure, list(results.within_source))
    return figure


def attacks(results: Results) -> Figure | None:
    """A forest of the losses under attack."""
    if not results.attacks.get(CLASSIFIER):
        return None
    heads = list(dict.fromkeys(one.head for one in results.attacks[CLASSIFIER]))
    names = list(dict.fromkeys(one.attack for one in results.attacks[CLASSIFIER]))
    figure, axes = grid(1, len(heads), width=2.5, height=1.0 + ROW * 1.2 * len(names), sharey=True, sharex=True)
    for axis, head in zip(axes, heads, strict=True):
        for number, (name, found) in enumerate(results.attacks.items()):
            shift = 0.2 * (number - (len(results.attacks) - 1) / 2)
            for one in found:
                if one.head == head:
                    _point(axis, one.loss, names.index(one.attack) + shift, name)
        _rows(axis, [words(name) for name in names])
        axis.axvline(0, color="#444444", lw=0.8)
        axis.axvline(0.03, color="#777777", lw=1, ls=":")
        axis.set_title("mean of the categories" if head == MACRO else words(head))
        axis.set_xlabel("loss of AUROC")
    _legend(figure, list(results.attacks))
    return figure


def bias(results: Results) -> Figure | None:
    """The three AUCs of each identity."""
    if CLASSIFIER not in results.fairness or not results.fairness[CLASSIFIER].templates:
        return None
    found = results.fairness[CLASSIFIER].templates
    order = _worst_first(found.values())
    figure, axes = grid(1, len(found), width=3.6, height=1.0 + 0.17 * len(order), sharey=True, sharex=True)
    kinds = (("subgroup", "#009E73", "D"), ("bnsp", "#E69F00", "s"), ("bpsn", COLOURS[CLASSIFIER], "o"))
    for axis, (head, one) in zip(axes, found.items(), strict=True):
        for group in one.groups:
            place = order.index(group.group)
            for kind, colour, marker in kinds:
                estimate: Estimate = getattr(group, kind)
                if estimate.value is None:
                    continue
                if kind == "bpsn" and estimate.low is not None and estimate.high is not None:
                    axis.plot([estimate.low, estimate.high], [place, place], color=colour, lw=1, alpha=0.6)
                axis.plot(estimate.value, place, marker=marker, color=colour, ms=4, ls="", label=kind.upper())
        _rows(axis, order)
        axis.axvline(0.8, color="#777777", lw=1, ls=":")
        axis.set_title(words(head))
        axis.set_xlabel("AUC")
    left = min(_left(getattr(group, kind)) for one in found.values() for group in one.groups for kind, *_ in kinds)
    axes[0].set_xlim(left - 0.02, 1.015)
    handles = [
        legend_entry(colour, marker, kind.upper() if kind != "subgroup" else kind)
        for kind, colour, marker in reversed(kinds)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def suites(results: Results) -> Figure | None:
    """AUROC and AUPRC on the suites."""
    keys = [
        (suite, task)
        for suite, found in results.suites.items()
        for task, answer in found[CLASSIFIER].tasks.items()
        if answer.metrics["auroc"].value is not None and not task.startswith("key ")
    ]
    if not keys:
        return None
    figure, axes = grid(1, 2, width=3.3, height=1.0 + ROW * 1.3 * len(keys), sharey=True)
    names = [name for name in next(iter(results.suites.values())) if name != "always_safe"]
    for axis, metric in zip(axes, ("auroc", "auprc"), strict=True):
        for number, name in enumerate(names):
            shift = 0.17 * (number - (len(names) - 1) / 2)
            for row, (suite, task) in enumerate(keys):
                _point(axis, results.suites[suite][name].tasks[task].metrics[metric], row + shift, name)
        _rows(axis, [f"{suite}: {words(task)}" for suite, task in keys])
        axis.set_xlabel(metric.upper())
        axis.set_xlim(right=1.03)
    _legend(figure, names)
    return figure


def functionalities(results: Results) -> Figure | None:
    """HateCheck's functional tests."""
    found = results.suites.get("hatecheck")
    if found is None:
        return None
    slices = sorted(found[CLASSIFIER].breakdown["functionality"], key=lambda one: (one.positives == 0, one.value))
    figure, axes = grid(1, 1, width=5.5, height=0.9 + 0.22 * len(slices))
    for row, one in enumerate(slices):
        _point(axes[0], one.accuracy, row, CLASSIFIER, hollow=one.positives == 0)
    _rows(axes[0], [f"{one.value} ({one.rows:,})" for one in slices])
    axes[0].set(xlabel="accuracy", xlim=(-0.02, 1.02))
    return figure


def _left(estimate: Estimate) -> float:
    return min(value for value in (estimate.value, estimate.low, 1.0) if value is not None)


def _worst_first(biases: Iterable[Bias]) -> list[str]:
    worst: dict[str, float] = {}
    for one in biases:
        for group in one.groups:
            value = group.bpsn.value if group.bpsn.value is not None else 1.0
            worst[group.group] = min(worst.get(group.group, 2.0), value)
    return sorted(worst, key=lambda group: worst[group])


def _point(
    axis: Axes, estimate: Estimate, place: float, name: str, *, label: bool = False, hollow: bool = False
) -> None:
    if estimate.value is None:
        return
    colour = colour_of(name)
    if estimate.low is not None and estimate.high is not None:
        axis.plot([estimate.low, estimate.high], [place, place], color=colour, lw=1.5, solid_capstyle="butt", zorder=2)
    axis.plot(
        estimate.value,
        place,
        marker=MARKERS.get(name, "v"),
        color=colour,
        ms=4.5,
        ls="",
        zorder=3,
        markerfacecolor="white" if hollow else colour,
    )
    if label:
        edge = estimate.high if estimate.high is not None else estimate.value
        axis.annotate(
            f"{estimate.value:.2f}", (edge, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )


def _rows(axis: Axes, labels: Sequence[str]) -> None:
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)


def _legend(figure: Figure, names: Sequence[str]) -> None:
    if len(names) > 1:
        handles = [legend_entry(colour_of(name), MARKERS.get(name, "v"), NAMES.get(name, name)) for name in names]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(names))


def _hide(axes: Sequence[Axes]) -> None:
    for axis in axes:
        axis.set_visible(False)
