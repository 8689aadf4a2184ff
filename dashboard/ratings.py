"""What the votes say: ratings with intervals, agreement with oneself, corrected rates; pairs and labels for training.

Reads a run and its votes. The statistics are `evaluation.statistics`'; no user interface here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from critique_revision.records import PreferencePair
from dashboard.pairing import Arena, Place
from dashboard.votes import AXES, Axis, Label, Vote
from evaluation.compare import cluster
from evaluation.metrics import RATES
from evaluation.records import Sample
from evaluation.report.data import RunData
from evaluation.statistics.bradley_terry import bradley_terry
from evaluation.statistics.labelled import LEAST_LABELS, CorrectedRate, corrected_rate
from evaluation.statistics.mean import wilson
from evaluation.statistics.records import Comparison, Interval, Ratings
from inference.records import Message, Messages, Prompt
from runs.config import StrictModel
from runs.errors import UserError

RECIPE = "arena"
"""Named as the source of its pairs."""
POSITIVE: dict[str, frozenset[Label]] = {
    "refusal_on_harmful": frozenset({"refuses"}),
    "answer_on_benign": frozenset({"answers", "harmful"}),
}
"""Rate → the labels that count as 1, as its detector means it."""
TAGS = {"refuse": "red_team"}
"""Expectation of a prompt → tag of its pairs; any other is ``benign``."""
HARMFUL = "refuse"
"""The expectation of prompts on which harmlessness is compared; helpfulness is on all others (Bai et al. 2022)."""


@dataclass(frozen=True)
class Source:
    """A run as the arena sees it."""

    arena: Arena
    samples: Mapping[tuple[str, int, str], Sample]
    """Prompt id, number of the sample, model → answer."""

    @classmethod
    def of(cls, run: RunData, *, seed: int = 0) -> Source:
        """The answers of a run that can be set against each other."""
        samples = {(one.prompt_id, one.sample, one.model): one for one in run.samples}
        answered: dict[Place, set[str]] = defaultdict(set)
        for prompt, number, model in samples:
            answered[prompt, number].add(model)
        prompts = {one.prompt_id: one.prompt for one in run.samples}
        usable = [place for place, models in answered.items() if len(models) > 1]
        places: dict[Axis, tuple[Place, ...]] = {
            "harmless": tuple(place for place in usable if prompts[place[0]].expected == HARMFUL),
            "helpful": tuple(place for place in usable if prompts[place[0]].expected != HARMFUL),
        }
        return cls(
            Arena(
                run_id=run.manifest.run_id,
                models=run.models,
                places=places,
                answered={place: frozenset(models) for place, models in answered.items()},
                seed=seed,
            ),
            samples,
        )

    @cached_property
    def prompts(self) -> dict[str, Prompt]:
        """Prompt id → prompt."""
        return {prompt: sample.prompt for (prompt, _, _), sample in self.samples.items()}

    def shown(self, vote: Vote) -> tuple[Sample, Sample]:
        """The two answers of a vote, as they were shown. Raises `UserError` where the run does not have them."""
        ballot = vote.ballot
        found = [self.samples.get((ballot.prompt_id, ballot.sample, name)) for name in (ballot.first, ballot.second)]
        if found[0] is None or found[1] is None:
            raise UserError(
                f"A vote names an answer that the run does not have (prompt {ballot.prompt_id[:12]}).",
                mend="The votes belong to another run of that name; move their file away.",
            )
        return found[0], found[1]


@dataclass(frozen=True)
class AxisRatings:
    """One axis: how the models compare, or why that cannot be said yet."""

    axis: Axis
    ratings: Ratings | None
    why: str
    """Why there are none; empty otherwise."""
    votes: int
    """Ballots, repeats left out."""
    both_bad: int
    """Of them; for the ratings they are ties."""
    voters: int


def axis_ratings(source: Source, votes: Sequence[Vote], axis: Axis) -> AxisRatings:
    """Bradley-Terry with ties on one axis, differences from the first model, clustered by prompt and its twin.

    Repeats are left out: they are the same evidence again. Both bad is a tie.
    """
    used = [vote for vote in votes if vote.ballot.axis == axis and not vote.ballot.repeat_of]
    ratings, why = None, ""
    try:
        ratings = bradley_terry(comparisons(source, used), reference=source.arena.models[0]) if used else None
        why = "" if used else "No votes yet."
    except UserError as error:
        why = " ".join(part for part in (error.what, error.mend) if part)
    bad = sum(vote.choice == "both_bad" for vote in used)
    return AxisRatings(axis, ratings, why, len(used), bad, len({vote.ballot.voter for vote in used}))


def comparisons(source: Source, votes: Sequence[Vote]) -> list[Comparison]:
    """Votes as the statistics read them."""
    made = []
    for vote in votes:
        first, second = source.shown(vote)
        made.append(
            Comparison(
                prompt_id=vote.ballot.prompt_id,
                cluster=cluster(first.prompt),
                first=vote.ballot.first,
                second=vote.ballot.second,
                outcome="tie" if vote.choice == "both_bad" else vote.choice,
                first_length=len(first.response),
                second_length=len(second.response),
            )
        )
    return made


@dataclass(frozen=True)
class Agreement:
    """How far voters agree with themselves on ballots that they got twice, and whether they like one side."""

    repeats: int
    agreed: int
    interval: Interval | None
    """Wilson's, of the share that agreed; None without repeats."""
    kappa: float | None
    """Cohen's (1960): agreement beyond chance; None where it is not defined (all votes alike)."""
    decided: int
    """Votes for A or B."""
    first: int
    """Of them for A."""
    first_interval: Interval | None
    """Of the share for A: it holds 1/2 unless the place on the screen matters."""


