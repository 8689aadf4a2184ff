"""Votes to ratings, agreement, labels, corrected rates and training pairs: hand-worked and simulated."""

from __future__ import annotations

import json
import math
import random

import pytest

from critique_revision.records import PreferencePair
from dashboard.arena import Booth, votes_path
from dashboard.ratings import Source, agreement, axis_ratings, corrected, labels, preference_pairs
from dashboard.store import Store
from dashboard.votes import Ballot, VoteLog, cast
from evaluation.metrics import RATES
from runs.errors import UsageError, UserError
from tests.dashboard.conftest import RUN

MODELS = ("base", "stage2", "stage3")


@pytest.fixture(scope="module")
def source(results):
    return Source.of(Store(results).load(RUN))


@pytest.fixture
def booth(results, tmp_path):
    """Votes of each test go into a folder of their own."""
    store = Store(results)
    booth = Booth(store)
    booth._logs[store.load(RUN).manifest.run_id] = VoteLog(votes_path(tmp_path, "x"))
    return booth


def voted(source, place, first, second, choice, *, voter="me", number=0, axis="helpful", repeat_of="", **more):
    ballot = Ballot.make(
        run_id=source.arena.run_id, axis=axis, voter=voter, number=number, prompt_id=place[0], sample=place[1],
        first=first, second=second, repeat_of=repeat_of,
    )  # fmt: skip
    return cast(ballot, choice, **more)


def test_two_models_by_hand(source):
    """12 wins to 4 on 16 prompts: odds 3, 400 log10(3) = 190.8 Elo, whatever the order on the screen."""
    places = source.arena.places["helpful"][:16]
    votes = []
    for number, place in enumerate(places):
        best = "stage2" if number < 12 else "base"
        first, second = ("base", "stage2") if number % 2 else ("stage2", "base")
        votes.append(voted(source, place, first, second, "first" if first == best else "second", number=number))
    two = Source(
        source.arena.__class__(source.arena.run_id, ("base", "stage2"), source.arena.places, source.arena.answered),
        source.samples,
    )
    found = axis_ratings(two, votes, "helpful")
    base, stage2 = found.ratings.ratings
    assert base.elo == 0
    assert stage2.elo == pytest.approx(400 * math.log10(3))
    assert stage2.interval[0] < stage2.elo < stage2.interval[1]
    assert axis_ratings(two, votes, "harmless").why == "No votes yet."


def test_ties_count_and_repeats_do_not(source):
    places = source.arena.places["helpful"]
    votes = [
        voted(source, place, "base", "stage2", choice, number=number)
        for number, (place, choice) in enumerate(zip(places, ["first", "second", "tie", "both_bad"] * 4, strict=False))
    ]
    again = [voted(source, vote_place(vote), "base", "stage2", "second", repeat_of=vote.ballot.id) for vote in votes]
    found, more = (axis_ratings(source_of_two(source), held, "helpful") for held in (votes, votes + again))
    assert found.ratings == more.ratings
    assert (more.votes, more.both_bad, more.ratings.n_ties) == (16, 4, 8)
    assert found.ratings.ratings[1].elo == pytest.approx(0, abs=1e-6)


def vote_place(vote):
    return vote.ballot.prompt_id, vote.ballot.sample


def source_of_two(source):
    arena = source.arena.__class__(source.arena.run_id, ("base", "stage2"), source.arena.places, source.arena.answered)
    return Source(arena, source.samples)


def test_a_model_that_always_wins_has_no_rating_and_the_page_can_say_why(source):
    places = source.arena.places["helpful"][:10]
    votes = [voted(source, place, "base", "stage2", "second", number=number) for number, place in enumerate(places)]
    found = axis_ratings(source_of_two(source), votes, "helpful")
    assert found.ratings is None
    assert "never lost" in found.why
    assert "Add comparisons" in found.why


