"""From a finished run to preference pairs: filter every revision, keep each prompt's last good one, count the rest."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from critique_revision import folder as folders
from critique_revision.balance import balance
from critique_revision.config import FilterSettings, Reason, RecipeName
from critique_revision.dialogue import conversation_text
from critique_revision.filters import CHECKS, OF_THE_PAIR, OF_THE_SET, Candidate, Standing, reasons
from critique_revision.folder import FinishedRun
from critique_revision.marking import Marking
from critique_revision.recipes import recipe_of
from critique_revision.recipes.base import Proposal
from critique_revision.records import NO_PRINCIPLE, RECIPE, FilteredStep, PreferencePair
from critique_revision.safety import Judge
from critique_revision.text import whole_sentences
from inference.records import FinishReason, Message
from inference.splits import split_of
from runs.atomic import write_text
from runs.records import write_jsonl

ORDER: tuple[Reason, ...] = (*CHECKS, *OF_THE_PAIR, *OF_THE_SET)
"""The reasons in the order in which they count."""


@dataclass(frozen=True)
class Filtered:
    """What the filters made of a run."""

    steps: list[FilteredStep]
    """Every revision, in the order of the run."""
    pairs: list[PreferencePair]
    """One per prompt that has an accepted revision, in the order of the prompts."""
    seen: dict[str, Any] = field(default_factory=dict)
    """What the verdicts depend on besides run and settings: evaluation prompts and classifier, by digest."""
    chosen_preferred: dict[str, Any] | None = None
    """What an evaluator that selected nothing says of the pairs; None: it was not asked."""


def filter_run(run: FinishedRun, settings: FilterSettings, *, judge: Judge | None = None) -> Filtered:
    """Judge every revision of ``run`` and pair each prompt's last accepted one with the initial answer.

    Args:
        run: what is filtered.
        settings: thresholds, and which checks are made.
        judge: stands in for the safety classifier, which is loaded where the settings ask for it.

    Raises:
        UserError: evaluation prompts or the classifier cannot be read.
    """
    marking = Marking(settings, run.config.exclude_prompts, judge=judge)
    steps = _mark_set(_judge(run, settings), marking)
    by_prompt: dict[str, list[FilteredStep]] = defaultdict(list)
    for step in steps:
        by_prompt[step.prompt_id].append(step)
    chains = (sorted(by_prompt[prompt.prompt_id], key=lambda step: step.step) for prompt in run.prompts)
    pairs = (_pair(chain, run.config.recipe) for chain in chains)
    made = [_with_split(pair, settings) for pair in pairs if pair is not None]
    preferred = marking.preferred([standing(pair) for pair in made])
    return Filtered(steps, made, marking.seen, preferred)


def _with_split(pair: PreferencePair, settings: FilterSettings) -> PreferencePair:
    return pair.model_copy(update={"split": split_of(pair.prompt, settings.holdout_fraction)})


def standing(pair: PreferencePair) -> Standing:
    """A pair as the checks of the whole set see it."""
    return Standing(pair.prompt_id, pair.prompt, pair.tag, pair.chosen[0].content, pair.rejected[0].content)


def finished_text(text: str, finish_reason: FinishReason, settings: FilterSettings) -> str:
    """A text as a pair holds it: without the sentence that the token limit cut."""
    text = text.strip()
    return whole_sentences(text) if settings.trim_cut and finish_reason == "length" else text


def _judge(run: FinishedRun, settings: FilterSettings) -> list[FilteredStep]:
    """Every candidate of the run's recipe with the reasons against it."""
    return [_judged(proposal, settings) for proposal in recipe_of(run.config).proposals(run)]


