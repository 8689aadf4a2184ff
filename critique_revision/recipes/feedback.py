"""AI feedback: a labeller compares a model's own answers by a principle (Bai et al. 2022, section 4.1).

The generator samples answers, the labeller is asked which of two follows a principle better, in both orders, and the
pair carries the averaged probability as its soft label (`critique_revision.comparison`).

Of n > 2 answers, ``best-worst`` compares every two (n (n − 1) / 2 comparisons), and pairs the answer with the highest
mean preference over the others with the lowest; ``drawn`` draws two by row and compares only these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from critique_revision import folder as folders
from critique_revision.calls import Calls
from critique_revision.comparison import Pairing, compare, comparison_digest, preferences
from critique_revision.config import RecipeConfig
from critique_revision.constitution import constitution_digest
from critique_revision.folder import FinishedRun, Setup
from critique_revision.principles import drawn_principles
from critique_revision.recipes.base import Proposal, side
from critique_revision.recipes.best_of_n import sampled, samples_of
from critique_revision.records import ChosenPrompt, Label, SampledAnswer
from critique_revision.text import opening, whole_sentences
from runs.identity import row_seed
from runs.records import read_jsonl


class AIFeedback:
    """One candidate for each prompt whose comparisons were all answered."""

    version = 1

    def files(self, config: RecipeConfig) -> list[str]:
        """Samples, then (with a chain of thought) reasons, then labels."""
        reasons = [folders.REASONS] if config.feedback.chain_of_thought else []
        return [folders.SAMPLES, *reasons, folders.LABELS]

    def calls(self, config: RecipeConfig) -> dict[str, int]:
        """All samples; two orders of every comparison under every principle, with reasons twice that."""
        settings = config.feedback
        compared = 1 if settings.pairing == "drawn" else settings.answers * (settings.answers - 1) // 2
        asked = 2 * compared * settings.principles
        return {"generator": settings.answers, "labeller": asked * (2 if settings.chain_of_thought else 1)}

    def principles(self, config: RecipeConfig) -> int:
        """Those that the answers are compared by."""
        return config.feedback.principles

    def check(self, setup: Setup) -> None:
        """Nothing beyond the principles, which are counted for every recipe."""

    def identity(self, setup: Setup) -> dict[str, Any]:
        """How many answers, how they are compared, and by what."""
        settings = setup.config.feedback
        return {
            "feedback": settings.model_dump(mode="json"),
            "reply_words": setup.config.reply_words,
            "constitution": constitution_digest(setup.constitution),
            "dialogue": comparison_digest(setup.exemplars, settings),
        }

    def carry_out(self, calls: Calls) -> None:
        """Sample the answers, then have them compared."""
        samples = sampled(calls, calls.config.feedback.answers)
        texts = {
            prompt_id: {row.sample: _as_shown(row, calls.config) for row in rows} for prompt_id, rows in samples.items()
        }
        compare(calls, texts, lambda prompt: pairings(calls.config, prompt))

    def proposals(self, run: FinishedRun) -> list[Proposal]:
        """The preferred answer against the other; ``unlabelled`` where the labeller named no letter."""
        labels: dict[str, list[Label]] = defaultdict(list)
        for label in read_jsonl(run.folder / folders.LABELS, Label):
            labels[label.prompt_id].append(label)
        samples, settings = samples_of(run), run.config.feedback
        found = []
        for prompt in run.prompts:
            better = preferences(labels[prompt.prompt_id], settings)
            principles = drawn_principles(run.setup, prompt, settings.principles)
            found.append(_proposal(prompt, samples[prompt.prompt_id], better, [row.id for row in principles]))
        return found

    def about(self, config: RecipeConfig) -> str:
        """How the sides were told apart."""
        settings = config.feedback
        thought = "after reasons of its own, " if settings.chain_of_thought else ""
        return (
            f"Made by AI feedback (Bai et al. 2022, Constitutional AI, section 4.1): of {settings.answers} answers of "
            f"one model, a labeller says {thought}which follows a principle better. `label_prob` is its probability "
            f"that `chosen` does, the mean over both orders of the answers and {settings.principles} principle(s) "
            "drawn by row."
        )


def pairings(config: RecipeConfig, prompt: ChosenPrompt) -> list[Pairing]:
    """The answers of a prompt that are compared, by number."""
    every = list(combinations(range(config.feedback.answers), 2))
    if config.feedback.pairing == "drawn":
        return [every[row_seed(config.seed, "pairing", prompt.prompt_id) % len(every)]]
    return every


def _as_shown(row: SampledAnswer, config: RecipeConfig) -> str:
    """What the labeller sees: the answer's first ``reply_words`` words, without a sentence that was cut."""
    text = whole_sentences(row.text) if row.finish_reason == "length" else row.text
    return opening(text, config.reply_words)


def best_and_worst(better: Mapping[Pairing, float]) -> Pairing:
    """The answers with the highest and the lowest mean preference over those that they were compared with.

    Of equal means the smaller number counts. The one that the direct comparison prefers comes first, which differs from
    the order of the means only where preferences go in a circle.
    """
    against: dict[int, list[float]] = defaultdict(list)
    for (one, _), p in better.items():
        against[one].append(p)
    means = {one: sum(values) / len(values) for one, values in sorted(against.items())}
    best = max(means, key=lambda one: (means[one], -one))
    worst = min((one for one in means if one != best), key=lambda one: (means[one], one))
    return (best, worst) if better[best, worst] >= 0.5 else (worst, best)


def _proposal(
    prompt: ChosenPrompt,
    samples: Sequence[SampledAnswer],
    better: Mapping[Pairing, float | None],
    principle_ids: Sequence[str],
) -> Proposal:
    known = {pairing: p for pairing, p in better.items() if p is not None}
    ids = tuple(principle_ids)
    if len(known) < len(better):
        one, other = next(iter(better))
        return Proposal(prompt, side(samples[one]), side(samples[other]), principle_ids=ids, faults=("unlabelled",))
    best, worst = best_and_worst(known)
    return Proposal(
        prompt,
        side(samples[best]),
        side(samples[worst]),
        principle_ids=ids,
        label_prob=round(known[best, worst], 6),
    )