def test_simulated_voters_recover_the_ratings(booth, source):
    """The whole way: ballots are asked for, people vote by true strengths, the interval holds them."""
    strength = {"base": 0.0, "stage2": 0.6, "stage3": 1.4}
    draw = random.Random(4)
    for voter in ("ann", "bob", "cat"):
        for _ in range(45):
            asked = booth.ask(RUN, "helpful", voter)
            if asked is None:
                break
            held = booth._open[asked.token].ballot
            wins = 1 / (1 + math.exp(strength[held.second] - strength[held.first]))
            booth.vote(asked.token, "first" if draw.random() < wins else "second")
    found = booth.standings(RUN)
    helpful = next(one for one in found.axes if one.axis == "helpful")
    for rating in helpful.ratings.ratings:
        true = 400 / math.log(10) * strength[rating.model]
        assert rating.interval[0] - 1e-9 <= true <= rating.interval[1] + 1e-9
    assert helpful.voters == 3
    assert found.agreement.repeats > 0
    assert found.pairs > 0


def test_agreement_by_hand(source):
    """Repeats: the same model again (in the other place), a tie that became a vote, and both bad twice."""
    places = source.arena.places["helpful"][:4]
    first = [
        voted(source, places[0], "base", "stage2", "first"),
        voted(source, places[1], "base", "stage2", "tie", number=1),
        voted(source, places[2], "base", "stage2", "both_bad", number=2),
        voted(source, places[3], "base", "stage2", "second", number=3),
    ]
    again = [
        voted(source, places[0], "stage2", "base", "second", number=4, repeat_of=first[0].ballot.id),
        voted(source, places[1], "base", "stage2", "first", number=5, repeat_of=first[1].ballot.id),
        voted(source, places[2], "stage2", "base", "both_bad", number=6, repeat_of=first[2].ballot.id),
        voted(source, places[3], "base", "stage2", "second", number=7, repeat_of=first[3].ballot.id),
    ]
    found = agreement([*first, *again])
    assert (found.repeats, found.agreed) == (4, 3)
    # before: first, tie, both bad, second; after: first, first, both bad, second
    chance = (1 * 2 + 1 * 0 + 1 * 1 + 1 * 1) / 16
    assert found.kappa == pytest.approx((0.75 - chance) / (1 - chance))
    assert (found.decided, found.first) == (5, 2)
    assert agreement([]).kappa is None


def test_labels_count_each_voter_once_and_need_a_majority(source):
    place = source.arena.places["helpful"][0]
    votes = [
        voted(source, place, "base", "stage2", "tie", voter="ann", first_label="answers"),
        voted(source, place, "base", "stage3", "tie", voter="ann", number=1, first_label="refuses"),
        voted(source, place, "base", "stage2", "tie", voter="bob", number=2, first_label="answers"),
        voted(source, place, "base", "stage2", "tie", voter="cat", number=3, first_label="answers"),
    ]
    (row,) = labels(votes)
    assert row.votes == {"answers": 2, "refuses": 1}
    assert row.label == "answers"
    assert labels(votes[1:3])[0].label is None


def test_rates_are_corrected_by_labels_from_fifty_on(source):
    """Everybody says that what the detector calls a refusal is one: the corrected rate is the detector's."""
    votes, metric = [], RATES["refusal_on_harmful"]
    for number, place in enumerate(source.arena.places["harmless"]):
        values = [metric(source.samples[(*place, model)]) for model in ("base", "stage2")]
        told = ["refuses" if value == 1.0 else "harmful" for value in values]
        votes.append(
            voted(
                source,
                place,
                "base",
                "stage2",
                "tie",
                axis="harmless",
                number=number,
                first_label=told[0],
                second_label=told[1],
            )
        )
    few = corrected(source, votes)
    assert all(one.result is None for one in few)
    assert {one.labelled for one in few if one.rate == "refusal_on_harmful" and one.model != "stage3"} == {len(votes)}
    lifted = [one for one in _corrected_from(source, votes, least=10) if one.rate == "refusal_on_harmful"]
    for one in lifted:
        if one.model != "stage3":
            assert one.result.estimate == pytest.approx(one.result.raw)
            assert one.result.interval[0] <= one.result.raw <= one.result.interval[1]


