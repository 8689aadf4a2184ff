"""Which principle a revision step uses: drawn at random for each step, yet fixed by the row.

Bai et al. 2022, section 3.1, draw one of sixteen principles at each revision step.
"""

from __future__ import annotations

from critique_revision.constitution import Principle, PrinciplesConstitution
from runs.errors import UsageError
from runs.identity import row_seed


def choose_principle(constitution: PrinciplesConstitution, *, seed: int, prompt_id: str, step: int) -> Principle:
    """The principle for step ``step`` (from 1) of a prompt's chain of revisions.

    Uniform over the constitution, without replacement within one prompt: K steps use K different principles. The
    draw depends on ``seed``, ``prompt_id`` and ``step`` alone, so neither the order of the prompts, nor that of the
    file, nor a restart changes it. It is the start of a Fisher-Yates shuffle of the principles sorted by id, whose
    k-th draw is seeded by the row (prompt_id, k).

    Raises:
        UsageError: there are fewer principles than steps.
    """
    check_enough(constitution, step)
    remaining = sorted(constitution.principles, key=lambda principle: principle.id)
    for earlier in range(1, step):
        remaining.pop(_draw(len(remaining), seed, prompt_id, earlier))
    return remaining[_draw(len(remaining), seed, prompt_id, step)]


def check_enough(constitution: PrinciplesConstitution, steps: int) -> None:
    """Raise `UsageError` unless the constitution has a principle of its own for each of ``steps`` revisions."""
    if steps > len(constitution.principles):
        raise UsageError(
            f"{steps} revisions need {steps} different principles; constitution '{constitution.name}' "
            f"has {len(constitution.principles)}.",
            mend="Lower 'revisions', or add principles.",
        )


def _draw(size: int, seed: int, prompt_id: str, step: int) -> int:
    # 2**63 values on at most a few hundred principles: the bias of the remainder is below 1e-16.
    return row_seed(seed, "principle", prompt_id, step) % size
