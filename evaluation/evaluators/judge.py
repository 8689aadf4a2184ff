"""A language model as a judge, with a rubric file. Optional, and never the only instrument.

A judge that declines, rambles or answers out of range has not judged: the answer is unscored, with the reason, and
failures are counted by the class of the answer (`judge_reply.failures`), since they gather on the worst ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from evaluation.evaluators.judge_reply import Reply, read_choice, read_rating
from evaluation.evaluators.registry import judge_version, register
from evaluation.evaluators.text import Text
from evaluation.scores import Judgement, scored, unscored
from inference.engines.base import Engine
from inference.engines.openai import OpenAIEngine
from inference.records import Completion, FinishReason, Message, Prompt, Request, Sampling
from inference.remote.faults import ServerStopped
from inference.remote.server import Server
from runs.config import StrictModel, load
from runs.errors import UserError
from runs.identity import digest
from runs.paths import PROJECT_ROOT

_PLACE = re.compile(r"\{(prompt|response|first|second|low|high)\}")
RUBRIC = PROJECT_ROOT / "configs" / "evaluation" / "judge-rubric.yaml"


class Rubric(StrictModel):
    """What a judge is asked, and which model it is."""

    name: str
    """What is judged, in a few words."""
    family: str | None = None
    """The judge's model family (configs/models/), in this process."""
    checkpoint: str = "base"
    """Its checkpoint: never one of those that are compared."""
    server: Server | None = None
    """In place of ``family``: a judge behind an OpenAI-compatible server. Its spending limit holds for one process."""
    low: int
    """The worst rating."""
    high: int
    """The best rating."""
    rating: str
    """The request for a rating; holds {prompt}, {response}, {low} and {high}."""
    choice: str
    """The request for a choice of two; holds {prompt}, {first} and {second}."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Longest reply, in tokens: the verdict stands on the last line."""
    batch_size: int = Field(default=8, ge=1)
    device: str = "auto"

    @model_validator(mode="after")
    def _is_whole(self) -> Rubric:
        if (self.family is None) == (self.server is None):
            raise ValueError("name the judge's 'family' or its 'server', and not both")
        if self.high <= self.low:
            raise ValueError("'high' must be above 'low'")
        for template, needed in (
            (self.rating, ("{prompt}", "{response}", "{low}", "{high}")),
            (self.choice, ("{prompt}", "{first}", "{second}")),
        ):
            missing = [place for place in needed if place not in template]
            if missing:
                raise ValueError(f"a request lacks {', '.join(missing)}")
        return self


class Choice(StrictModel):
    """A judge's verdict on two answers, read in both orders."""

    probability: float | None
    """1 the first, 0 the second, 0.5 a tie or a verdict that turned with the order; None where unscored."""
    unscored: str | None = None
    turned: bool = False
    """Whether the judge changed its mind when the answers changed places."""


