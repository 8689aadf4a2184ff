"""Which principle a revision step uses: drawn at random for each step, yet fixed by the row.

Bai et al. 2022, section 3.1, draw one of sixteen principles at each revision step.
"""

from __future__ import annotations

from collections.abc import Collection

from critique_revision.constitution import Principle, PrinciplesConstitution
from critique_revision.folder import Setup
from critique_revision.records import ChosenPrompt
from runs.errors import UsageError, unknown_name
from runs.identity import row_seed


def choose_principle(
    constitution: PrinciplesConstitution, *, seed: int, prompt_id: str, step: int, categories: Collection[str] = ()
) -> Principle:
    """The principle for step ``step`` (from 1) of a prompt's chain of revisions.

    Uniform over the constitution (over ``categories`` of it, if there are any), without replacement within one
    prompt: K steps use K different principles. The draw depends on ``seed``, ``prompt_id`` and ``step`` alone, so
    neither the order of the prompts, nor that of the file, nor a restart changes it. It is the start of a
    Fisher-Yates shuffle of the principles sorted by id, whose k-th draw is seeded by the row (prompt_id, k).

    Raises:
        UsageError: there are fewer principles than steps.
    """
    check_enough(constitution, step, categories)
    remaining = sorted(_principles_in(constitution, categories), key=lambda principle: principle.id)
    for earlier in range(1, step):
        remaining.pop(_draw(len(remaining), seed, prompt_id, earlier))
    return remaining[_draw(len(remaining), seed, prompt_id, step)]


def drawn_principles(setup: Setup, prompt: ChosenPrompt, count: int) -> list[Principle]:
    """The first ``count`` principles of a prompt's own draw, all different (`critique_revision.principles`)."""
    return [
        choose_principle(
            setup.constitution,
            seed=setup.config.seed,
            prompt_id=prompt.prompt_id,
            step=step,
            categories=prompt.categories,
        )
        for step in range(1, count + 1)
    ]


def check_enough(constitution: PrinciplesConstitution, steps: int, categories: Collection[str] = ()) -> None:
    """Raise `UsageError` unless there is a principle of its own for each of ``steps`` revisions."""
    known = {principle.category for principle in constitution.principles}
    for category in categories:
        if category not in known:
            raise unknown_name(f"category of constitution '{constitution.name}'", category, known)
    found = len(_principles_in(constitution, categories))
    if steps > found:
        within = f" in {', '.join(categories)}" if categories else ""
        raise UsageError(
            f"{steps} revisions need {steps} different principles; constitution '{constitution.name}' has "
            f"{found}{within}.",
            mend="Lower 'revisions', or add principles.",
        )


def _principles_in(constitution: PrinciplesConstitution, categories: Collection[str]) -> list[Principle]:
    return [row for row in constitution.principles if not categories or row.category in categories]


def _draw(size: int, seed: int, prompt_id: str, step: int) -> int:
    # 2**63 values on at most a few hundred principles: the bias of the remainder is below 1e-16.
    return row_seed(seed, "principle", prompt_id, step) % size
