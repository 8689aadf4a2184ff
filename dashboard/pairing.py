"""Which two answers are shown next: the contrast that is least certain, on a prompt that has few votes, in drawn order.

Every draw is seeded by run, voter and number of the ballot, so that a session can be replayed. Which prompt comes does
not depend on how anybody voted: the answers that people label are then a random sample of each model's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dashboard.votes import Axis, Ballot, Vote
from runs.identity import row_seed

REPEAT_EVERY = 8
"""On average so many ballots come with one repeat."""
REPEAT_AFTER = 5
"""A ballot is asked again after at least so many others."""
PRIOR = 0.5
"""Ties that every pair is taken to have had: without votes all contrasts are equally uncertain, none infinitely."""

Pair = tuple[str, str]
"""Two models, in the order of the run."""
Place = tuple[str, int]
"""Prompt id and number of the sample."""


@dataclass(frozen=True)
class Arena:
    """What can be voted on in a run."""

    run_id: str
    models: tuple[str, ...]
    """In the order of the lineage."""
    places: Mapping[Axis, tuple[Place, ...]]
    """Axis → where at least two models have an answer, in the order of the run."""
    answered: Mapping[Place, frozenset[str]]
    """Place → the models that answered."""
    seed: int = 0

    def pairs(self) -> list[Pair]:
        """Every two models."""
        return list(combinations(self.models, 2))


def uncertainty(models: Sequence[str], votes: Sequence[Vote]) -> dict[Pair, float]:
    """Standard error of every contrast's strength, in natural-log odds, from the votes so far.

    Bradley and Terry's information matrix: the sum over pairs of n p (1 - p) d d', with d = e_first - e_second, ties as
    half a win for each, and `PRIOR` ties added to every pair; the variance of a contrast is d' H⁻¹ d (Hunter 2004,
    section 2). p is the pair's own smoothed share: good enough to choose by, and the ratings are fitted elsewhere. That
    pairs which inform each other count, direct or not, comes from the inverse.
    """
    place = {name: index for index, name in enumerate(models)}
    wins = np.zeros((len(models), len(models)))
    for vote in votes:
        first, second = place[vote.ballot.first], place[vote.ballot.second]
        won = {"first": 1.0, "second": 0.0}.get(vote.choice, 0.5)
        wins[first, second] += won
        wins[second, first] += 1.0 - won
    wins += PRIOR / 2
    count = wins + wins.T
    share = wins / count
    weight = count * share * (1 - share)
    np.fill_diagonal(weight, 0.0)
    inverse = np.linalg.pinv(np.diag(weight.sum(axis=1)) - weight)
    return {
        (first, second): math.sqrt(
            inverse[place[first], place[first]]
            + inverse[place[second], place[second]]
            - 2 * inverse[place[first], place[second]]
        )
        for first, second in combinations(models, 2)
    }


def next_ballot(arena: Arena, votes: Sequence[Vote], axis: Axis, voter: str) -> Ballot | None:
    """What to ask ``voter`` next; None when they have voted on every pair of answers there is.

    Args:
        arena: the run.
        votes: all votes on the run, of everybody.
        axis: what is asked.
        voter: who is asked.
    """
    known = set(arena.models)
    on_axis = [
        vote
        for vote in votes
        if vote.ballot.axis == axis and vote.ballot.run_id == arena.run_id and known >= _pair(vote.ballot)
    ]
    own = [vote for vote in on_axis if vote.ballot.voter == voter]
    number = len(own)
    repeat = _repeat(arena, own, axis, voter, number)
    if repeat is not None:
        return repeat
    seen = {(vote.ballot.prompt_id, vote.ballot.sample, _pair(vote.ballot)) for vote in own}
    fresh = [vote for vote in on_axis if not vote.ballot.repeat_of]
    errors = uncertainty(arena.models, fresh)
    order = sorted(errors, key=lambda pair: (-round(errors[pair], 9), _draw(arena, voter, axis, number, *pair)))
    for pair in order:
        open_places = [
            place
            for place in arena.places[axis]
            if set(pair) <= arena.answered[place] and (*place, frozenset(pair)) not in seen
        ]
        if open_places:
            asked = Counter((vote.ballot.prompt_id, vote.ballot.sample) for vote in fresh if _of(vote.ballot, pair))
            place = min(
                open_places, key=lambda one: (asked[one], _draw(arena, voter, axis, number, one[0], str(one[1])))
            )
            return _ballot(arena, axis, voter, number, place, pair)
    return None


def _repeat(arena: Arena, own: Sequence[Vote], axis: Axis, voter: str, number: int) -> Ballot | None:
    """An earlier ballot again, now and then; its order is drawn anew, so that it also shows a liking for one side."""
    if _draw(arena, voter, axis, number, "repeat") % REPEAT_EVERY:
        return None
    repeated = {vote.ballot.repeat_of for vote in own}
    old = [
        vote.ballot
        for vote in own[: max(0, number - REPEAT_AFTER)]
        if not vote.ballot.repeat_of and vote.ballot.id not in repeated
    ]
    if not old:
        return None
    again = old[_draw(arena, voter, axis, number, "which") % len(old)]
    pair = (again.first, again.second)
    return _ballot(arena, axis, voter, number, (again.prompt_id, again.sample), pair, repeat_of=again.id)


def _ballot(
    arena: Arena, axis: Axis, voter: str, number: int, place: Place, pair: Pair, *, repeat_of: str = ""
) -> Ballot:
    turned = _draw(arena, voter, axis, number, "order", place[0]) % 2
    first, second = (pair[1], pair[0]) if turned else pair
    return Ballot.make(
        run_id=arena.run_id,
        axis=axis,
        voter=voter,
        number=number,
        prompt_id=place[0],
        sample=place[1],
        first=first,
        second=second,
        repeat_of=repeat_of,
    )


def _draw(arena: Arena, voter: str, axis: Axis, number: int, *parts: str) -> int:
    # The low bits decide an order: they are as good as any of a sha256.
    return row_seed(arena.seed, arena.run_id, voter, axis, number, *parts)


def _pair(ballot: Ballot) -> frozenset[str]:
    return frozenset((ballot.first, ballot.second))


def _of(ballot: Ballot, pair: Pair) -> bool:
    return _pair(ballot) == frozenset(pair)