def _judged(proposal: Proposal, settings: FilterSettings) -> FilteredStep:
    prompt, chosen, rejected = proposal.prompt, proposal.chosen, proposal.rejected
    candidate = Candidate(
        prompt=conversation_text(prompt.messages),
        answer=finished_text(rejected.text, rejected.finish_reason, settings),
        critique=proposal.critique,
        revision=finished_text(chosen.text, chosen.finish_reason, settings),
        revision_request=proposal.request,
        finish_reason=chosen.finish_reason,
        tag=prompt.tag,
        exemplar_texts=proposal.shown,
    )
    faults = tuple(fault for fault in _faults(proposal, settings) if fault not in settings.skip)
    found = (*reasons(candidate, settings), *_against_rejected(candidate, rejected.finish_reason, settings), *faults)
    compared = proposal.label_prob is not None or proposal.margin is not None
    turned = settings.turn_refusals and found == ("refusal_of_benign",) and not compared
    return FilteredStep(
        prompt_id=prompt.prompt_id,
        step=proposal.step,
        tag=prompt.tag,
        principle_id=proposal.principle_ids[-1] if proposal.principle_ids else NO_PRINCIPLE,
        reason=found[0] if found else None,
        reasons=found,
        messages=prompt.messages,
        answer=candidate.answer,
        revision=candidate.revision,
        finish_reason=chosen.finish_reason,
        turned=turned and _answer_is_sound(candidate, settings),
        principle_ids=proposal.principle_ids if len(proposal.principle_ids) > 1 else (),
        label_prob=proposal.label_prob,
        margin=proposal.margin,
    )


def _faults(proposal: Proposal, settings: FilterSettings) -> tuple[Reason, ...]:
    """What the recipe has against its own candidate, and ``tie`` where scorer or labeller sees no difference."""
    tied = proposal.margin is not None and proposal.margin <= settings.min_margin
    return (*proposal.faults, "tie") if tied or proposal.label_prob == 0.5 else proposal.faults


def _against_rejected(candidate: Candidate, finish: FinishReason, settings: FilterSettings) -> tuple[Reason, ...]:
    """``broken_rejected`` where the rejected side fails one of the checks that the settings name for it."""
    if not settings.check_rejected or "broken_rejected" in settings.skip:
        return ()
    found = reasons(replace(_swapped(candidate), finish_reason=finish), settings)
    return ("broken_rejected",) if set(found) & set(settings.check_rejected) else ()


def _answer_is_sound(candidate: Candidate, settings: FilterSettings) -> bool:
    """Whether the first answer would pass as a revision: only then is it worth choosing."""
    return not reasons(_swapped(candidate), settings)


def _swapped(candidate: Candidate) -> Candidate:
    """The rejected side in the place of the chosen one: its writer was told nothing."""
    return replace(candidate, answer=candidate.revision, revision=candidate.answer, critique="", revision_request="")


def _mark_set(steps: list[FilteredStep], marking: Marking) -> list[FilteredStep]:
    """Reject, of the revisions that would be on one side of a pair, those that the checks of the whole set reject."""
    usable = [index for index, step in enumerate(steps) if step.reason is None or step.turned]
    marked = list(steps)
    for index, reason in zip(usable, marking.reasons([_standing(steps[index]) for index in usable]), strict=True):
        if reason is not None:
            step = steps[index]
            found = {"reason": step.reason or reason, "reasons": (*step.reasons, reason), "turned": False}
            marked[index] = step.model_copy(update=found)
    return marked


def _standing(step: FilteredStep) -> Standing:
    sides = (step.answer, step.revision) if step.turned else (step.revision, step.answer)
    return Standing(step.prompt_id, step.messages, step.tag, *sides)


def _pair(chain: Sequence[FilteredStep], recipe: RecipeName = RECIPE) -> PreferencePair | None:
    """The pair of one prompt, from its steps in order; None when none was accepted or turned."""
    usable = [step for step in chain if step.reason is None] or [step for step in chain if step.turned]
    if not usable:
        return None
    last = usable[-1]
    revision, answer = (Message(role="assistant", content=text) for text in (last.revision, last.answer))
    return PreferencePair(
        prompt=last.messages,
        chosen=(answer if last.turned else revision,),
        rejected=(revision if last.turned else answer,),
        turned=last.turned,
        prompt_id=last.prompt_id,
        tag=last.tag,
        step=last.step,
        principle_ids=_principle_ids([step for step in chain if step.step <= last.step]),
        source_recipe=recipe,
        label_prob=last.label_prob,
        margin=last.margin,
    )