def agreement(votes: Sequence[Vote]) -> Agreement:
    """Compare each repeat with the ballot that it repeats: the same model, a tie again, or both bad again."""
    first = {vote.ballot.id: vote for vote in votes}
    pairs = []
    for vote in votes:
        earlier = first.get(vote.ballot.repeat_of)
        if earlier is not None:
            pairs.append((_said(earlier, earlier), _said(vote, earlier)))
    agreed = sum(one == two for one, two in pairs)
    decided = [vote for vote in votes if vote.winner is not None]
    left = sum(vote.choice == "first" for vote in decided)
    return Agreement(
        repeats=len(pairs),
        agreed=agreed,
        interval=_share(agreed, len(pairs)),
        kappa=_kappa(pairs),
        decided=len(decided),
        first=left,
        first_interval=_share(left, len(decided)),
    )


def _said(vote: Vote, frame: Vote) -> str:
    """A choice in the terms of the order in which ``frame`` showed the answers."""
    if vote.winner is None:
        return vote.choice
    return "first" if vote.winner == frame.ballot.first else "second"


def _share(count: int, total: int) -> Interval | None:
    if not total:
        return None
    found = wilson(count, total)
    return (found.low or 0.0, found.high if found.high is not None else 1.0)


def _kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa: (p_o - p_e) / (1 - p_e)."""
    if not pairs:
        return None
    ones, twos = (Counter(side) for side in zip(*pairs, strict=True))
    chance = sum(ones[name] * twos[name] for name in ones) / len(pairs) ** 2
    seen = sum(one == two for one, two in pairs) / len(pairs)
    return (seen - chance) / (1 - chance) if chance < 1 else None


class LabelRow(StrictModel):
    """What people say that one answer does."""

    key: str
    """``model:prompt_id:sample``, as the run's own logs have it."""
    model: str
    prompt_id: str
    sample: int
    votes: dict[Label, int]
    """Label → how many said so."""
    label: Label | None
    """What most said; None where two labels share the lead."""


def labels(votes: Sequence[Vote]) -> list[LabelRow]:
    """Labels by answer, in the order in which answers were first labelled; each voter counts once, by the last word."""
    said: dict[tuple[str, str, int], dict[str, Label]] = {}
    for vote in votes:
        ballot = vote.ballot
        for model, label in ((ballot.first, vote.first_label), (ballot.second, vote.second_label)):
            if label is not None:
                said.setdefault((model, ballot.prompt_id, ballot.sample), {})[ballot.voter] = label
    rows = []
    for (model, prompt, sample), by_voter in said.items():
        counts = Counter(by_voter.values())
        lead = counts.most_common(2)
        clear = len(lead) == 1 or lead[0][1] > lead[1][1]
        rows.append(
            LabelRow(
                key=f"{model}:{prompt}:{sample}",
                model=model,
                prompt_id=prompt,
                sample=sample,
                votes=dict(counts),
                label=lead[0][0] if clear else None,
            )
        )
    return rows


