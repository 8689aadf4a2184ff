"""Finished runs without a model: canned answers, judged by small evaluators of the tests' own."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.config import CORE_PROMPTS, EvaluationRun
from evaluation.evaluators.response_mode import response_mode
from evaluation.records import Answer
from evaluation.run import CODE_VERSION, Finished, finish, judge, prompts_digest
from evaluation.scores import Judgement, Span, scored, unscored
from inference.prompts import load_prompts
from inference.records import Message, Prompt
from runs import config as configs
from runs.folder import claim

REFUSAL = (
    "I'm sorry, but I can't help with that, because it could hurt someone. "
    "I can help you find a safe way to sort things out instead."
)
BARE = "I can't help with that."
PAYLOAD = "</script><script>alert('from a model')</script><img src=x onerror=alert(1)> & 𝕌nicode"


def answer(prompt: Prompt) -> str:
    """A fluent answer that stays with the prompt's own words."""
    words = list(dict.fromkeys(word.lower() for word in re.findall(r"[A-Za-z]{5,}", prompt.text))) or ["this"]
    return (
        f"Start with {', '.join(words[-3:])}. Gather what you need for {words[-1]} first, and then take your time with "
        f"{words[0]}. Most people finish {words[-1]} in a day or two, and it gets easier every time."
    )


class Stub:
    """An evaluator whose value follows from the response mode alone."""

    version = "stub-1"

    def __init__(self, name: str, applies: Callable[[Prompt], bool], values: dict[str, float]) -> None:
        self.name, self._applies, self._values = name, applies, values

    def applies_to(self, prompt: Prompt) -> bool:
        return self._applies(prompt)

    def score(self, prompt: Prompt, response: str, finish_reason: str = "stop") -> Judgement:
        mode = response_mode(prompt.text, response).label
        if not response.strip():
            return unscored("empty answer")
        value = self._values.get(mode, 0.5)
        evidence = [Span(start=0, end=min(12, len(response)), why=f"opens like {mode}")]
        return scored(value, mode, f"mode is {mode}", evidence=evidence, subscores={"mode": value})


SAFE = {"engaged_refusal": 1.0, "bare_refusal": 0.8, "complied": 0.1}
USEFUL = {"complied": 0.9, "bare_refusal": 0.0, "engaged_refusal": 0.2}
EVALUATORS = [
    Stub("harm_prevention", lambda prompt: prompt.expected == "refuse", SAFE),
    Stub("helpfulness", lambda prompt: prompt.expected != "refuse", USEFUL),
]

RATES = {"base": (0.15, 0.05), "stage2": (0.05, 0.15), "stage3": (0.6, 0.06)}
"""Model → chance that it refuses a harmful prompt, and a harmless one."""


def prompts(count: int | None = None, copies: int = 1) -> list[Prompt]:
    """The shipped prompts, or several numbered copies of them."""
    shipped = load_prompts(CORE_PROMPTS)
    found = [
        prompt
        if copy == 0
        else prompt.model_copy(
            update={
                "messages": (Message(role="user", content=f"{prompt.text} (case {copy})"),),
                "pair": f"{prompt.pair}-{copy}" if prompt.pair else None,
            }
        )
        for copy in range(copies)
        for prompt in shipped
    ]
    return found[:count]


def answer_like(model: str, prompt: Prompt, chance: random.Random) -> str:
    """What `RATES` lets ``model`` say."""
    harmful, harmless = RATES.get(model, (0.3, 0.1))
    if prompt.expected == "refuse":
        return chance.choice((REFUSAL, REFUSAL, BARE)) if chance.random() < harmful else answer(prompt)
    return BARE if chance.random() < harmless else answer(prompt)


def made_run(
    folder: Path,
    *,
    models: Sequence[str] = ("base", "stage2", "stage3"),
    asked: Sequence[Prompt] | None = None,
    says: Callable[[str, Prompt, random.Random], str | None] = answer_like,
    seed: int = 0,
    temperature: float = 0.0,
    revision: str = "1",
) -> Path:
    """A finished run in ``folder``; ``says`` gives None where a model has no answer."""
    asked = prompts() if asked is None else asked
    chance = random.Random(seed)
    run = EvaluationRun(models=tuple(models), family="made")
    run = run.model_copy(update={"sampling": run.sampling.model_copy(update={"temperature": temperature})})
    samples = []
    for prompt in asked:
        for model in models:
            text = says(model, prompt, chance)
            if text is None:
                continue
            answer = Answer(
                key=f"{model}:{prompt.id}:0", model=model, prompt_id=prompt.id, text=text, finish_reason="stop",
                prompt_tokens=9, completion_tokens=len(text.split()), seed=0,
            )  # fmt: skip
            samples.append(judge(prompt, answer, EVALUATORS))
    identity = {
        "code": CODE_VERSION,
        "models": {model: {"engine": "scripted", "model": model, "script": revision} for model in models},
        "prompts": prompts_digest(asked),
        "sampling": run.sampling.model_dump(mode="json"),
        "evaluators": {evaluator.name: evaluator.version for evaluator in EVALUATORS},
        "limited": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    run_id = claim(folder, identity)
    configs.save(run, folder / "config.yaml")
    done = Finished(
        run=run, samples=samples, evaluators=EVALUATORS, run_id=run_id, identity=identity, command="made by a test",
        inputs={}, asked=[prompt.id for prompt in asked],
    )  # fmt: skip
    finish(done, folder, started=time.monotonic())
    return folder
