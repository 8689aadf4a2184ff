"""Critique and revision, watched: draft → critique → revision by a chosen principle, as the recipe makes its data.

The dialogues, exemplars, roles and filters are `critique_revision`'s own (Bai et al. 2022, section 3.1).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from critique_revision.config import SELF, FilterSettings, RecipeConfig, Role, Roles, locate
from critique_revision.constitution import Principle, PrinciplesConstitution, load_principles
from critique_revision.dialogue import Exemplar, critique_messages, load_exemplars, revision_messages
from critique_revision.filters import Candidate, reasons
from critique_revision.pairs import finished_text
from critique_revision.text import opening
from dashboard.desk import Job, Waiting
from dashboard.live import EVERY, MAX_PROMPT, LiveText, Settings, Status, Studio, check_prompt, conversation, write
from evaluation.config import CONSTITUTION
from inference.engines.base import StreamingEngine
from inference.families import Family
from inference.records import Completion, Messages, Prompt, Sampling
from runs import config
from runs.errors import UsageError, unknown_name
from runs.paths import CONFIGS

DRAFT, CRITIQUE, REVISION = "draft", "critique", "revision"
EXEMPLARS = 4
"""Worked examples for a family without a recipe of its own."""


@dataclass(frozen=True)
class Recipe:
    """Who criticises and revises, how, and from which examples."""

    constitution: PrinciplesConstitution
    exemplars: tuple[Exemplar, ...]
    roles: Roles
    reply_words: int | None
    """How much of a reply critic and reviser are shown."""
    filters: FilterSettings

    def principle(self, identity: str) -> Principle:
        """The principle with that id. Raises `UsageError` with the nearest one."""
        found = {one.id: one for one in self.constitution.principles}
        if identity not in found:
            raise unknown_name("principle", identity, found)
        return found[identity]


def load_recipe(family: Family, constitution: Path | None = None) -> Recipe:
    """The family's own recipe (configs/critique_revision/), else the defaults with the base in all roles.

    Raises:
        UsageError: a file is missing or not valid.
    """
    # Only what runs in this process can be watched: a family whose default critic is served has a config without one.
    own = [CONFIGS / "critique_revision" / f"{family.name}{suffix}.yaml" for suffix in ("-self", "")]
    path = next((path for path in own if path.is_file()), None)
    if path is None:
        exemplars = load_exemplars(CONFIGS / "critique_revision" / "exemplars.yaml", EXEMPLARS)
        return Recipe(load_principles(constitution or CONSTITUTION), exemplars, Roles(), None, FilterSettings())
    recipe = config.load(RecipeConfig, path)
    return Recipe(
        load_principles(constitution or locate(recipe.constitution)),
        load_exemplars(locate(recipe.exemplars.file), recipe.exemplars.count),
        recipe.roles,
        recipe.reply_words,
        recipe.filters,
    )


@dataclass(frozen=True)
class Chain:
    """Where a revision stands."""

    principle: Principle
    draft: LiveText
    critique: LiveText
    revision: LiveText
    rejected: tuple[str, ...] | None = None
    """Why the recipe's filters would not train on the revision; empty: they would. None: not finished."""

    @property
    def texts(self) -> tuple[LiveText, ...]:
        """In the order in which they are written."""
        return self.draft, self.critique, self.revision


class Reviser:
    """Drafts, criticises and revises on a studio's models, in its queue."""

    def __init__(self, studio: Studio, recipe: Recipe) -> None:
        self.studio, self.recipe = studio, recipe

    def revise(
        self, asker: str, prompt: str, principle: str, settings: Settings, *, checkpoint: str = "", draft: str = ""
    ) -> Iterator[Chain | Waiting]:
        """Watch a prompt's draft, its critique and its revision being written.

        Args:
            asker: whose turn in the queue it takes.
            prompt: the user's message.
            principle: an id of the constitution.
            settings: of the draft; critic and reviser keep the recipe's, under this seed.
            checkpoint: who writes the draft; empty: the recipe's generator.
            draft: a draft to start from; empty: one is written.

        Raises:
            UsageError: no prompt, or a text, principle or checkpoint that is not usable.
            UserError: too much is waiting.
        """
        text, chosen = check_prompt(prompt), self.recipe.principle(principle)
        writer = checkpoint or self.recipe.roles.generator.checkpoint
        self.studio.family.check(writer)
        if len(draft) > MAX_PROMPT:
            raise UsageError(f"The draft has {len(draft):,} characters; at most {MAX_PROMPT:,} are taken.")
        work = _Work(self.studio, self.recipe, text, chosen, settings, writer, draft.strip())
        job: Job[Chain] = self.studio.desk.submit(asker, work.run)
        return job.watch()


