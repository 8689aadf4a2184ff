"""The recipe: prompts → answers → K times (critique → revision), every call on record (Bai et al. 2022, section 3.1).

Run it with ``uv run critique-revision generate --config configs/critique_revision/smollm2-135m.yaml``.

Each stage appends its model calls to a log of its own. A killed run goes on with the same command: the engine gets all
requests of the stage again and is told which are answered, so its batches, and with them the bytes, stay the same.

Prompts that are answered in one batch stay together in every later stage. So a run can be cut between batches: a shard
makes the calls of its own, and `critique_revision.merge` puts the shards together to what one machine would have made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from critique_revision import folder as folders
from critique_revision.config import RecipeConfig, Role, locate
from critique_revision.constitution import Principle, constitution_digest, load_principles
from critique_revision.dialogue import critique_messages, dialogue_digest, load_exemplars, revision_messages
from critique_revision.folder import Setup
from critique_revision.principles import check_enough, choose_principle
from critique_revision.prompts import Selection, select_prompts
from critique_revision.records import RECIPE, Answer, ChosenPrompt, Critique, RevisionStep
from critique_revision.text import opening
from inference.engines.base import Engine
from inference.engines.openai import OpenAIEngine
from inference.records import Completion, Messages, Request
from runs.console import Reporter
from runs.errors import UserError
from runs.folder import IDENTITY
from runs.identity import digest
from runs.job import Shard
from runs.manifest import NAME as MANIFEST
from runs.manifest import Manifest, verify, write_manifest
from runs.metrics import Meter
from runs.records import RecordLog, read_jsonl, to_line, write_jsonl

GENERATOR_VERSION = 2
"""Raised when the recipe changes what it would write."""

Kind = Literal["answer", "critique", "revision"]
Record = TypeVar("Record", bound=BaseModel)


def read_setup(config: RecipeConfig) -> tuple[Setup, Selection]:
    """Read and check what a config names: constitution, exemplars, prompts.

    Raises:
        UserError: one of them is missing or not valid, or there are fewer principles than revisions.
    """
    constitution = load_principles(locate(config.constitution))
    for source in config.prompts:
        check_enough(constitution, config.revisions, source.categories)
    exemplars = load_exemplars(locate(config.exemplars.file), config.exemplars.count)
    selection = select_prompts(config)
    return Setup(config, constitution, exemplars, tuple(selection.prompts)), selection


def identity_parts(setup: Setup, engines: Mapping[str, Engine]) -> dict[str, Any]:
    """Everything that could change the records of a run."""
    config = setup.config
    return {
        "recipe": RECIPE,
        "version": GENERATOR_VERSION,
        "seed": config.seed,
        "revisions": config.revisions,
        "critiques": config.critiques,
        "reply_words": config.reply_words,
        "constitution": constitution_digest(setup.constitution),
        "dialogue": dialogue_digest(setup.exemplars),
        "prompts": {
            "count": len(setup.prompts),
            "sha256": digest([[prompt.prompt_id, prompt.tag, prompt.categories] for prompt in setup.prompts]),
        },
        "roles": {
            name: {
                "model": engines[role.player].identity,
                "sampling": role.sampling(config.seed).model_dump(mode="json"),
            }
            for name, role in config.acting.items()
        },
    }


class _Recipe:
    """One run in one folder, stage by stage."""

    def __init__(
        self,
        setup: Setup,
        engines: Mapping[str, Engine],
        folder: Path,
        reporter: Reporter,
        shard: Shard | None = None,
    ) -> None:
        self.setup, self.config, self.engines = setup, setup.config, engines
        self.folder, self.reporter = folder, reporter
        whole = identity_parts(setup, engines)
        self.run_id = folders.claim(folder, whole if shard is None else {**whole, "shard": str(shard)}, setup)
        self.call_id = digest(whole)
        """What the keys of the calls are made from: the same in every shard."""
        self.batches = self._cut()
        self.own = [row for batch in (shard.of(self.batches) if shard else self.batches) for row in batch]
        self.meter = Meter("critique_revision", shard.index if shard else 0)
        self.replies: dict[str, str] = {}
        """Prompt id → the current reply: the answer, then the latest revision."""

    def _cut(self) -> list[list[ChosenPrompt]]:
        """The prompts, those that stay together through all stages in one list.

        They go by the generator's batches; where it answers each request by itself (a server does), by those of the
        first role that does not.
        """
        keyed = {self._key(prompt, 0, "answer"): prompt for prompt in self.setup.prompts}
        requests = [Request(key=key, messages=prompt.messages) for key, prompt in keyed.items()]
        cuts = (self.engines[player].batches(requests) for player in self.config.players)
        cut = next((batches for batches in cuts if not _singly(batches)), [[request.key] for request in requests])
        return [[keyed[key] for key in batch] for batch in cut]

    def _key(self, prompt: ChosenPrompt, step: int, kind: Kind) -> str:
        return digest([self.call_id, prompt.prompt_id, step, kind])

    def answers(self) -> None:
        """Stage 0: the generator answers every prompt."""
        role = self.config.roles.generator

        def record(prompt: ChosenPrompt, done: Completion) -> Answer:
            return Answer(prompt_id=prompt.prompt_id, model=role.player, **done.model_dump())

        made = self._stage("answer", 0, folders.ANSWERS, Answer, role, lambda prompt: prompt.messages, record)
        self.replies = {answer.prompt_id: answer.text for answer in made}

    def step(self, step: int) -> None:
        """Stage ``step``: every current reply is criticised (unless the run goes without), then revised."""
        critiques = self._critiques(step) if self.config.critiques else {}
        exemplars, role = self.setup.exemplars, self.config.roles.reviser

        def turns(prompt: ChosenPrompt) -> Messages:
            critique = critiques.get(prompt.prompt_id)
            words = critique.text if critique else None
            request = self._principle(prompt, step).revision_request
            return revision_messages(exemplars, prompt.messages, self._shown(prompt), words, request)

        def record(prompt: ChosenPrompt, done: Completion) -> RevisionStep:
            critique = critiques.get(prompt.prompt_id)
            return RevisionStep(
                prompt_id=prompt.prompt_id,
                step=step,
                principle_id=self._principle(prompt, step).id,
                critique=critique.text if critique else None,
                revision=done.text,
                critic=critique.model if critique else None,
                reviser=role.player,
                critique_finish_reason=critique.finish_reason if critique else None,
                **done.model_dump(exclude={"text"}),
            )

        made = self._stage("revision", step, folders.revisions_name(step), RevisionStep, role, turns, record)
        # An empty revision has nothing to criticise: the next step starts from the reply before it.
        self.replies |= {row.prompt_id: row.revision for row in made if row.revision.strip()}

    def _critiques(self, step: int) -> dict[str, Critique]:
        """The critiques of stage ``step``, by prompt."""
        exemplars, role = self.setup.exemplars, self.config.roles.critic

        def turns(prompt: ChosenPrompt) -> Messages:
            request = self._principle(prompt, step).critique_request
            return critique_messages(exemplars, prompt.messages, self._shown(prompt), request)

        def record(prompt: ChosenPrompt, done: Completion) -> Critique:
            principle = self._principle(prompt, step).id
            return Critique(
                prompt_id=prompt.prompt_id,
                step=step,
                principle_id=principle,
                model=role.player,
                **done.model_dump(),
            )

        made = self._stage("critique", step, folders.critiques_name(step), Critique, role, turns, record)
        return {critique.prompt_id: critique for critique in made}

    def _shown(self, prompt: ChosenPrompt) -> str:
        return opening(self.replies[prompt.prompt_id], self.config.reply_words)

    def _principle(self, prompt: ChosenPrompt, step: int) -> Principle:
        return choose_principle(
            self.setup.constitution,
            seed=self.config.seed,
            prompt_id=prompt.prompt_id,
            step=step,
            categories=prompt.categories,
        )

    def _stage(
        self,
        kind: Kind,
        step: int,
        name: str,
        model: type[Record],
        role: Role,
        turns: Callable[[ChosenPrompt], Messages],
        record: Callable[[ChosenPrompt, Completion], Record],
    ) -> list[Record]:
        """Make the calls of one stage that are not on record yet; give all its records in the prompts' order."""
        mine = {prompt.prompt_id for prompt in self.own}
        keys = {self._key(prompt, step, kind): prompt for prompt in self.setup.prompts if prompt.prompt_id in mine}
        title = kind if kind == "answer" else f"{kind} {step} of {self.config.revisions}"
        with RecordLog(self.folder / name, model) as log:
            done = frozenset(key for key in keys if key in log)
            engine, sampling = self.engines[role.player], role.sampling(self.config.seed)
            asked = [
                [Request(key=self._key(row, step, kind), messages=turns(row)) for row in batch]
                # Only whole batches are this shard's: the first one's owner is everyone's.
                for batch in self.batches
                if batch[0].prompt_id in mine
            ]
            whole = [request for requests in asked for request in requests]
            if _singly(engine.batches(whole)):
                asked = [whole]  # a server is kept busy across batches
            with self.reporter.progress(title, total=len(keys), done=len(done)) as advance:
                for requests in asked:
                    if all(request.key in done for request in requests):
                        continue
                    for completion in engine.generate(requests, sampling, skip=done):
                        log.append(record(keys[completion.key], completion))
                        advance()
                        self.meter.set({"step": step, "calls": len(log), "calls_wanted": len(keys)})
            missing = [key for key in keys if key not in log]
            if missing:
                raise UserError(
                    f"{len(missing)} of {len(keys)} calls of stage '{title}' got no answer.",
                    why=folders.failure_counts(self.folder),
                    mend="What was answered is kept. Run the same command again.",
                )
            records = [log[key] for key in keys]
        _settle(self.folder / name, records)
        return records


