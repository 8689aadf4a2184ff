"""Three figures of a filtered run, as PNG and SVG, drawn from its counts and its pairs alone.

Why candidates were rejected, which principles give pairs, and whether length tells the two sides apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from critique_revision.records import PreferencePair
from critique_revision.shares import share
from runs.atomic import make_folder
from runs.drawing import rows, save
from runs.errors import UserError
from runs.palette import BETTER, FAINT, GRID, INK, SERIES, WORSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = 112
"""Characters in a line of the subtitle."""
_MOST_ROWS = 40
"""Principles beyond so many are left out of the figure, and it says so."""


def draw(stats: dict[str, Any], pairs: Sequence[PreferencePair], folder: Path) -> list[Path]:
    """Write the figures that there are data for into ``folder``; the bytes depend on the data alone.

    Raises:
        UserError: there is nothing to draw, or the folder cannot be written.
    """
    if not stats["revisions"]:
        raise UserError("The run has no candidates; there is nothing to draw.")
    make_folder(folder)
    written = reasons_figure(stats, folder) + principles_figure(stats, folder)
    return written + (lengths_figure(stats, pairs, folder) if pairs else [])


def reasons_figure(stats: dict[str, Any], folder: Path) -> list[Path]:
    """How many candidates each reason rejected, and how many were accepted."""
    counts = [("accepted", stats["accepted"]), *sorted(stats["by_reason"].items(), key=lambda row: -row[1])]
    total = stats["revisions"]

    def plot(axes: Axes) -> None:
        for place, (name, count) in enumerate(counts):
            axes.barh(place, count, height=0.62, color=BETTER if name == "accepted" else WORSE)
            axes.annotate(
                f"{count}  ({count / total:.1%})", (count, place), xytext=(5, 0), textcoords="offset points",
                va="center", fontsize=8, color=INK,
            )  # fmt: skip
        rows(axes, [name.replace("_", " ") for name, _ in counts])
        axes.set_xlim(0, 1.14 * max(count for _, count in counts))
        axes.set_xlabel("candidates", fontsize=8.5)

    subtitle = f"{total} candidates of {stats['prompts']} prompts; each rejected one counts for its first reason."
    return save("reasons", "What became of the candidates", subtitle, 1.1 + 0.3 * len(counts), plot, folder, line=_LINE)


def principles_figure(stats: dict[str, Any], folder: Path) -> list[Path]:
    """Share of each principle's candidates that was accepted, with Wilson's interval."""
    found = [(name, share(row["accepted"], row["revisions"])) for name, row in stats["by_principle"].items()]
    ranked = sorted(found, key=lambda row: (-row[1]["share"], row[0]))
    shown, total = ranked[:_MOST_ROWS], share(stats["accepted"], stats["revisions"])

    def plot(axes: Axes) -> None:
        axes.axvline(100 * total["share"], color=FAINT, linewidth=1, linestyle=":")
        for place, (_, row) in enumerate(shown):
            low, high = row["interval"]
            axes.plot([100 * low, 100 * high], [place] * 2, color=SERIES[2], linewidth=2, solid_capstyle="butt")
            axes.plot(100 * row["share"], place, marker="o", markersize=5.5, color=SERIES[2])
            axes.annotate(
                f"{row['count']} of {row['n']}", (1.015, place), xycoords=("axes fraction", "data"),
                va="center", fontsize=8, color=INK, annotation_clip=False,
            )  # fmt: skip
        rows(axes, [name for name, _ in shown])
        axes.set_xlim(-1, 101)
        axes.set_xlabel("accepted, %, with 95 % interval (Wilson)", fontsize=8.5)

    subtitle = f"Dotted: all candidates, {total['share']:.0%}. Principles are drawn at random for each prompt."
    if len(ranked) > len(shown):
        subtitle += f" The {len(ranked) - len(shown)} least accepted of {len(ranked)} are not shown."
    height = 1.1 + 0.26 * max(len(shown), 3)
    return save("principles", "Which principles give pairs", subtitle, height, plot, folder, line=_LINE)


def lengths_figure(stats: dict[str, Any], pairs: Sequence[PreferencePair], folder: Path) -> list[Path]:
    """Words on either side: where the two differ, a model can learn length instead of what is meant."""
    sides = {
        "rejected": [len(pair.rejected[-1].content.split()) for pair in pairs],
        "chosen": [len(pair.chosen[-1].content.split()) for pair in pairs],
    }
    longest = max(map(max, sides.values()))
    bins = [longest * step / 30 for step in range(31)]

    def plot(axes: Axes) -> None:
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        for (name, values), colour, style in zip(sides.items(), (SERIES[1], SERIES[2]), ("--", "-"), strict=True):
            label = f"{name}: median {statistics.median(values):g} words"
            axes.hist(values, bins=bins, histtype="stepfilled", color=colour, alpha=0.16)
            axes.hist(values, bins=bins, histtype="step", color=colour, linewidth=1.6, linestyle=style)
            axes.axvline(statistics.median(values), color=colour, linewidth=1.2, linestyle=style)
            axes.plot([], [], color=colour, linewidth=1.6, linestyle=style, label=label)
        axes.tick_params(labelleft=True)
        axes.set_xlim(0, longest)
        axes.set_xlabel("words", fontsize=8.5)
        axes.set_ylabel("pairs", fontsize=8.5)
        axes.legend(frameon=False, fontsize=8.5)

    longer = share(sum(map(int.__gt__, sides["chosen"], sides["rejected"])), len(pairs))
    low, high = longer["interval"]
    subtitle = (
        f"Chosen is the longer side in {longer['count']} of {longer['n']} pairs, {longer['share']:.0%} "
        f"[{low:.0%}, {high:.0%}]. Vertical lines: medians."
    )
    return save("lengths", "Does length tell the two sides apart?", subtitle, 3.6, plot, folder, line=_LINE)
