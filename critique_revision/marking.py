"""The reasons that need more than one pair, or more than the pair: what is left is held against everything else.

In the order of `critique_revision.filters.OF_THE_SET`: evaluation prompts, copies among the pairs, and, where it is
asked, the safety classifier, which is the dearest and so sees the fewest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from critique_revision.config import FilterSettings, Reason
from critique_revision.decontamination import EvaluationPrompts
from critique_revision.dedup import copies
from critique_revision.filters import Standing
from critique_revision.safety import Judge, load_judge, preferred, unsafe


class Marking:
    """The checks of a whole set, and what they looked at.

    Args:
        settings: thresholds, files, and which checks are made.
        exclude_prompts: evaluation prompt files of the run, besides those of the settings.
        judge: stands in for the safety classifier, which is loaded otherwise.

    Raises:
        UserError: evaluation prompts or the classifier cannot be read.
    """

    def __init__(
        self, settings: FilterSettings, exclude_prompts: Sequence[Path] = (), *, judge: Judge | None = None
    ) -> None:
        self.settings, self._judge = settings, judge
        self.seen: dict[str, Any] = {}
        """What the checks depend on besides the settings, by digest; part of the identity of what is exported."""
        self._evaluation: EvaluationPrompts | None = None
        if "in_evaluation" not in settings.skip:
            paths = tuple(dict.fromkeys((*settings.evaluation_prompts, *exclude_prompts)))
            self._evaluation = EvaluationPrompts(paths, settings.dedup)
            self.seen["evaluation_prompts"] = self._evaluation.sources

    def reasons(self, items: Sequence[Standing]) -> list[Reason | None]:
        """For each pair the first reason against it; None where there is none."""
        found: list[Reason | None] = [None] * len(items)
        left = list(range(len(items)))

        def mark(reasons: Sequence[Reason | None]) -> None:
            for place, reason in zip(left, reasons, strict=True):
                found[place] = reason
            left[:] = [place for place in left if found[place] is None]

        if self._evaluation is not None:
            mark(["in_evaluation" if self._evaluation.hold(items[place]) else None for place in left])
        mark(copies([items[place] for place in left], self.settings))
        classifier = self.settings.classifier
        if classifier.enabled and "unsafe_chosen" not in self.settings.skip:
            judge = self._judge or load_judge(classifier.artifact)
            self.seen["classifier"] = judge.identity
            marks = unsafe([items[place] for place in left], classifier, judge)
            mark(["unsafe_chosen" if mark else None for mark in marks])
        return found

    def preferred(self, items: Sequence[Standing]) -> dict[str, Any] | None:
        """`critique_revision.safety.preferred` on the finished pairs, or why it was not asked; None: not wanted."""
        settings = self.settings.preference_check
        if not settings.enabled:
            return None
        if "classifier" in self.seen:
            return {"unscored": "the safety classifier selected these pairs: it is no evaluator from outside"}
        return preferred(items, settings, self._judge or load_judge(settings.artifact))