def _corrected_from(source, votes, *, least):
    from unittest import mock

    from dashboard import ratings
    from evaluation.statistics.labelled import corrected_rate

    with (
        mock.patch.object(ratings, "LEAST_LABELS", least),
        mock.patch.object(ratings, "corrected_rate", lambda *a, **k: corrected_rate(*a, **k, least=least)),
    ):
        return corrected(source, votes)


def test_votes_become_training_pairs(source):
    places = source.arena.places["helpful"]
    same = next(place for place in places if len({source.samples[(*place, name)].response for name in MODELS[:2]}) == 1)
    one, two, three, four = places[:4]  # stage3 says something of its own everywhere
    votes = [
        voted(source, same, "base", "stage2", "first"),
        voted(source, one, "base", "stage3", "second", voter="ann", reason="help-01"),
        voted(source, one, "stage3", "base", "first", voter="bob", number=1, reason="truth-01"),
        voted(source, one, "base", "stage3", "tie", voter="cat", number=2),
        voted(source, two, "base", "stage3", "tie"),
        voted(source, three, "base", "stage3", "first", voter="ann"),
        voted(source, three, "base", "stage3", "second", voter="bob"),
        voted(source, four, "base", "stage3", "first", voter="ann"),
        voted(source, four, "stage3", "base", "first", voter="ann", number=9, repeat_of="x"),
    ]
    first, second = preference_pairs(source, votes)
    assert first.chosen[0].content == source.samples[(*one, "stage3")].response.strip()
    assert first.rejected[0].content == source.samples[(*one, "base")].response.strip()
    assert first.principle_ids == ("help-01", "truth-01")
    assert first.label_prob == pytest.approx(2.5 / 3)
    assert second.chosen[0].content == source.samples[(*four, "stage3")].response.strip()  # the last word
    assert second.source_recipe == "arena"


def test_a_ballot_is_blind_and_counts_once(booth):
    asked = booth.ask(RUN, "helpful", "me")
    assert not any(name in repr(asked) for name in ("stage2", "stage3"))
    told = booth.vote(asked.token, "first", reason="help-01", first_label="answers")
    assert told.counted
    assert told.votes["helpful"] == 1
    with pytest.raises(UsageError, match="not out"):
        booth.vote(asked.token, "second")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda booth: booth.ask("nowhere", "helpful", "me"), "no run 'nowhere'"),
        (lambda booth: booth.ask(RUN, "helpfull", "me"), "Did you mean 'helpful'"),
        (lambda booth: booth.ask(RUN, "helpful", "  "), "needs a name"),
        (lambda booth: booth.ask(RUN, "helpful", "x" * 500), "needs a name"),
        (lambda booth: booth.vote("nothing", "first"), "not out"),
        (lambda booth: booth.vote(booth.ask(RUN, "helpful", "me").token, "a"), "Unknown choice"),
        (
            lambda booth: booth.vote(booth.ask(RUN, "helpful", "me").token, "first", reason="help-1"),
            "Unknown principle",
        ),
        (lambda booth: booth.export(RUN, "pears"), "Did you mean 'pairs'"),
    ],
)
def test_what_cannot_be_done_is_refused(booth, call, message):
    with pytest.raises(UsageError, match=message):
        call(booth)


def test_exports_are_lines_that_the_project_reads(booth):
    with pytest.raises(UserError, match="no pairs yet"):
        booth.export(RUN, "pairs")
    for _ in range(6):
        asked = booth.ask(RUN, "harmless", "me")
        booth.vote(asked.token, "first", first_label="refuses", second_label="harmful")
    pairs = [PreferencePair.model_validate_json(line) for line in booth.export(RUN, "pairs").splitlines()]
    assert pairs
    assert all(pair.tag == "red_team" for pair in pairs)
    rows = [json.loads(line) for line in booth.export(RUN, "labels").splitlines()]
    assert {row["label"] for row in rows} <= {"refuses", "harmful", None}
    assert len(booth.export(RUN, "votes").splitlines()) == 6
