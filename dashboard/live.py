"""Checkpoints answering side by side: one base, adapters switched between them, scores when an answer ends.

No user interface here. Torch is imported when the first answer is asked for, in the desk's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field
from safetensors import SafetensorError

from dashboard.desk import Desk, Job, Waiting
from evaluation.config import CORE_PROMPTS
from evaluation.evaluators import registry
from evaluation.evaluators.protocol import Evaluator
from evaluation.evaluators.standing import Standing, standing
from evaluation.scores import Span, unscored
from inference.engines.base import StreamingEngine
from inference.families import BASE, DEFAULT_FAMILY, Family, check_models, load_family
from inference.prompts import load_prompts
from inference.records import Completion, Message, Messages, Prompt, Request, Sampling
from runs.config import StrictModel, parse
from runs.errors import UsageError, UserError, unknown_name

MAX_PROMPT = 8_000
"""Characters of a prompt, and of a system text."""
MAX_TOKENS = 512
"""Longest answer that can be asked for."""
MAX_CHECKPOINTS = 4
"""Answers side by side."""
SLICE = 4
"""Tokens that a checkpoint writes before the next has its turn: switching adapters costs a part of a token."""
EVERY = 0.1
"""Seconds between two states: more would be sent than is seen."""
EVALUATORS = (*registry.BUILT_IN, "refusal", "safety_classifier")
"""What scores an answer, where it applies."""
EXPECTED = ("answer", "refuse", "answer_truthfully", "answer_fairly")
"""What a good answer may be asked to do."""
LOADING = (UserError, OSError, RuntimeError, ValueError, KeyError, ImportError, SafetensorError)
"""What libraries raise for weights that are missing, damaged, too large or of another kind."""

Status = Literal["waiting", "loading", "writing", "done", "stopped", "failed"]
OpenEngines = Callable[[Family, Sequence[str]], Mapping[str, StreamingEngine]]


class Settings(StrictModel):
    """How answers are written; the same for every checkpoint."""

    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_new_tokens: int = Field(default=96, ge=1, le=MAX_TOKENS)
    seed: int = Field(default=0, ge=0, lt=2**31)
    system: str = Field(default="", max_length=MAX_PROMPT)
    """Comes before the prompt; empty: none."""
    expected: str = "answer"
    """What a good answer does: one of `EXPECTED`. A prompt of the shipped set brings its own."""

    @property
    def sampling(self) -> Sampling:
        """The decoding settings."""
        return Sampling(
            max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, seed=self.seed
        )


def read_settings(**values: float | int | str | None) -> Settings:
    """Settings from what a page or a client sent; None takes the default.

    Raises:
        UsageError: a value is out of its range; the range is named.
    """
    settings = parse(Settings, {key: value for key, value in values.items() if value is not None}, source="Settings")
    if settings.expected not in EXPECTED:
        raise unknown_name("expectation", settings.expected, EXPECTED)
    return settings


@dataclass(frozen=True)
class LiveScore:
    """What one evaluator says about an answer."""

    evaluator: str
    value: float | None
    """None: it could not be scored, and `explanation` says why."""
    label: str
    explanation: str
    standing: Standing
    """Whether its numbers may be believed."""
    evidence: tuple[Span, ...] = ()


@dataclass(frozen=True)
class LiveText:
    """One text in the making: an answer, a critique or a revision."""

    name: str
    """The checkpoint that writes, or the step of a chain."""
    status: Status = "waiting"
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    """Of its own writing; the others' turns are not in it."""
    finish_reason: str = ""
    scores: tuple[LiveScore, ...] = ()
    problem: str = ""
    """Why it failed, and what to do."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in {"done", "stopped", "failed"}


Board = tuple[LiveText, ...]
"""The texts that stand side by side."""
Watched = Iterator[Board | Waiting]


class Models:
    """The engines of a family, opened when they are first asked for; used from one thread only.

    Args:
        family: whose checkpoints.
        opener: loads the base once, with the adapters of the named checkpoints.
        check: raises `UserError` for a checkpoint that cannot be loaded, before anything is.
    """

    def __init__(self, family: Family, opener: OpenEngines, check: Callable[[Family, str], None]) -> None:
        self.family, self._opener, self._check = family, opener, check
        self._engines: dict[str, StreamingEngine] = {}

    def get(self, names: Sequence[str]) -> tuple[dict[str, StreamingEngine], dict[str, str]]:
        """Engines by name, and for those that do not load the reason. A failure is tried again the next time."""
        problems: dict[str, str] = {}
        missing = [name for name in names if name not in self._engines]
        for name in missing:
            try:
                self._check(self.family, name)
            except LOADING as error:
                problems[name] = _reason(error)
        wanted = [*self._engines, *(name for name in missing if name not in problems)]
        if set(wanted) != set(self._engines):
            self._engines = {}  # the old base makes room before the new one comes
            try:
                self._engines = dict(self._opener(self.family, wanted))
            except LOADING as error:
                problems |= dict.fromkeys(wanted, _reason(error))
        found = {name: self._engines[name] for name in names if name in self._engines}
        return found, {name: problems[name] for name in names if name in problems}


def _reason(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"The model could not be loaded.\n{type(error).__name__}: {error}"


def open_on(device: str) -> OpenEngines:
    """An opener for engines on ``device``; it writes one answer at a time."""

    def opener(family: Family, names: Sequence[str]) -> Mapping[str, StreamingEngine]:
        from inference.engines import open_engines
        from runs.environment import prepare_process

        prepare_process()
        return open_engines(family, names, batch_size=1, device=device)

    return opener


def check_checkpoint(family: Family, name: str) -> None:
    """Raise `UserError` unless the checkpoint's files are there, whole, and made for this base. Loads nothing."""
    from inference.adapters import check_adapter
    from inference.sources import base_identity

    base = base_identity(family)
    if name != BASE:
        check_adapter(family.adapter_folder(name), base_identity=base)


