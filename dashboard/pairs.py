"""Preference pairs with their history, for reading: prompt, first answer, critique, revision, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from critique_revision.constitution import load_principles
from critique_revision.folder import ACCEPTED, CONSTITUTION, PAIRS, REJECTED, revisions_name
from critique_revision.records import NO_PRINCIPLE, RECIPE, FilteredStep, PreferencePair, RevisionStep
from dashboard.store import Store, folders_with
from inference.records import Messages
from runs.errors import UserError
from runs.identity import digest
from runs.records import read_jsonl

DEPTH = 4
MOST_BYTES = 256 << 20
"""Size of a pairs folder's files that is still opened."""
ACCEPTED_ONLY, ALL = "accepted", "all"


@dataclass(frozen=True)
class PairView:
    """One revision, or one pair of an export."""

    key: str
    """Digest of its texts: the same pair has the same key in every copy of the file."""
    prompt: Messages
    principle_id: str
    principle: str
    """The principle's sentence; empty where the constitution is not beside the pairs."""
    critique: str | None
    """None: there was none, or an export left it out."""
    chosen: str
    """The text on the preferred side; of a rejected revision, the revision."""
    rejected: str
    """The other side; of a rejected revision, the first answer."""
    step: int
    tag: str
    turned: bool
    """The first answer is preferred, because the revision refused a harmless request."""
    reasons: tuple[str, ...]
    """Why it was rejected, the one that counts first; empty: accepted."""
    label_prob: float | None = None
    """A labeller's probability that the preferred side is the better one; None: not judged."""
    revised: bool = True
    """Whether the sides are a revision and a first answer; other recipes compare other texts."""

    @property
    def accepted(self) -> bool:
        """Whether it became a pair."""
        return not self.reasons


def find_sources(store: Store) -> dict[str, Path]:
    """Name → folder of everything that holds pairs, under the artifacts and the results root."""
    found = {}
    for root, label in ((store.artifacts, "artifacts"), (store.root, "results")):
        if root.is_dir():
            for folder in folders_with((PAIRS,), root, depth=DEPTH):
                found[f"{label}/{folder.relative_to(root).as_posix()}"] = folder
    return found


def read_pairs(folder: Path) -> list[PairView]:
    """Every pair and rejected revision of a folder that `critique-revision` wrote, or the pairs of an export.

    Raises:
        UserError: the files are too large.
        IntegrityError: a line is not valid.
    """
    names = [name for name in (PAIRS, ACCEPTED, REJECTED) if (folder / name).is_file()]
    if sum((folder / name).stat().st_size for name in names) > MOST_BYTES:
        raise UserError(f"The pairs of {folder.name} are too large to be shown.", mend="Read them with `datasets`.")
    texts = _principles(folder)
    if ACCEPTED not in names or REJECTED not in names:
        return [_exported(pair, texts) for pair in read_jsonl(folder / PAIRS, PreferencePair)]
    critiques = _critiques(folder)
    steps = [*read_jsonl(folder / ACCEPTED, FilteredStep), *read_jsonl(folder / REJECTED, FilteredStep)]
    views = (_view(step, texts, critiques.get((step.prompt_id, step.step))) for step in steps)
    return [replace(view, revised=bool(critiques)) for view in views]


def _principles(folder: Path) -> dict[str, str]:
    path = folder / CONSTITUTION
    return {one.id: one.text for one in load_principles(path).principles} if path.is_file() else {}


def _critiques(folder: Path) -> dict[tuple[str, int], str | None]:
    found: dict[tuple[str, int], str | None] = {}
    step = 1
    while (folder / revisions_name(step)).is_file():
        for row in read_jsonl(folder / revisions_name(step), RevisionStep):
            found[row.prompt_id, row.step] = row.critique
        step += 1
    return found


def _view(step: FilteredStep, texts: dict[str, str], critique: str | None) -> PairView:
    turned = step.turned
    reasons = () if step.reason is None or turned else tuple(dict.fromkeys((step.reason, *step.reasons)))
    sides = (step.answer, step.revision) if turned else (step.revision, step.answer)
    return PairView(
        key=_key(step.messages, *sides),
        prompt=step.messages,
        principle_id="" if step.principle_id == NO_PRINCIPLE else step.principle_id,
        principle=texts.get(step.principle_id, ""),
        critique=critique,
        chosen=sides[0],
        rejected=sides[1],
        step=step.step,
        tag=step.tag,
        turned=turned,
        reasons=reasons,
        label_prob=step.label_prob,
    )


def _exported(pair: PreferencePair, texts: dict[str, str]) -> PairView:
    principle = pair.principle_ids[-1] if pair.principle_ids else ""
    chosen, rejected = pair.chosen[-1].content, pair.rejected[-1].content
    return PairView(
        key=_key(pair.prompt, chosen, rejected),
        prompt=pair.prompt,
        principle_id=principle,
        principle=texts.get(principle, ""),
        critique=None,
        chosen=chosen,
        rejected=rejected,
        step=pair.step,
        tag=pair.tag,
        turned=pair.turned,
        reasons=(),
        label_prob=pair.label_prob,
        revised=pair.source_recipe == RECIPE,
    )


def _key(prompt: Messages, chosen: str, rejected: str) -> str:
    return digest([[message.model_dump() for message in prompt], chosen, rejected])[:16]


def reasons_of(found: Sequence[PairView]) -> Counter[str]:
    """Reason → revisions that were rejected for it, by the reason that counts."""
    return Counter(view.reasons[0] for view in found if view.reasons)


def select(found: Sequence[PairView], *, reason: str = ALL, principle: str = ALL, text: str = "") -> list[PairView]:
    """Those that fit: ``reason`` is a reason, `ACCEPTED_ONLY` or `ALL`; all words of ``text`` are required."""
    words = text.casefold().split()
    return [
        view
        for view in found
        if (reason == ALL or (view.accepted if reason == ACCEPTED_ONLY else view.reasons[:1] == (reason,)))
        and principle in (ALL, view.principle_id)
        and (not words or all(word in _haystack(view) for word in words))
    ]


def _haystack(view: PairView) -> str:
    turns = [message.content for message in view.prompt]
    return "\n".join([*turns, view.chosen, view.rejected, view.critique or "", view.principle_id]).casefold()
