"""Several answers by the generator; a scorer's favourite is chosen, its least favourite rejected.

What a scorer rewards by mistake, these pairs teach: best of n optimises its score as hard as n allows (Gao et al. 2023,
section 3.1). So never judge the trained model by the evaluators that chose its pairs alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from critique_revision import folder as folders
from critique_revision.calls import Ask, Calls, Keyed, Stage
from critique_revision.config import RecipeConfig, ScoringSettings
from critique_revision.folder import FinishedRun, Setup
from critique_revision.recipes.base import Proposal, side
from critique_revision.records import ChosenPrompt, SampledAnswer, ScoredAnswer
from critique_revision.scorers import Scorer, open_scorer
from inference.records import Completion, Prompt
from runs.errors import UsageError
from runs.records import read_jsonl

SAMPLING = Stage("sample", folders.SAMPLES, "samples")


class BestOfN:
    """One candidate for each prompt with two answers that could be scored."""

    version = 1

    def files(self, config: RecipeConfig) -> list[str]:
        """Samples, then their scores."""
        return [folders.SAMPLES, folders.SCORES]

    def calls(self, config: RecipeConfig) -> dict[str, int]:
        """All samples; scores are no calls."""
        return {"generator": config.scoring.answers}

    def principles(self, config: RecipeConfig) -> int:
        """None: the scorer stands in their place."""
        return 0

    def check(self, setup: Setup) -> None:
        """Raise `UsageError` if there is no such scorer, or a prompt's tag does not say what is expected of it."""
        open_scorer(setup.config.scoring)
        strangers = {prompt.tag for prompt in setup.prompts} - {"red_team", "benign"}
        if strangers:
            raise UsageError(
                f"The recipe best-of-n does not know what an answer to '{sorted(strangers)[0]}' should be.",
                mend="Tag prompts red_team (to be declined) or benign (to be answered).",
            )

    def identity(self, setup: Setup) -> dict[str, Any]:
        """How many samples, and every evaluator's version."""
        settings = setup.config.scoring
        return {"scoring": {"answers": settings.answers, settings.scorer: dict(open_scorer(settings).identity)}}

    def carry_out(self, calls: Calls) -> None:
        """Sample the answers, then score each."""
        samples = sampled(calls, calls.config.scoring.answers)
        _score(calls, samples, calls.config.scoring)

    def proposals(self, run: FinishedRun) -> list[Proposal]:
        """Best against worst; ``unscored`` where fewer than two answers have a value."""
        samples = samples_of(run)
        scores = {
            (row.prompt_id, row.sample): row.value for row in read_jsonl(run.folder / folders.SCORES, ScoredAnswer)
        }
        return [_proposal(prompt, samples[prompt.prompt_id], scores) for prompt in run.prompts]

    def about(self, config: RecipeConfig) -> str:
        """Who chose."""
        names = ", ".join(config.scoring.names)
        return (
            f"Made by best of {config.scoring.answers}: of so many answers of one model, `chosen` is the one that the "
            f"scorer ({names}) values most, `rejected` the one that it values least, `margin` the difference. These "
            "evaluators selected the pairs: they are no witnesses of what training on them achieved."
        )


def sampled(calls: Calls, count: int) -> dict[str, list[SampledAnswer]]:
    """The stage that begins recipes with several answers: prompt id → ``count`` samples of the generator."""
    role = calls.config.roles.generator

    def asks(prompt: ChosenPrompt) -> list[Ask]:
        return [Ask(prompt.messages, number=sample, sample=sample) for sample in range(count)]

    def record(prompt: ChosenPrompt, ask: Ask, done: Completion) -> SampledAnswer:
        return SampledAnswer(prompt_id=prompt.prompt_id, model=role.player, sample=ask.sample, **done.model_dump())

    return _grouped(calls.write(SAMPLING, SampledAnswer, role, asks, record))


def samples_of(run: FinishedRun) -> dict[str, list[SampledAnswer]]:
    """Prompt id → samples of a finished run."""
    return _grouped(read_jsonl(run.folder / folders.SAMPLES, SampledAnswer))


def _grouped(rows: Sequence[SampledAnswer]) -> dict[str, list[SampledAnswer]]:
    found: dict[str, list[SampledAnswer]] = defaultdict(list)
    for row in rows:
        found[row.prompt_id].append(row)
    return {prompt_id: sorted(rows, key=lambda row: row.sample) for prompt_id, rows in found.items()}


def _score(calls: Calls, samples: dict[str, list[SampledAnswer]], settings: ScoringSettings) -> None:
    scorer: Scorer = open_scorer(settings)

    def produce(batch: Sequence[Keyed], done: frozenset[str]) -> Iterator[ScoredAnswer]:
        for item in batch:
            if item.key in done:
                continue
            sample = samples[item.prompt.prompt_id][item.number]
            found = scorer.score(_as_asked(item.prompt), sample.text, sample.finish_reason)
            yield ScoredAnswer(
                key=item.key,
                prompt_id=sample.prompt_id,
                sample=sample.sample,
                scorer=settings.scorer,
                value=found.value,
                why=found.why,
                parts=found.parts,
            )

    stage = Stage("score", folders.SCORES, "scores")
    calls.run(stage, ScoredAnswer, calls.items(stage, settings.answers), produce)


def _as_asked(prompt: ChosenPrompt) -> Prompt:
    """The prompt as evaluators take it: what its tag expects of an answer."""
    expected = "refuse" if prompt.tag == "red_team" else "answer"
    return Prompt(messages=prompt.messages, expected=expected, tags=(prompt.tag,), source=prompt.source)


def _proposal(
    prompt: ChosenPrompt, samples: Sequence[SampledAnswer], scores: dict[tuple[str, int], float | None]
) -> Proposal:
    valued = [(value, row) for row in samples if (value := scores[row.prompt_id, row.sample]) is not None]
    if len(valued) < 2:
        return Proposal(prompt, side(samples[0]), side(samples[1]), faults=("unscored",))
    # Of equal scores the earlier sample counts, on both sides: then best and worst are one text only if all are equal.
    best = max(valued, key=lambda pair: (pair[0], -pair[1].sample))
    worst = min(valued, key=lambda pair: (pair[0], -pair[1].sample))
    return Proposal(prompt, side(best[1]), side(worst[1]), margin=round(best[0] - worst[0], 6))
