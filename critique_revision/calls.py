"""The calls of a run, every one on record: what all recipes share.

Each stage appends its calls to a log of its own. A killed run goes on with the same command: the engine gets all
requests of the stage again and is told which are answered, so its batches, and with them the bytes, stay the same.

Prompts that are answered in one batch stay together in every later stage. So a run can be cut between batches: a shard
makes the calls of its own, and `critique_revision.merge` puts the shards together to what one machine would have made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from critique_revision import folder as folders
from critique_revision.config import Role
from critique_revision.folder import Setup
from critique_revision.records import Answer, ChosenPrompt
from inference.engines.base import Engine, LabellingEngine
from inference.records import Completion, LabelScores, Messages, Request
from runs.console import Reporter
from runs.errors import UserError
from runs.identity import digest
from runs.job import Shard
from runs.metrics import Meter
from runs.records import RecordLog, to_line, write_jsonl

Record = TypeVar("Record", bound=BaseModel)
Item = TypeVar("Item", bound="Keyed")


@dataclass(frozen=True)
class Ask:
    """One call for one prompt."""

    messages: Messages
    number: int = 0
    """Which of the prompt's calls of the stage it is: a step, a sample, an order. Part of its key."""
    sample: int = 0
    """Which sample of the same messages it is: part of the row's seed."""


@dataclass(frozen=True)
class Keyed:
    """A unit of work of a stage."""

    key: str
    prompt: ChosenPrompt
    number: int


@dataclass(frozen=True)
class _Asked(Keyed):
    ask: Ask

    @property
    def request(self) -> Request:
        return Request(key=self.key, messages=self.ask.messages, sample=self.ask.sample)


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe: where its records go and what it is called."""

    kind: str
    """Part of the calls' keys: ``answer``, ``critique``, …"""
    file: str
    title: str
    """For people."""
    step: int = 0
    """Part of the calls' keys, and shown by the metrics."""


