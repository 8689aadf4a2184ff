"""Is a set of pairs fit to train on? Counts of what spoils one, and the bars that they are held to.

Everything is counted on the pairs themselves, not taken over from the filters: whatever made the pairs, the bars hold
or they do not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from critique_revision.config import Dedup
from critique_revision.constitution import PrinciplesConstitution
from critique_revision.dedup import NearTexts
from critique_revision.dialogue import conversation_text
from critique_revision.filters import similarity
from critique_revision.records import ChosenPrompt, PreferencePair
from critique_revision.shares import share
from inference.records import normalise
from inference.splits import first_turn_id
from runs.config import StrictModel

NEAR = 0.9
"""The two sides of a pair are near-identical from this share of words in common; no setting of the filters moves it."""
MOST_NEAR = 0.01
"""Largest share of pairs whose sides are near-identical. What such pairs teach is noise."""
LARGEST_SHARE = 3.0
"""Largest multiple of its fair share that one principle may have of the pairs."""


class Bar(StrictModel):
    """One thing that a set of pairs must keep to."""

    name: str
    holds: bool | None
    """None: it does not apply, or was not measured."""
    found: str
    limit: str


def balance(
    pairs: Sequence[PreferencePair],
    prompts: Sequence[ChosenPrompt],
    constitution: PrinciplesConstitution,
    dedup: Dedup,
) -> dict[str, Any]:
    """Copies, principles and splits of a set of pairs.

    ``near_duplicates`` counts the pairs whose prompt is nearly that of an earlier pair with another prompt and the
    same tag; ``duplicates`` those with the same prompt and the same chosen text as an earlier one.
    """
    sides = [(pair.chosen[-1].content, pair.rejected[-1].content) for pair in pairs]
    same = [normalise(chosen) == normalise(rejected) for chosen, rejected in sides]
    near = [not equal and similarity(*both) >= NEAR for equal, both in zip(same, sides, strict=True)]
    seen = Counter((pair.prompt_id, normalise(chosen)) for pair, (chosen, _) in zip(pairs, sides, strict=True))
    return {
        "pairs": len(pairs),
        "identical": sum(same),
        "near_identical": share(sum(near), len(pairs)),
        "duplicates": len(pairs) - len(seen),
        "near_duplicates": _near_duplicates(pairs, dedup),
        "principles": principles(pairs, prompts, constitution),
        "splits": splits(pairs),
    }


def _near_duplicates(pairs: Sequence[PreferencePair], dedup: Dedup) -> int:
    texts, found = NearTexts(dedup), 0
    for pair in pairs:
        text = conversation_text(pair.prompt)
        earlier = [pairs[number] for number in texts.near(text)]
        found += any(other.prompt_id != pair.prompt_id and other.tag == pair.tag for other in earlier)
        texts.add(text)
    return found


def principles(
    pairs: Sequence[PreferencePair], prompts: Sequence[ChosenPrompt], constitution: PrinciplesConstitution
) -> dict[str, Any]:
    """How many pairs each principle had a part in, and the one that stands out most.

    A principle's fair share is what it would have if each draw were uniform over the principles that the pair's
    prompt may have: harmless prompts draw from other categories than red-team ones.
    """
    categories = {prompt.prompt_id: prompt.categories for prompt in prompts}
    eligible: dict[tuple[str, ...], list[str]] = {
        key: [row.id for row in constitution.principles if not key or row.category in key]
        for key in {*categories.values(), ()}
    }
    reachable = {name for key in set(categories.values()) for name in eligible[key]}
    used: Counter[str] = Counter()
    fair: dict[str, float] = defaultdict(float)
    for pair in pairs:
        used.update(pair.principle_ids)
        names = eligible[categories.get(pair.prompt_id, ())]
        for name in names:
            fair[name] += len(pair.principle_ids) / len(names)
    largest = max(used, key=lambda name: (used[name] / fair[name] if fair[name] else 0.0, name), default=None)
    total = sum(used.values())
    return {
        "of": len(reachable),
        "used": len(reachable & used.keys()),
        "unused": sorted(reachable - used.keys()) if used else [],
        "pairs": dict(sorted(used.items())),
        "largest": None
        if largest is None
        else {
            "principle": largest,
            "share": round(used[largest] / total, 4),
            "fair_share": round(fair[largest] / total, 4),
            "times": round(used[largest] / fair[largest], 2) if fair[largest] else None,
        },
    }


def splits(pairs: Sequence[PreferencePair]) -> dict[str, int]:
    """Pairs on each side of the split, and prompts (by their first user turn) that are on both."""
    sides: dict[str, set[str]] = {}
    for pair in pairs:
        if pair.split is not None:
            sides.setdefault(pair.split, set()).add(first_turn_id(pair.prompt))
    counts = Counter(pair.split or "unsplit" for pair in pairs)
    both = sides.get("train", set()) & sides.get("holdout", set())
    return {**dict(sorted(counts.items())), "prompts_on_both": len(both)}


def bars(found: dict[str, Any], stats: dict[str, Any]) -> list[Bar]:
    """Which bars hold.

    Args:
        found: from `balance`.
        stats: of the run that the pairs come from; what it did not measure is a bar with ``holds`` None.
    """
    near, rows, largest = found["near_identical"], found["principles"], found["principles"]["largest"]
    unused = rows["unused"]
    times = None if largest is None else largest["times"]
    preferred = stats.get("chosen_preferred") or {}
    interval = preferred.get("interval")
    return [
        Bar(name="pairs", holds=found["pairs"] > 0, found=str(found["pairs"]), limit="1 or more"),
        Bar(name="identical", holds=found["identical"] == 0, found=str(found["identical"]), limit="0"),
        Bar(
            name="near_identical",
            holds=None if near["share"] is None else near["share"] <= MOST_NEAR,
            found=f"{near['count']} of {near['n']}",
            limit=f"at most {MOST_NEAR:.0%}",
        ),
        Bar(name="duplicates", holds=found["duplicates"] == 0, found=str(found["duplicates"]), limit="0"),
        Bar(
            name="near_duplicates", holds=found["near_duplicates"] == 0, found=str(found["near_duplicates"]), limit="0"
        ),
        Bar(
            name="principles_used",
            holds=None if largest is None else not unused,
            found=f"{rows['used']} of {rows['of']}" + (f"; not {', '.join(unused)}" if unused else ""),
            limit="all",
        ),
        Bar(
            name="largest_principle",
            holds=None if times is None else times <= LARGEST_SHARE,
            found="no principles" if largest is None else f"{largest['principle']}: {times} × its fair share",
            limit=f"at most {LARGEST_SHARE:g} ×",
        ),
        Bar(
            name="split",
            holds=None if found["splits"].get("unsplit") else found["splits"]["prompts_on_both"] == 0,
            found=", ".join(f"{name} {count}" for name, count in found["splits"].items()),
            limit="no prompt on both sides",
        ),
        Bar(
            name="evaluation_prompts",
            holds=True if stats.get("checked_against", {}).get("evaluation_prompts") else None,
            found=f"{stats.get('any_reason', {}).get('in_evaluation', 0)} left out"
            if "checked_against" in stats
            else "not looked for",
            limit="looked for",
        ),
        Bar(
            name="chosen_preferred",
            holds=None if interval is None else interval[0] > 0.5,
            found=f"{preferred['count']} of {preferred['n']}"
            if interval is not None
            else preferred.get("unscored", "not measured"),
            limit="above half, with its interval",
        ),
    ]
