"""Tables of what the filters, the bars and a reader found, for the command line."""

from __future__ import annotations

from typing import Any

from critique_revision.balance import balance, bars
from critique_revision.config import Dedup
from critique_revision.export import Exportable, preferred_text
from critique_revision.sheet import QUESTIONS
from runs.console import Reporter, plain
from runs.errors import UserError


def check_bars(data: Exportable, found: dict[str, Any], reporter: Reporter) -> UserError | None:
    """Show the bars and put them into ``found``; the error that names those that do not hold, if there are any."""
    dedup = Dedup.model_validate(found["settings"].get("dedup", {}))
    counted = balance(data.pairs, data.run.prompts, data.run.setup.constitution, dedup)
    held = bars(counted, found)
    found["bars"] = [bar.model_dump(mode="json") for bar in held]
    words = {True: "holds", False: "does NOT hold", None: "not measured"}
    rows = [[bar.name.replace("_", " "), words[bar.holds], bar.found, bar.limit] for bar in held]
    reporter.table("Bars", ["bar", "", "found", "limit"], rows, caption=f"on the {len(data.pairs)} pairs as written")
    broken = [bar for bar in held if bar.holds is False]
    if not broken:
        return None
    names = ", ".join(bar.name for bar in broken)
    why = "\n".join(f"{bar.name}: {bar.found} (limit: {bar.limit})." for bar in broken)
    return UserError(f"{len(broken)} of {len(held)} bars do not hold: {names}.", why=why)


def show_sheet(found: dict[str, Any], reporter: Reporter) -> None:
    """The reader's verdicts, each with its denominator."""
    rows = []
    for name in (*QUESTIONS, "agreement"):
        sides = {"chosen over rejected": found[name]} if name == "agreement" else found[name]
        for side, row in sides.items():
            share = "" if row["share"] is None else f"{row['share']:.1%}"
            interval = "" if row["interval"] is None else "–".join(f"{end:.1%}" for end in row["interval"])
            rows.append([f"{name.replace('_', ' ')}, {side}", f"{row['count']} of {row['n']}", share, interval])
    caption = f"{found['ties']} ties; empty cells are no verdicts; 95 % intervals (Wilson)"
    reporter.table("What the reader found", ["verdict", "n", "share", "interval"], rows, caption=caption)


def show_preferred(found: dict[str, Any], reporter: Reporter) -> None:
    """What an evaluator that selected nothing said of the pairs, where it was asked."""
    if found.get("chosen_preferred") is not None:
        reporter.say(f"Chosen preferred by an evaluator that selected nothing: {plain(preferred_text(found))}")
