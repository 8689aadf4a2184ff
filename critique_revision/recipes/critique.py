"""Prompts → answers → K times (critique → revision), every call on record (Bai et al. 2022, section 3.1)."""

from __future__ import annotations

from typing import Any

from critique_revision import folder as folders
from critique_revision.calls import Ask, Calls, Stage
from critique_revision.config import RecipeConfig
from critique_revision.constitution import Principle, constitution_digest
from critique_revision.dialogue import critique_messages, dialogue_digest, revision_messages
from critique_revision.folder import FinishedRun, Setup
from critique_revision.principles import choose_principle
from critique_revision.recipes.base import Proposal, Side, exemplar_texts, side
from critique_revision.records import ChosenPrompt, Critique, RevisionStep
from critique_revision.text import opening
from inference.records import Completion


class CritiqueRevision:
    """Every revision is a candidate; the first answer is on its other side."""

    version = 2

    def files(self, config: RecipeConfig) -> list[str]:
        """Answers; then, for each step, critiques (unless the run goes without) and revisions."""
        names = [folders.ANSWERS]
        for step in range(1, config.revisions + 1):
            names += [folders.critiques_name(step)] if config.critiques else []
            names.append(folders.revisions_name(step))
        return names

    def calls(self, config: RecipeConfig) -> dict[str, int]:
        """One answer, and one call a step for critic and reviser."""
        steps = {part: config.revisions for part in config.acting if part != "generator"}
        return {"generator": 1, **steps}

    def principles(self, config: RecipeConfig) -> int:
        """One for each revision."""
        return config.revisions

    def check(self, setup: Setup) -> None:
        """Nothing beyond the principles, which are counted for every recipe."""

    def identity(self, setup: Setup) -> dict[str, Any]:
        """Steps, wording, constitution and exemplars."""
        config = setup.config
        return {
            "revisions": config.revisions,
            "critiques": config.critiques,
            "reply_words": config.reply_words,
            "constitution": constitution_digest(setup.constitution),
            "dialogue": dialogue_digest(setup.exemplars),
        }

    def carry_out(self, calls: Calls) -> None:
        """Answer every prompt, then criticise and revise every current reply, K times."""
        replies = calls.answers()
        for step in range(1, calls.config.revisions + 1):
            made = _Step(calls, step, replies).revise()
            # An empty revision has nothing to criticise: the next step starts from the reply before it.
            replies = replies | {row.prompt_id: row.revision for row in made if row.revision.strip()}

    def proposals(self, run: FinishedRun) -> list[Proposal]:
        """Each revision against the prompt's first answer."""
        requests = {row.id: row.revision_request for row in run.setup.constitution.principles}
        shown = exemplar_texts(run.setup, "user", "reply", "critique", "revision")
        prompts = {prompt.prompt_id: prompt for prompt in run.prompts}
        return [
            Proposal(
                prompt=prompts[row.prompt_id],
                chosen=Side(row.revision, row.finish_reason),
                rejected=side(run.answers[row.prompt_id]),
                step=row.step,
                principle_ids=(row.principle_id,),
                critique=row.critique or "",
                request=requests[row.principle_id],
                shown=shown,
            )
            for row in run.steps
        ]

    def about(self, config: RecipeConfig) -> str:
        """As the paper's section 3.1, or 3.5 where there are no critiques."""
        paper = "Bai et al. 2022, Constitutional AI, section"
        made_by, judges = f"direct revision ({paper} 3.5)", "takes"
        if config.critiques:
            made_by, judges = f"critique and revision ({paper} 3.1)", "criticises its answer by"
        return (
            f"Made by {made_by}: a model answers, {judges} a principle, and rewrites its answer. `chosen` is a "
            "prompt's last accepted revision, `rejected` its first answer. In the `turned` pairs it is the other way "
            "round: the revision refused a harmless request."
        )


class _Step:
    """One step: every current reply is criticised (unless the run goes without), then revised."""

    def __init__(self, calls: Calls, step: int, replies: dict[str, str]) -> None:
        self.calls, self.config, self.step, self.replies = calls, calls.config, step, replies

    def revise(self) -> list[RevisionStep]:
        critiques = self._critiques() if self.config.critiques else {}
        exemplars, role = self.calls.setup.exemplars, self.config.roles.reviser

        def asks(prompt: ChosenPrompt) -> list[Ask]:
            critique = critiques.get(prompt.prompt_id)
            words = critique.text if critique else None
            request = self._principle(prompt).revision_request
            return [Ask(revision_messages(exemplars, prompt.messages, self._shown(prompt), words, request))]

        def record(prompt: ChosenPrompt, ask: Ask, done: Completion) -> RevisionStep:
            critique = critiques.get(prompt.prompt_id)
            return RevisionStep(
                prompt_id=prompt.prompt_id,
                step=self.step,
                principle_id=self._principle(prompt).id,
                critique=critique.text if critique else None,
                revision=done.text,
                critic=critique.model if critique else None,
                reviser=role.player,
                critique_finish_reason=critique.finish_reason if critique else None,
                **done.model_dump(exclude={"text"}),
            )

        return self.calls.write(
            self._stage("revision", folders.revisions_name(self.step)), RevisionStep, role, asks, record
        )

    def _critiques(self) -> dict[str, Critique]:
        exemplars, role = self.calls.setup.exemplars, self.config.roles.critic

        def asks(prompt: ChosenPrompt) -> list[Ask]:
            request = self._principle(prompt).critique_request
            return [Ask(critique_messages(exemplars, prompt.messages, self._shown(prompt), request))]

        def record(prompt: ChosenPrompt, ask: Ask, done: Completion) -> Critique:
            return Critique(
                prompt_id=prompt.prompt_id,
                step=self.step,
                principle_id=self._principle(prompt).id,
                model=role.player,
                **done.model_dump(),
            )

        stage = self._stage("critique", folders.critiques_name(self.step))
        made = self.calls.write(stage, Critique, role, asks, record)
        return {critique.prompt_id: critique for critique in made}

    def _stage(self, kind: str, file: str) -> Stage:
        return Stage(kind, file, f"{kind} {self.step} of {self.config.revisions}", self.step)

    def _shown(self, prompt: ChosenPrompt) -> str:
        return opening(self.replies[prompt.prompt_id], self.config.reply_words)

    def _principle(self, prompt: ChosenPrompt) -> Principle:
        return choose_principle(
            self.calls.setup.constitution,
            seed=self.config.seed,
            prompt_id=prompt.prompt_id,
            step=self.step,
            categories=prompt.categories,
        )
