"""Watches a preference run for what its loss does not show: chosen answers that become unlikely, loops, short answers.

DPO's loss is satisfied when rejected answers fall faster than chosen ones (Pal et al. 2024, Smaug; Razin et al. 2024,
likelihood displacement), and a policy that found a shortcut repeats itself or stops early. Each evaluation is compared
with the state before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.config import HackingSection, MonitorSection
from inference.adapters import SharedModel
from inference.records import Messages, Request, Sampling

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GRAM = 4
"""Words of an n-gram whose repetition counts."""


class Alarm(NamedTuple):
    """Something that went past its limit."""

    step: int
    name: str
    start: float
    """Before the first step."""
    now: float
    limit: float
    """What ``now`` must not fall below, or rise above."""

    @property
    def sentence(self) -> str:
        """For people."""
        return f"step {self.step}: {self.name} went from {self.start:.3f} to {self.now:.3f} (limit {self.limit:.3f})"


def repetition(text: str, gram: int = GRAM) -> float:
    """Share of a text's word n-grams that stood in it before: 1 − distinct / all; 0 for a text without any.

    ``a b c d a b c d`` has five 4-grams, four of them distinct: 0.2 (Welleck et al. 2020, seq-rep-n).
    """
    words = text.split()
    grams = [tuple(words[start : start + gram]) for start in range(len(words) - gram + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class PolicyView(SharedModel):
    """The model in training as engines see it. Its policy is active; switching would freeze the adapter's weights."""

    def activate(self, name: str | None) -> None:
        """Nothing to do."""


class Answers:
    """Answers of the policy to the same held-out prompts, with the same seeds, at every evaluation.

    Args:
        model: the policy.
        tokenizer: the base's.
        prompts: conversations that end with the user's turn.
        section: how many are answered, and how.
        batch_size: answers written together.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Messages],
        section: MonitorSection,
        batch_size: int,
    ) -> None:
        from inference.engines.transformers import TransformersEngine

        self.model = model
        self._engine = TransformersEngine(
            PolicyView(model), tokenizer, adapter=None, identity={}, batch_size=max(batch_size, 1)
        )
        self._requests = [Request(key=str(index), messages=messages) for index, messages in enumerate(prompts)]
        self._sampling = Sampling(max_new_tokens=section.max_new_tokens, temperature=section.temperature)

    def __call__(self) -> dict[str, float]:
        """``answer_tokens``, the mean length, and ``repetition``, the mean share of repeated 4-grams."""
        training = self.model.training
        self.model.eval()
        done = list(self._engine.generate(self._requests, self._sampling))
        self.model.train(training)
        return {
            "answer_tokens": fmean(completion.completion_tokens for completion in done),
            "repetition": fmean(repetition(completion.text) for completion in done),
        }


def alarms(section: MonitorSection, start: dict[str, Any], history: Sequence[dict[str, Any]]) -> list[Alarm]:
    """Every alarm of a run, in order. A function of what checkpoints carry, so that a resumed run finds the same.

    Args:
        section: the limits.
        start: what was measured before the first step, as ``…_at_start``.
        history: the trainer's log.
    """
    found = []
    for entry in history:
        for name, factor, change, falls in (
            ("chosen_logp", 1.0, section.chosen_logp_fall, True),
            ("repetition", 1.0, section.repetition_rise, False),
            ("answer_tokens", start.get("answer_tokens_at_start", 0.0), section.length_fall, True),
        ):
            before, now = start.get(f"{name}_at_start"), entry.get(f"eval_{name}")
            if change is None or before is None or now is None:
                continue
            limit = before - factor * change if falls else before + factor * change
            if (now < limit) if falls else (now > limit):
                found.append(Alarm(entry["step"], name, before, now, limit))
    return found


def hacking(section: HackingSection, start: dict[str, Any], history: Sequence[dict[str, Any]]) -> list[Alarm]:
    """Every alarm of a run against a reward, in order: signs that the reward is satisfied and its purpose is not.

    A watched instrument that falls counts only while the reward is above its start: that is over-optimisation (Gao et
    al. 2023, Scaling laws for reward model overoptimization); both falling is only a bad run.

    Args:
        section: the limits.
        start: what was measured before the first step, as ``…_at_start``.
        history: the trainer's log.
    """
    found = []
    watched = [name.removesuffix("_at_start") for name in start if name.startswith("watched/")]
    for entry in history:

        def check(name: str, limit: float | None, *, falls: bool, entry: dict[str, Any] = entry) -> None:
            before, now = start.get(f"{name}_at_start"), entry.get(f"eval_{name}")
            if (
                limit is not None
                and now is not None
                and before is not None
                and ((now < limit) if falls else (now > limit))
            ):
                found.append(Alarm(entry["step"], name, before, now, limit))

        tokens, loops = start.get("answer_tokens_at_start", 0.0), start.get("repetition_at_start", 0.0)
        if section.length_change is not None:
            check("answer_tokens", tokens * (1 - section.length_change), falls=True)
            check("answer_tokens", tokens * (1 + section.length_change), falls=False)
        check("repetition", None if section.repetition_rise is None else loops + section.repetition_rise, falls=False)
        check("kl", section.kl, falls=False)
        if section.watched_fall is not None and entry.get("eval_reward", 0.0) > start.get("reward_at_start", 0.0):
            for name in watched:
                check(name, start[f"{name}_at_start"] - section.watched_fall, falls=True)
    return found
