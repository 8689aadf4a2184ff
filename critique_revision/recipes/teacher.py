"""A teacher's answer is chosen, the student's own rejected (as Open Character Training does, arXiv 2511.01689).

A model of few parameters hardly sees its own faults, so its revisions teach little. The teacher is a stronger model
behind a server; or the same model conditioned on the constitution (context distillation, Askell et al. 2021, section
2.1): principles drawn by row in its system text, exemplars before the prompt; or answers of a stronger model on file.
"""

from __future__ import annotations

from typing import Any

from critique_revision import folder as folders
from critique_revision.calls import Ask, Calls, Stage
from critique_revision.config import RecipeConfig
from critique_revision.constitution import constitution_digest
from critique_revision.dialogue import taught_messages, teaching_digest
from critique_revision.folder import FinishedRun, Setup
from critique_revision.principles import drawn_principles
from critique_revision.recipes.base import Proposal, by_prompt, exemplar_texts, side
from critique_revision.records import ChosenPrompt, TaughtAnswer
from inference.records import Completion
from runs.records import read_jsonl


class Teacher:
    """One candidate for each prompt: the teacher's answer against the student's."""

    version = 1

    def files(self, config: RecipeConfig) -> list[str]:
        """The student's answers, then the teacher's."""
        return [folders.ANSWERS, folders.TAUGHT]

    def calls(self, config: RecipeConfig) -> dict[str, int]:
        """One answer each."""
        return {"generator": 1, "teacher": 1}

    def principles(self, config: RecipeConfig) -> int:
        """Those that the teacher is told."""
        return config.teacher.principles

    def check(self, setup: Setup) -> None:
        """Nothing beyond the principles, which are counted for every recipe."""

    def identity(self, setup: Setup) -> dict[str, Any]:
        """What the teacher is told; answers on file are told nothing."""
        if not _told(setup.config):
            return {"teacher": {"principles": 0}}
        return {
            "teacher": {"principles": setup.config.teacher.principles},
            "constitution": constitution_digest(setup.constitution),
            "dialogue": teaching_digest(setup.exemplars),
        }

    def carry_out(self, calls: Calls) -> None:
        """The student answers every prompt, then the teacher does."""
        calls.answers()
        setup, role = calls.setup, calls.config.roles.teacher
        told = _told(calls.config)

        def asks(prompt: ChosenPrompt) -> list[Ask]:
            if not told:
                return [Ask(prompt.messages)]
            principles = drawn_principles(setup, prompt, calls.config.teacher.principles)
            return [Ask(taught_messages(setup.exemplars, prompt.messages, [row.text for row in principles]))]

        def record(prompt: ChosenPrompt, ask: Ask, done: Completion) -> TaughtAnswer:
            principles = drawn_principles(setup, prompt, calls.config.teacher.principles)
            return TaughtAnswer(
                prompt_id=prompt.prompt_id,
                model=role.player,
                principle_ids=tuple(row.id for row in principles),
                **done.model_dump(),
            )

        calls.write(Stage("taught", folders.TAUGHT, "teacher's answer"), TaughtAnswer, role, asks, record)

    def proposals(self, run: FinishedRun) -> list[Proposal]:
        """Each teacher's answer against the student's."""
        taught = by_prompt(read_jsonl(run.folder / folders.TAUGHT, TaughtAnswer))
        shown = exemplar_texts(run.setup, "user", "revision") if _told(run.config) else ()
        return [
            Proposal(
                prompt=prompt,
                chosen=side(taught[prompt.prompt_id]),
                rejected=side(run.answers[prompt.prompt_id]),
                principle_ids=taught[prompt.prompt_id].principle_ids,
                shown=shown,
            )
            for prompt in run.prompts
        ]

    def about(self, config: RecipeConfig) -> str:
        """Who the teacher is."""
        role = config.roles.teacher
        if role.engine in config.recorded:
            told = f"{config.recorded[role.engine].model}, from answers on file"
        else:
            told = f"`{role.player}`"
            if config.teacher.principles:
                told += f", told {config.teacher.principles} principles of the constitution drawn by row"
        return (
            f"Made from a teacher ({told}) and the model that is to be trained: `chosen` is the teacher's answer, "
            "`rejected` the model's own. In the `turned` pairs it is the other way round: the teacher refused a "
            "harmless request."
        )


def _told(config: RecipeConfig) -> bool:
    """Whether the teacher is told principles and exemplars before the prompt."""
    return config.roles.teacher.engine not in config.recorded and config.teacher.principles > 0
