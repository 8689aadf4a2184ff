"""Prompts by what the safety classifier says of them: what people typed as attacks is half small talk.

Of the first messages of hh-rlhf harmless-base, a third asks for something harmful (docs/log.md). A model that learns to
decline the others learns to decline.
"""

from __future__ import annotations

from collections.abc import Sequence

from critique_revision.config import HarmRange
from critique_revision.records import ChosenPrompt
from critique_revision.safety import Judge, context
from runs.errors import unknown_name

BATCH = 256


def screened(
    prompts: Sequence[ChosenPrompt], harm: HarmRange, wanted: int | None, judge: Judge
) -> tuple[list[ChosenPrompt], list[ChosenPrompt]]:
    """The prompts whose largest probability over ``harm.heads`` is in the range, and those whose is not.

    Prompts are scored in order until ``wanted`` fit; the rest is in neither list.

    Raises:
        UsageError: a head is none of the classifier's categories.
    """
    known = judge.labels.of("category")
    for head in harm.heads:
        if head not in known:
            raise unknown_name("category of the safety classifier", head, known)
    columns = [judge.labels.column(head) for head in harm.heads]
    kept: list[ChosenPrompt] = []
    misfits: list[ChosenPrompt] = []
    for start in range(0, len(prompts), BATCH):
        if wanted is not None and len(kept) >= wanted:
            break
        part = prompts[start : start + BATCH]
        worst = judge.probabilities([context(prompt.messages) for prompt in part])[:, columns].max(axis=1)
        for prompt, value in zip(part, worst.tolist(), strict=True):
            (kept if harm.least <= value <= harm.most else misfits).append(prompt)
    return kept, misfits
