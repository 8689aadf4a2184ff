"""Harmless prompts that sound alarming: the direct answer is chosen, a refusal of the same prompt rejected.

Training on refusals of what is harmful teaches a small model to refuse whatever sounds like it (XSTest, Röttger et al.
2024, measure this). These pairs pull the other way: same words, harmless sense, and the refusal is the worse answer.
"""

from __future__ import annotations

from typing import Any

from critique_revision import folder as folders
from critique_revision.calls import Ask, Calls, Stage
from critique_revision.config import RecipeConfig
from critique_revision.dialogue import refusing_digest, refusing_messages
from critique_revision.folder import FinishedRun, Setup
from critique_revision.recipes.base import Proposal, by_prompt, side
from critique_revision.records import Answer, ChosenPrompt
from critique_revision.text import refuses
from inference.records import Completion
from runs.errors import UsageError
from runs.records import read_jsonl


class BenignTwins:
    """One candidate for each prompt: the generator's answer against the refuser's refusal."""

    version = 1

    def files(self, config: RecipeConfig) -> list[str]:
        """Direct answers, then refusals."""
        return [folders.ANSWERS, folders.REFUSALS]

    def calls(self, config: RecipeConfig) -> dict[str, int]:
        """One answer, one refusal."""
        return {"generator": 1, "refuser": 1}

    def principles(self, config: RecipeConfig) -> int:
        """None: what makes the pair is that the request is harmless."""
        return 0

    def check(self, setup: Setup) -> None:
        """The exemplars must show refusals, and the prompts must be tagged as what they are.

        Raises:
            UsageError: there is no exemplar, a ``reply`` does not open as a refusal, or a prompt is not ``benign``.
        """
        if not setup.exemplars or not all(refuses(exemplar.reply) for exemplar in setup.exemplars):
            raise UsageError(
                "The recipe benign-twins shows the refuser exemplars whose 'reply' is a refusal.",
                why="There are none."
                if not setup.exemplars
                else next(f"'{row.reply[:60]}' is none." for row in setup.exemplars if not refuses(row.reply)),
                mend="Set exemplars.file to configs/critique_revision/exemplars-refusals.yaml, and exemplars.count.",
            )
        strangers = {prompt.tag for prompt in setup.prompts} - {"benign"}
        if strangers:
            raise UsageError(
                f"The recipe benign-twins takes prompts tagged 'benign', not {', '.join(sorted(strangers))}.",
                why="It prefers every answer to its refusal.",
            )

    def identity(self, setup: Setup) -> dict[str, Any]:
        """What the refuser is shown."""
        return {"dialogue": refusing_digest(setup.exemplars)}

    def carry_out(self, calls: Calls) -> None:
        """The generator answers every prompt, then the refuser refuses every one."""
        calls.answers()
        exemplars, role = calls.setup.exemplars, calls.config.roles.refuser

        def record(prompt: ChosenPrompt, ask: Ask, done: Completion) -> Answer:
            return Answer(prompt_id=prompt.prompt_id, model=role.player, **done.model_dump())

        calls.write(
            Stage("refusal", folders.REFUSALS, "refusal"),
            Answer,
            role,
            lambda prompt: [Ask(refusing_messages(exemplars, prompt.messages))],
            record,
        )

    def proposals(self, run: FinishedRun) -> list[Proposal]:
        """Each answer against the refusal; ``not_refused`` where the refuser answered instead."""
        refusals = by_prompt(read_jsonl(run.folder / folders.REFUSALS, Answer))
        return [
            Proposal(
                prompt=prompt,
                chosen=side(run.answers[prompt.prompt_id]),
                rejected=side(refusals[prompt.prompt_id]),
                faults=() if refuses(refusals[prompt.prompt_id].text) else ("not_refused",),
            )
            for prompt in run.prompts
        ]

    def about(self, config: RecipeConfig) -> str:
        """Which side answers."""
        return (
            "Made from harmless prompts that sound alarming: `chosen` is a direct answer, `rejected` a refusal of the "
            "same prompt that a model wrote after exemplars of such refusals."
        )