class Calls:
    """One run in one folder, or one shard of it.

    Args:
        setup: what the run works from.
        engines: player → engine, for every checkpoint and server that a role names.
        folder: the run's folder; it becomes the run's own.
        reporter: shows progress.
        identity: everything that could change the records of the whole run.
        shard: make only the calls of this part of the prompts; None makes all.

    Raises:
        UserError: the folder holds another run.
    """

    def __init__(
        self,
        setup: Setup,
        engines: Mapping[str, Engine],
        folder: Path,
        reporter: Reporter,
        *,
        identity: dict[str, Any],
        shard: Shard | None = None,
    ) -> None:
        self.setup, self.config, self.engines = setup, setup.config, engines
        self.folder, self.reporter = folder, reporter
        self.run_id = folders.claim(folder, identity if shard is None else {**identity, "shard": str(shard)}, setup)
        self.call_id = digest(identity)
        """What the keys of the calls are made from: the same in every shard."""
        self.batches = self._cut()
        self.own = shard.of(self.batches) if shard else self.batches
        """The prompts of this shard, batch by batch."""
        self.meter = Meter("critique_revision", shard.index if shard else 0)

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

    def _key(self, prompt: ChosenPrompt, number: int, kind: str) -> str:
        return digest([self.call_id, prompt.prompt_id, number, kind])

    def answers(self) -> dict[str, str]:
        """The stage that most recipes begin with: the generator answers every prompt. Prompt id → answer."""
        role = self.config.roles.generator

        def record(prompt: ChosenPrompt, ask: Ask, done: Completion) -> Answer:
            return Answer(prompt_id=prompt.prompt_id, model=role.player, **done.model_dump())

        stage = Stage("answer", folders.ANSWERS, "answer")
        made = self.write(stage, Answer, role, lambda prompt: [Ask(prompt.messages)], record)
        return {answer.prompt_id: answer.text for answer in made}

    def write(
        self,
        stage: Stage,
        model: type[Record],
        role: Role,
        asks: Callable[[ChosenPrompt], Sequence[Ask]],
        record: Callable[[ChosenPrompt, Ask, Completion], Record],
    ) -> list[Record]:
        """Have ``role`` write the texts of a stage; give all its records in the prompts' order.

        Raises:
            UserError: a call got no answer.
        """
        engine, sampling = self.engines[role.player], role.sampling(self.config.seed)

        def produce(batch: Sequence[_Asked], done: frozenset[str]) -> Iterator[Record]:
            mine = {asked.key: asked for asked in batch}
            for made in engine.generate([asked.request for asked in batch], sampling, skip=done):
                yield record(mine[made.key].prompt, mine[made.key].ask, made)

        return self.run(stage, model, self._together(self._asked(stage, asks), engine), produce)

    def label(
        self,
        stage: Stage,
        model: type[Record],
        role: Role,
        labels: Sequence[str],
        asks: Callable[[ChosenPrompt], Sequence[Ask]],
        record: Callable[[ChosenPrompt, Ask, LabelScores], Record],
    ) -> list[Record]:
        """Have ``role`` score one-token answers; give all records of the stage in the prompts' order.

        Raises:
            UserError: the role's model gives no log-probabilities, or a call got no answer.
        """
        engine = labelling(self.engines[role.player], role.player)

        def produce(batch: Sequence[_Asked], done: frozenset[str]) -> Iterator[Record]:
            mine = {asked.key: asked for asked in batch}
            for made in engine.label_logprobs([asked.request for asked in batch], labels, skip=done):
                yield record(mine[made.key].prompt, mine[made.key].ask, made)

        asked = self._asked(stage, asks)
        return self.run(stage, model, self._together(asked, self.engines[role.player]), produce)

    def items(self, stage: Stage, count: int) -> list[list[Keyed]]:
        """``count`` units of work for each prompt of this shard, batch by batch: for stages without an engine."""
        return [
            [Keyed(self._key(row, number, stage.kind), row, number) for row in batch for number in range(count)]
            for batch in self.own
        ]

    def run(
        self,
        stage: Stage,
        model: type[Record],
        batches: Sequence[Sequence[Item]],
        produce: Callable[[Sequence[Item], frozenset[str]], Iterator[Record]],
    ) -> list[Record]:
        """Do the work of one stage that is not on record yet; give all its records in the prompts' order.

        Args:
            stage: what it is called.
            model: its records; their ``key`` is that of the unit of work.
            batches: all units of this shard. ``produce`` gets each batch that is not done whole.
            produce: yields the records of a batch, but for those whose keys are done.

        Raises:
            UserError: some work was left undone.
        """
        place = {prompt.prompt_id: index for index, prompt in enumerate(self.setup.prompts)}
        units = sorted((item for batch in batches for item in batch), key=lambda item: place[item.prompt.prompt_id])
        with RecordLog(self.folder / stage.file, model) as log:
            done = frozenset(item.key for item in units if item.key in log)
            with self.reporter.progress(stage.title, total=len(units), done=len(done)) as advance:
                for batch in batches:
                    if all(item.key in done for item in batch):
                        continue
                    for record in produce(batch, done):
                        log.append(record)
                        advance()
                        self.meter.set({"step": stage.step, "calls": len(log), "calls_wanted": len(units)})
            missing = [item.key for item in units if item.key not in log]
            if missing:
                raise UserError(
                    f"{len(missing)} of {len(units)} calls of stage '{stage.title}' got no answer.",
                    why=folders.failure_counts(self.folder),
                    mend="What was answered is kept. Run the same command again.",
                )
            records = [log[item.key] for item in units]
        _settle(self.folder / stage.file, records)
        return records

    def _asked(self, stage: Stage, asks: Callable[[ChosenPrompt], Sequence[Ask]]) -> list[list[_Asked]]:
        return [
            [
                _Asked(self._key(row, stage.step + ask.number, stage.kind), row, ask.number, ask)
                for row in batch
                for ask in asks(row)
            ]
            for batch in self.own
        ]

    def _together(self, batches: list[list[_Asked]], engine: Engine) -> list[list[_Asked]]:
        """``batches``, or one of all where each request is answered by itself: a server is kept busy across them."""
        whole = [asked for batch in batches for asked in batch]
        return [whole] if _singly(engine.batches([asked.request for asked in whole])) else batches


def labelling(engine: Engine, player: str) -> LabellingEngine:
    """``engine`` as one that scores labels.

    Raises:
        UserError: it gives no log-probabilities.
    """
    if not hasattr(engine, "label_logprobs"):
        raise UserError(
            f"'{player}' gives no log-probabilities, and the labeller is read by them.",
            mend="Let a checkpoint of the family label, or a server of dialect vllm or openai.",
        )
    return cast(LabellingEngine, engine)


def _singly(batches: Sequence[Sequence[str]]) -> bool:
    """Whether each request is answered by itself, so that nothing depends on which are asked together."""
    return all(len(batch) == 1 for batch in batches)


def _settle(path: Path, records: Sequence[BaseModel]) -> None:
    """Put a finished log into the prompts' order, so that the order in which calls came back leaves no trace."""
    if path.read_bytes() != b"".join(to_line(record) for record in records):
        write_jsonl(path, records)