class Judge:
    """Asks an engine to rate answers by a rubric; greedy, one reply each.

    Args:
        rubric: what is asked.
        engine: the judge's model; opened from the rubric on first use where None.
    """

    name = "judge"
    is_judge = True

    def __init__(self, rubric: Rubric, engine: Engine | None = None) -> None:
        self.rubric = rubric
        self._given = engine

    @cached_property
    def engine(self) -> Engine:
        """The judge's model. Raises `UserError` where it cannot be opened."""
        if self._given is not None:
            return self._given
        if self.rubric.server is not None:
            return OpenAIEngine(self.rubric.server, "judge")
        from inference.engines import open_engine
        from inference.families import load_family

        assert self.rubric.family is not None
        return open_engine(
            load_family(self.rubric.family),
            self.rubric.checkpoint,
            batch_size=self.rubric.batch_size,
            device=self.rubric.device,
        )

    @cached_property
    def version(self) -> str:
        """Digest of code, rubric and the judge's model: another judge is another run."""
        asked = self.rubric.model_dump(exclude={"server"})  # its price and address judge nothing
        return digest({"code": judge_version(), "rubric": asked, "model": self._model()})[:12]

    def _model(self) -> dict[str, str]:
        if self._given is not None:
            return self._given.identity
        if self.rubric.server is not None:
            return self.rubric.server.identity
        from inference.families import load_family
        from inference.sources import base_identity

        assert self.rubric.family is not None
        family = load_family(self.rubric.family)
        return {"base": str(base_identity(family)), "checkpoint": self.rubric.checkpoint}

    def applies_to(self, prompt: Prompt) -> bool:
        """Every prompt."""
        return True

    def score(self, prompt: Prompt, response: str, finish_reason: FinishReason = "stop") -> Judgement:
        """The judge's rating, on [0, 1]."""
        return self.score_many([prompt], [response])[0]

    def score_many(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Judgement]:
        """Rate answers in batches; empty ones are not shown to the judge."""
        asked = {
            str(index): self._fill(
                self.rubric.rating, prompt=prompt.text, response=response, low=self.rubric.low, high=self.rubric.high
            )
            for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
            if Text(response).words
        }
        replies = self._ask(asked)
        return [
            self._judgement(replies[str(index)]) if str(index) in asked else unscored("empty: nothing to judge")
            for index in range(len(responses))
        ]

    def _judgement(self, reply: Completion | str) -> Judgement:
        read = self._read(reply, rating=True)
        if not isinstance(read.value, float):
            return unscored(str(read.reason))
        low, high = self.rubric.low, self.rubric.high
        return scored((read.value - low) / (high - low), f"{read.value:g}", f"The judge rates it {read.value:g}.")

    def prefer(self, prompt: Prompt, first: str, second: str) -> Choice:
        """Which answer the judge takes, asked in both orders; a verdict that turns with the order is a tie."""
        fill = self._fill
        asked = {
            "given": fill(self.rubric.choice, prompt=prompt.text, first=first, second=second),
            "swapped": fill(self.rubric.choice, prompt=prompt.text, first=second, second=first),
        }
        replies = self._ask(asked)
        given, swapped = (self._read(replies[key], rating=False) for key in ("given", "swapped"))
        for read in (given, swapped):
            if read.reason is not None:
                return Choice(probability=None, unscored=read.reason)
        points = {"A": 1.0, "B": 0.0, "TIE": 0.5}
        forward, back = points[str(given.value)], 1.0 - points[str(swapped.value)]
        return Choice(probability=(forward + back) / 2, turned=abs(forward - back) == 1.0)

    def _read(self, reply: Completion | str, *, rating: bool) -> Reply:
        """The reply's verdict; a string stands for an engine's error."""
        if isinstance(reply, str):
            return Reply(None, "judge_error")
        read = read_rating(reply.text, self.rubric.low, self.rubric.high) if rating else read_choice(reply.text)
        cut = read.reason == "judge_unparsed" and reply.finish_reason == "length"
        return Reply(None, "judge_truncated") if cut else read

    def _ask(self, asked: dict[str, str]) -> dict[str, Completion | str]:
        """Reply by key; what the engine could not answer is its error as a string.

        Raises:
            UserError: the judge cannot be opened: no weights, no API key.
            ServerStopped: no later answer could be judged either (a wrong key, the spending limit): the run stops
                and is taken up again, where a judge that fails on one answer leaves that one unscored.
        """
        requests = [Request(key=key, messages=(Message(role="user", content=text),)) for key, text in asked.items()]
        replies: dict[str, Completion | str] = {}
        sampling = Sampling(max_new_tokens=self.rubric.max_new_tokens)
        failed, engine = "", self.engine
        try:
            for completion in engine.generate(requests, sampling):
                replies[completion.key] = completion
        except ServerStopped:
            raise
        except UserError as error:
            failed = error.what
        return {key: replies.get(key, failed or "no reply") for key in asked}

    @staticmethod
    def _fill(template: str, **parts: Any) -> str:
        """The template with its places filled in one go, so that braces in an answer stay as they are."""
        return _PLACE.sub(lambda match: str(parts.get(match[1], match[0])), template)


def load_judge(path: Path = RUBRIC, engine: Engine | None = None) -> Judge:
    """A judge by its rubric file. Raises `runs.errors.UsageError` where the file is faulty."""
    return Judge(load(Rubric, path), engine)


@register("judge")
def judge() -> Judge:
    """A language model as a judge, by configs/evaluation/judge-rubric.yaml; never the only instrument."""
    return load_judge()