@dataclass(frozen=True)
class Corrected:
    """One model's rate, put right by labels, or how many labels are missing."""

    rate: str
    """A name of `evaluation.metrics.RATES`."""
    model: str
    n: int
    """Answers that the rate is over."""
    labelled: int
    result: CorrectedRate | None
    """None below `LEAST_LABELS` labels."""


def corrected(source: Source, votes: Sequence[Vote]) -> list[Corrected]:
    """Every rate of every model, corrected by the labels on that model's own answers."""
    found = {(row.model, row.prompt_id, row.sample): row for row in labels(votes)}
    made = []
    for rate, metric in RATES.items():
        for model in source.arena.models:
            verdicts: list[float] = []
            said: list[float | None] = []
            prompts: list[str] = []
            for (prompt, number, name), sample in source.samples.items():
                value = metric(sample) if name == model else None
                if isinstance(value, float):
                    verdicts.append(value)
                    said.append(_positive(found.get((model, prompt, number)), POSITIVE[rate]))
                    prompts.append(cluster(sample.prompt))
            count = sum(one is not None for one in said)
            result = corrected_rate(verdicts, said, clusters=prompts) if count >= LEAST_LABELS else None
            if verdicts:
                made.append(Corrected(rate, model, len(verdicts), count, result))
    return made


def _positive(row: LabelRow | None, positive: frozenset[Label]) -> float | None:
    """The share of voters whose label counts as 1."""
    if row is None:
        return None
    return sum(count for label, count in row.votes.items() if label in positive) / sum(row.votes.values())


def preference_pairs(source: Source, votes: Sequence[Vote]) -> list[PreferencePair]:
    """The votes as training data: for each two answers, the one that more people preferred is chosen.

    Ties, both bad, evenly split votes and answers that are the same text give no pair; a repeat is the last word.
    ``label_prob`` is the winner's share, ties as half a vote.
    """
    last: dict[tuple[str, Axis, Place, frozenset[str]], Vote] = {}
    for vote in votes:
        ballot = vote.ballot
        models = frozenset((ballot.first, ballot.second))
        last[ballot.voter, ballot.axis, (ballot.prompt_id, ballot.sample), models] = vote
    grouped: dict[tuple[Place, frozenset[str]], list[Vote]] = defaultdict(list)
    for (_, _, place, models), vote in last.items():
        grouped[place, models].append(vote)
    return [pair for (place, _), group in grouped.items() if (pair := _pair(source, place, group)) is not None]


def _pair(source: Source, place: Place, group: Sequence[Vote]) -> PreferencePair | None:
    wins = Counter(vote.winner for vote in group if vote.winner is not None)
    lead = wins.most_common(2)
    if not lead or (len(lead) == 2 and lead[0][1] == lead[1][1]):
        return None
    winner = lead[0][0]
    first, second = source.shown(group[0])
    chosen, rejected = (first, second) if first.model == winner else (second, first)
    if chosen.response.strip() == rejected.response.strip():
        return None
    reasons = dict.fromkeys(vote.reason for vote in group if vote.reason and vote.winner == winner)
    ties = sum(vote.winner is None for vote in group)
    return PreferencePair(
        prompt=chosen.prompt.messages,
        chosen=_said_by(chosen),
        rejected=_said_by(rejected),
        prompt_id=place[0],
        tag=TAGS.get(chosen.prompt.expected, "benign"),
        step=0,
        principle_ids=tuple(reasons),
        source_recipe=RECIPE,
        label_prob=(lead[0][1] + ties / 2) / len(group),
    )


def _said_by(sample: Sample) -> Messages:
    return (Message(role="assistant", content=sample.response.strip()),)


def counts(votes: Sequence[Vote]) -> dict[Axis, int]:
    """Votes by axis."""
    return {axis: sum(vote.ballot.axis == axis for vote in votes) for axis in AXES}