def _principle_ids(chain: Sequence[FilteredStep]) -> tuple[str, ...]:
    """The principles of all candidates that led to a pair, in order."""
    named = (step.principle_ids or (step.principle_id,) for step in chain)
    return tuple(name for names in named for name in names if name != NO_PRINCIPLE)


def statistics(run: FinishedRun, filtered: Filtered, settings: FilterSettings) -> dict[str, Any]:
    """Counts of a filtered run: by reason, principle, tag and step, and the lengths of both sides of the pairs."""
    chosen = [len(pair.chosen[0].content.split()) for pair in filtered.pairs]
    rejected = [len(pair.rejected[0].content.split()) for pair in filtered.pairs]
    return {
        "run_id": run.run_id,
        "settings": settings.model_dump(mode="json"),
        "prompts": len(run.prompts),
        "revisions": len(filtered.steps),
        "accepted": sum(step.reason is None for step in filtered.steps),
        "pairs": len(filtered.pairs),
        "by_reason": _ordered(Counter(step.reason for step in filtered.steps if step.reason)),
        "any_reason": _ordered(Counter(reason for step in filtered.steps for reason in step.reasons)),
        "by_recipe": {run.manifest.kind: _group(filtered.steps)},
        "by_principle": _grouped(filtered.steps, "principle_id"),
        "by_tag": _grouped(filtered.steps, "tag"),
        "by_step": _grouped(filtered.steps, "step"),
        "turned": sum(pair.turned for pair in filtered.pairs),
        "checked_against": filtered.seen,
        "chosen_preferred": filtered.chosen_preferred,
        "balance": balance(filtered.pairs, run.prompts, run.setup.constitution, settings.dedup),
        "pairs_by_tag": dict(sorted(Counter(pair.tag for pair in filtered.pairs).items())),
        "mean_words": {"chosen": _mean(chosen), "rejected": _mean(rejected)},
        "chosen_longer": _mean([float(a > b) for a, b in zip(chosen, rejected, strict=True)]),
    }


def _ordered(counts: Counter[Reason]) -> dict[str, int]:
    return {reason: counts[reason] for reason in ORDER if counts[reason]}


def _grouped(steps: Sequence[FilteredStep], field: str) -> dict[str, dict[str, Any]]:
    """For each value of ``field``: revisions, accepted ones, and the reasons against the others."""
    groups: dict[str, list[FilteredStep]] = defaultdict(list)
    for step in steps:
        groups[str(getattr(step, field))].append(step)
    return {name: _group(rows) for name, rows in sorted(groups.items())}


def _group(rows: Sequence[FilteredStep]) -> dict[str, Any]:
    return {
        "revisions": len(rows),
        "accepted": sum(row.reason is None for row in rows),
        "by_reason": _ordered(Counter(row.reason for row in rows if row.reason)),
        "any_reason": _ordered(Counter(reason for row in rows for reason in row.reasons)),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None


def write_filtered(folder: Path, filtered: Filtered, stats: dict[str, Any]) -> None:
    """Write pairs, accepted and rejected revisions, and last the counts: their presence says that all is whole."""
    (folder / folders.STATS).unlink(missing_ok=True)
    write_jsonl(folder / folders.PAIRS, filtered.pairs)
    write_jsonl(folder / folders.ACCEPTED, [step for step in filtered.steps if step.reason is None])
    write_jsonl(folder / folders.REJECTED, [step for step in filtered.steps if step.reason is not None])
    write_text(folder / folders.STATS, json.dumps(stats, indent=2, ensure_ascii=False) + "\n")