class Scorer:
    """Evaluators on single answers; made when first used, from one thread.

    Args:
        names: evaluators; those that are not available here are left out, and `missing` says why.
    """

    def __init__(self, names: Sequence[str] = EVALUATORS) -> None:
        self._names = tuple(names)
        self._evaluators: list[Evaluator] | None = None
        self._known: dict[str, Prompt] | None = None
        self.missing: dict[str, str] = {}

    def prompt(self, text: str, expected: str) -> Prompt:
        """``text`` as a prompt; a shipped one with all that is known of it."""
        asked = Prompt(messages=(Message(role="user", content=text),), expected=expected)
        if self._known is None:
            self._known = {prompt.id: prompt for prompt in load_prompts(CORE_PROMPTS)}
        return self._known.get(asked.id, asked)

    def score(self, prompt: Prompt, done: Completion) -> tuple[LiveScore, ...]:
        """Every applicable evaluator's view of a finished answer."""
        found = []
        for evaluator in self._open():
            if not evaluator.applies_to(prompt):
                continue
            try:
                said = evaluator.score(prompt, done.text, done.finish_reason)
            except UserError as error:  # one instrument's failure is not the answer's
                said = unscored(str(error))
            explanation = said.explanation or said.unscored or ""
            name = evaluator.name
            found.append(LiveScore(name, said.value, said.label, explanation, standing(name), said.evidence))
        return tuple(found)

    def _open(self) -> list[Evaluator]:
        if self._evaluators is None:
            self._evaluators = []
            for name in self._names:
                try:
                    self._evaluators += registry.get([name])
                except UserError as error:
                    self.missing[name] = str(error)
        return self._evaluators