def _singly(batches: Sequence[Sequence[str]]) -> bool:
    """Whether each request is answered by itself, so that nothing depends on which are asked together."""
    return all(len(batch) == 1 for batch in batches)


def _settle(path: Path, records: Sequence[BaseModel]) -> None:
    """Put a finished log into the prompts' order, so that the order in which calls came back leaves no trace."""
    if path.read_bytes() != b"".join(to_line(record) for record in records):
        write_jsonl(path, records)


def run_recipe(
    setup: Setup,
    engines: Mapping[str, Engine],
    folder: Path,
    *,
    prompt_counts: Mapping[str, Mapping[str, int]],
    sources: Mapping[str, str],
    reporter: Reporter,
    command: str,
    shard: Shard | None = None,
) -> Manifest:
    """Generate answers, critiques and revisions into ``folder``. The caller holds the folder's lock.

    Args:
        setup: what the run works from.
        engines: player → engine, for every checkpoint and server that a role names.
        prompt_counts: what became of each source's rows, for the manifest.
        sources: prompt source → digest, for the manifest.
        folder: the run's folder.
        reporter: shows progress.
        command: recorded as the command that makes the run again.
        shard: make only the calls of this part of the prompts; None makes all.

    Raises:
        UserError: the folder holds another run, or a call got no answer.
    """
    start = time.monotonic()
    config = setup.config
    recipe = _Recipe(setup, engines, folder, reporter, shard)
    if (folder / MANIFEST).is_file():
        return verify(folder, rebuild=f"{command} --no-resume")
    recipe.answers()
    for step in range(1, config.revisions + 1):
        recipe.step(step)
    stages = folders.stage_names(config)
    return write_manifest(
        folder,
        kind=RECIPE,
        run_id=recipe.run_id,
        command=command,
        config=config.model_dump(mode="json"),
        inputs={
            "constitution": {"name": setup.constitution.name, "sha256": constitution_digest(setup.constitution)},
            "exemplars": dialogue_digest(setup.exemplars),
            "models": {name: engines[name].identity for name in config.players},
            "sources": dict(sources),
        },
        seeds={"seed": config.seed},
        counts={
            "prompts": {name: dict(row) for name, row in prompt_counts.items()},
            **token_counts(folder, config),
        },
        metrics=_server_usage(engines),
        wall_seconds=time.monotonic() - start,
        files=[folder / name for name in (IDENTITY, *folders.SETUP, *stages)],
    )


def _server_usage(engines: Mapping[str, Engine]) -> dict[str, Any]:
    """What the servers counted in this process, by name; nothing where none took part."""
    used = {name: engine.usage for name, engine in engines.items() if isinstance(engine, OpenAIEngine)}
    return {"servers": used} if used else {}


class _Tokens(BaseModel):
    """The part of a call's record that is counted."""

    prompt_tokens: int
    completion_tokens: int


def token_counts(folder: Path, config: RecipeConfig) -> dict[str, dict[str, int]]:
    """Calls and tokens of each stage."""
    counts = {}
    for name in folders.stage_names(config):
        rows = read_jsonl(folder / name, _Tokens)
        counts[name.removesuffix(".jsonl")] = {
            "calls": len(rows),
            "prompt_tokens": sum(row.prompt_tokens for row in rows),
            "completion_tokens": sum(row.completion_tokens for row in rows),
        }
    return counts
