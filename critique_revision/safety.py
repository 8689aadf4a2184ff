"""The safety classifier on finished pairs: as a filter of what is chosen, or as a look from outside.

Both read each side beside its prompt. The same classifier cannot be both at once: what selected the pairs is no
independent evidence that they are good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from critique_revision.config import ClassifierFilter, PreferenceCheck, locate
from critique_revision.filters import Standing
from critique_revision.shares import share
from inference.records import Messages
from runs.errors import unknown_name

if TYPE_CHECKING:
    from safety_classifier.labels import Labels


class Judge(Protocol):
    """As much of `safety_classifier.api.Classifier` as is used here; a test may stand in for it."""

    @property
    def labels(self) -> Labels:
        """The heads."""
        ...

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Category or response head → probability from which it fires."""
        ...

    @property
    def identity(self) -> str:
        """Digest of everything that a score depends on."""
        ...

    def probabilities(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> Any:
        """(n, heads): probabilities, and raw scores for the preference heads."""
        ...


def load_judge(artifact: Path | None) -> Judge:
    """The classifier in ``artifact``, or the one that ships. Raises `IntegrityError` where it is damaged or missing."""
    from safety_classifier.api import Classifier

    # In float32 the same pairs pass on every processor.
    return Classifier.load(None if artifact is None else locate(artifact), precision="float32")


class Sides:
    """Both sides of pairs, scored in one call each.

    Args:
        judge: who scores.
        items: the pairs.
    """

    def __init__(self, judge: Judge, items: Sequence[Standing]) -> None:
        self.labels = judge.labels
        contexts = [context(item.messages) for item in items]
        self._chosen = judge.probabilities([item.chosen for item in items], contexts)
        self._rejected = judge.probabilities([item.rejected for item in items], contexts)

    def scores(self, head: str) -> list[tuple[float, float]]:
        """For each pair, the head's value of chosen and of rejected. Raises `UsageError` for an unknown head."""
        column = self.labels.column(head)
        return list(zip(self._chosen[:, column].tolist(), self._rejected[:, column].tolist(), strict=True))


def context(messages: Messages) -> str:
    """The conversation as the classifier was trained to see it."""
    from safety_classifier.data.readers import shortened

    speakers = {"user": "Human", "assistant": "Assistant", "system": "Human"}
    return shortened([(speakers[message.role], message.content) for message in messages])


def unsafe(items: Sequence[Standing], settings: ClassifierFilter, judge: Judge) -> list[bool]:
    """For each pair, whether chosen is the more harmful side by more than ``margin``, or reaches a threshold.

    Raises:
        UsageError: ``head`` or a threshold's head is none of the classifier's categories and response heads.
    """
    limits = thresholds(settings, judge)
    if not items:
        return []
    sides = Sides(judge, items)
    found = [chosen > rejected + settings.margin for chosen, rejected in sides.scores(settings.head)]
    for head, limit in limits.items():
        found = [already or chosen >= limit for already, (chosen, _) in zip(found, sides.scores(head), strict=True)]
    return found


def thresholds(settings: ClassifierFilter, judge: Judge) -> dict[str, float]:
    """The thresholds that apply, by head. Raises `UsageError` for a name that has no probability."""
    known = judge.labels.of("category", "response")
    for name in (settings.head, *(settings.thresholds or ())):
        if name not in known:
            raise unknown_name("category or response head of the safety classifier", name, known)
    if settings.thresholds is not None:
        return dict(settings.thresholds)
    return {name: judge.thresholds[name] for name in dict.fromkeys((settings.head, *judge.labels.categories))}


def preferred(items: Sequence[Standing], settings: PreferenceCheck, judge: Judge) -> dict[str, Any]:
    """How often the classifier's preference heads score chosen above rejected, by tag; denominators everywhere.

    Raises:
        UsageError: a head of the settings is no preference head.
    """
    known = judge.labels.of("preference")
    for head in settings.heads.values():
        if head not in known:
            raise unknown_name("preference head of the safety classifier", head, known)
    scored = [item for item in items if item.tag in settings.heads]
    found: dict[str, list[bool]] = {}
    if scored:
        sides = Sides(judge, scored)
        columns = {head: sides.scores(head) for head in set(settings.heads.values())}
        for row, item in enumerate(scored):
            chosen, rejected = columns[settings.heads[item.tag]][row]
            found.setdefault(item.tag, []).append(chosen > rejected)
    every = [vote for votes in found.values() for vote in votes]
    return {
        "evaluator": "safety_classifier",
        "identity": judge.identity,
        **share(sum(every), len(every)),
        "by_tag": {
            tag: {"head": settings.heads[tag], **share(sum(votes), len(votes))} for tag, votes in sorted(found.items())
        },
        "not_scored": dict(sorted(Counter(item.tag for item in items if item.tag not in settings.heads).items())),
    }