class Studio:
    """Answers prompts live, for many people on one model. One instance serves the whole app.

    Args:
        family: name of a family, or the path of its YAML.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        opener: how engines are opened; for tests.
        check: how a checkpoint is checked before it is opened; for tests.
        scorer: scores finished answers.
    """

    def __init__(
        self,
        family: str = DEFAULT_FAMILY,
        *,
        device: str = "auto",
        opener: OpenEngines | None = None,
        check: Callable[[Family, str], None] = check_checkpoint,
        scorer: Scorer | None = None,
    ) -> None:
        self.family = load_family(family)
        self.desk = Desk()
        self.models = Models(self.family, opener or open_on(device), check)
        self.scorer = scorer or Scorer()

    @property
    def checkpoints(self) -> list[str]:
        """The names that can be asked for."""
        return self.family.checkpoints

    def answer(self, asker: str, prompt: str, checkpoints: Sequence[str], settings: Settings) -> Watched:
        """Let the checkpoints answer; yields the place in the queue, then the answers as they grow.

        Every checkpoint draws from the same seed. Closing the iterator stops the work.

        Raises:
            UsageError: no prompt, one that is too long, or a checkpoint that the family does not have.
            UserError: too much is waiting.
        """
        text = check_prompt(prompt)
        names = check_models(self.family, list(checkpoints))
        if len(names) > MAX_CHECKPOINTS:
            raise UsageError(f"{len(names)} checkpoints were chosen; {MAX_CHECKPOINTS} fit side by side.")
        job: Job[Board] = self.desk.submit(asker, lambda stopped: self._answer(text, names, settings, stopped))
        return job.watch()

    def stop(self, asker: str) -> int:
        """Stop all that ``asker`` has asked for; returns how many jobs that were."""
        return self.desk.stop(asker)

    def _answer(
        self, text: str, names: Sequence[str], settings: Settings, stopped: Callable[[], bool]
    ) -> Iterator[Board]:
        board = {name: LiveText(name, "loading") for name in names}
        yield tuple(board.values())
        engines, problems = self.models.get(names)
        board |= {name: LiveText(name, "failed", problem=why) for name, why in problems.items()}
        yield tuple(board.values())
        prompt = self.scorer.prompt(text, settings.expected)
        messages = conversation(text, settings.system)
        writers = {name: write(engine, name, messages, settings.sampling, stopped) for name, engine in engines.items()}
        shown = 0.0
        while writers:
            for name, writer in list(writers.items()):
                board[name], done = _take(writer, board[name])
                if board[name].ended:
                    del writers[name]
                if done is not None:
                    board[name] = replace(board[name], scores=self.scorer.score(prompt, done))
                if board[name].ended or time.monotonic() - shown >= EVERY:
                    shown = time.monotonic()
                    yield tuple(board.values())


def check_prompt(prompt: str) -> str:
    """The prompt without blanks around it. Raises `UsageError` for one that is empty or too long."""
    text = prompt.strip()
    if not text:
        raise UsageError("There is no prompt.", mend="Type one, then ask again.")
    if len(text) > MAX_PROMPT:
        raise UsageError(f"The prompt has {len(text):,} characters; at most {MAX_PROMPT:,} are taken.")
    return text


def conversation(text: str, system: str) -> Messages:
    """The prompt after the system text, if there is one."""
    user = Message(role="user", content=text)
    return (Message(role="system", content=system.strip()), user) if system.strip() else (user,)


Writer = Iterator[tuple[LiveText, Completion | None]]


def write(
    engine: StreamingEngine, name: str, messages: Messages, sampling: Sampling, stopped: Callable[[], bool]
) -> Writer:
    """One text, token by token; the last is ended, and has the completion unless it was stopped or failed."""
    state, resumed = LiveText(name, "writing"), time.monotonic()
    try:
        for part in engine.stream(Request(key=name, messages=messages), sampling, stopped=stopped):
            seconds = state.seconds + time.monotonic() - resumed
            state = replace(state, text=part.text, tokens=part.tokens, seconds=seconds)
            if part.completion is not None:
                finish = part.completion.finish_reason
                yield replace(state, status="done", finish_reason=finish), part.completion
                return
            yield state, None
            resumed = time.monotonic()
    except UserError as error:  # a prompt beyond the context, say: the other checkpoints' answers stand
        yield replace(state, status="failed", problem=str(error)), None
        return
    yield replace(state, status="stopped"), None


def _take(writer: Writer, state: LiveText) -> tuple[LiveText, Completion | None]:
    """The writer's next `SLICE` tokens, or fewer where it ends."""
    done: Completion | None = None
    for _ in range(SLICE):
        state, done = next(writer)
        if state.ended:
            break
    return state, done