@dataclass(frozen=True)
class _Work:
    """One chain, in the desk's thread."""

    studio: Studio
    recipe: Recipe
    text: str
    principle: Principle
    settings: Settings
    writer: str
    draft: str

    def run(self, stopped: Callable[[], bool]) -> Iterator[Chain]:
        roles = self.recipe.roles
        if served := [role.engine for role in (roles.critic, roles.reviser) if role.engine != SELF]:
            told = f"The recipe's critic or reviser stands behind the server '{served[0]}'. "
            told += "Here only checkpoints on this machine criticise: `uv run critique-revision generate` asks servers."
            yield _blank(self.principle, "failed", told)
            return
        yield _blank(self.principle, "loading")
        writers = [] if self.draft else [self.writer]
        engines, problems = self.studio.models.get(
            list(dict.fromkeys([*writers, roles.critic.checkpoint, roles.reviser.checkpoint]))
        )
        if problems:
            yield _blank(self.principle, "failed", "\n".join(f"{name}: {why}" for name, why in problems.items()))
            return
        chain = _blank(self.principle, "waiting")
        prompt = self.studio.scorer.prompt(self.text, self.settings.expected)
        asked = conversation(self.text, self.settings.system)
        for state in self._drafting(engines, asked, prompt, stopped):
            chain = replace(chain, draft=state)
            yield chain
        shown = opening(chain.draft.text, self.recipe.reply_words)
        exemplars, plain = self.recipe.exemplars, prompt.messages
        if chain.draft.status == "done":
            turns = critique_messages(exemplars, plain, shown, self.principle.critique_request)
            for state, _ in self._writing(CRITIQUE, roles.critic, engines, turns, stopped):
                chain = replace(chain, critique=state)
                yield chain
        if chain.critique.status == "done":
            turns = revision_messages(exemplars, plain, shown, chain.critique.text, self.principle.revision_request)
            for state, done in self._writing(REVISION, roles.reviser, engines, turns, stopped):
                chain = replace(chain, revision=state)
                if done is not None:
                    chain = self._judged(chain, prompt, done)
                yield chain

    def _drafting(
        self, engines: dict[str, StreamingEngine], asked: Messages, prompt: Prompt, stopped: Callable[[], bool]
    ) -> Iterator[LiveText]:
        """The draft while it is written, or the one that was given."""
        if self.draft:
            given = Completion(
                key=DRAFT, text=self.draft, finish_reason="stop", prompt_tokens=0, completion_tokens=0, seed=0
            )
            scores = self.studio.scorer.score(prompt, given)
            yield LiveText(DRAFT, "done", self.draft, finish_reason="given", scores=scores)
            return
        for state, done in _paced(write(engines[self.writer], DRAFT, asked, self.settings.sampling, stopped)):
            yield replace(state, scores=self.studio.scorer.score(prompt, done) if done is not None else ())

    def _writing(
        self,
        name: str,
        role: Role,
        engines: dict[str, StreamingEngine],
        turns: Messages,
        stopped: Callable[[], bool],
    ) -> Iterator[tuple[LiveText, Completion | None]]:
        sampling: Sampling = role.sampling(self.settings.seed)
        return _paced(write(engines[role.checkpoint], name, turns, sampling, stopped))

    def _judged(self, chain: Chain, prompt: Prompt, done: Completion) -> Chain:
        """The chain with the revision's scores and the filters' verdict."""
        revision = replace(chain.revision, scores=self.studio.scorer.score(prompt, done))
        settings, cut = self.recipe.filters, chain.draft.finish_reason == "length"
        candidate = Candidate(
            prompt=self.text,
            answer=finished_text(chain.draft.text, "length" if cut else "stop", settings),
            critique=chain.critique.text,
            revision=finished_text(done.text, done.finish_reason, settings),
            revision_request=self.principle.revision_request,
            finish_reason=done.finish_reason,
            tag="red_team" if prompt.expected == "refuse" else "benign",
            exemplar_texts=tuple(
                text for one in self.recipe.exemplars for text in (one.user, one.reply, one.critique, one.revision)
            ),
        )
        return replace(chain, revision=revision, rejected=reasons(candidate, settings))


def _blank(principle: Principle, status: Status, problem: str = "") -> Chain:
    draft, critique, revision = (LiveText(name, status, problem=problem) for name in (DRAFT, CRITIQUE, REVISION))
    return Chain(principle, draft, critique, revision)


def _paced(
    writer: Iterator[tuple[LiveText, Completion | None]],
) -> Iterator[tuple[LiveText, Completion | None]]:
    """Not more often than can be seen; the end always."""
    shown = 0.0
    for state, done in writer:
        if state.ended or time.monotonic() - shown >= EVERY:
            shown = time.monotonic()
            yield state, done
