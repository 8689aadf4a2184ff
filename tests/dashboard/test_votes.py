"""Votes: one line each, many writers, a torn tail, a second click; and what is asked next."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from statistics import fmean

import pytest

from dashboard.pairing import Arena, next_ballot, uncertainty
from dashboard.votes import Ballot, VoteLog, cast
from runs.errors import IntegrityError, UsageError

MODELS = ("base", "stage2", "stage3")


def arena(prompts=40, seed=0):
    places = tuple((f"p{number}", 0) for number in range(prompts))
    return Arena(
        "run", MODELS, {"helpful": places, "harmless": places[:3]}, dict.fromkeys(places, frozenset(MODELS)), seed
    )


def ballot(number=0, voter="me", first="base", second="stage2", **more):
    fields = {"run_id": "run", "axis": "helpful", "prompt_id": f"p{number}", "sample": 0, **more}
    return Ballot.make(voter=voter, number=number, first=first, second=second, **fields)


def session(there, length, choose, voter="me", votes=()):
    """A voter's ballots and votes, one after the other."""
    made = list(votes)
    for _ in range(length):
        asked = next_ballot(there, made, "helpful", voter)
        if asked is None:
            break
        made.append(cast(asked, choose(asked)))
    return made


def test_a_vote_survives_and_a_second_click_counts_once(tmp_path):
    log = VoteLog(tmp_path / "votes" / "run.jsonl")
    assert log.read() == ()
    vote = cast(ballot(), "first", reason="harm-01", first_label="answers", second_label="refuses", seconds=3.21)
    assert log.append(vote)
    assert not log.append(cast(ballot(), "second"))
    assert VoteLog(log.path).read() == log.read() == (vote,)
    assert vote.winner == "base"
    assert log.path.read_bytes().count(b"\n") == 1


def test_what_a_writer_that_died_left_is_cut_off_by_the_next(tmp_path):
    log = VoteLog(tmp_path / "run.jsonl")
    log.append(cast(ballot(0), "first"))
    whole = log.path.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        log.path.write_bytes(whole + whole[:cut])
        assert len(VoteLog(log.path).read()) == 1
    assert VoteLog(log.path).append(cast(ballot(1), "tie"))
    assert [vote.choice for vote in VoteLog(log.path).read()] == ["first", "tie"]


def test_an_edited_line_is_named(tmp_path):
    log = VoteLog(tmp_path / "run.jsonl")
    log.append(cast(ballot(0), "first"))
    with log.path.open("a") as handle:
        handle.write('{"choice": "first"}\n')
    with pytest.raises(IntegrityError, match="line 2: not a vote"):
        VoteLog(log.path).read()


def test_readers_see_what_others_wrote_since(tmp_path):
    one, two = VoteLog(tmp_path / "run.jsonl"), VoteLog(tmp_path / "run.jsonl")
    for number in range(6):
        (one if number % 2 else two).append(cast(ballot(number), "first"))
        assert len(one.read()) == len(two.read()) == number + 1
    one.path.unlink()
    assert one.read() == ()


def write_many(path, voter, count):
    log = VoteLog(path)
    for number in range(count):
        log.append(cast(ballot(number, voter), "first", reason="x" * 150))


def test_several_processes_write_whole_lines(tmp_path):
    path = tmp_path / "run.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(path, f"voter{index}", 40)) for index in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    votes = VoteLog(path).read()
    assert Counter(vote.ballot.voter for vote in votes) == dict.fromkeys([f"voter{index}" for index in range(4)], 40)


@pytest.mark.parametrize("values", [("frist",), ("first", "answer"), ("first", "refuse")])
def test_unknown_choices_and_labels_come_with_the_nearest(values):
    with pytest.raises(UsageError, match="Did you mean"):
        cast(ballot(), values[0], first_label=values[1] if len(values) > 1 else None)


def test_a_session_can_be_replayed_and_another_seed_or_voter_differs():
    def choose(asked):
        return "first"

    one, two = session(arena(), 30, choose), session(arena(), 30, choose)
    assert [vote.ballot for vote in one] == [vote.ballot for vote in two]
    others = session(arena(), 30, choose, voter="you"), session(arena(seed=1), 30, choose)
    for other in others:
        assert [vote.ballot.prompt_id for vote in other] != [vote.ballot.prompt_id for vote in one]


def test_the_order_is_drawn_evenly():
    votes = session(arena(200), 400, lambda asked: "tie")
    first = fmean(MODELS.index(vote.ballot.first) < MODELS.index(vote.ballot.second) for vote in votes)
    assert 0.42 < first < 0.58


def test_the_least_certain_contrast_comes_next_and_every_contrast_gets_votes():
    held = [cast(ballot(number, "you", "base", "stage2"), "first" if number % 2 else "second") for number in range(30)]
    asked = next_ballot(arena(), held, "helpful", "me")
    assert "stage3" in (asked.first, asked.second)
    errors = uncertainty(MODELS, held)
    assert errors["base", "stage2"] == min(errors.values())
    votes = session(arena(), 60, lambda one: "first" if one.first < one.second else "second")
    pairs = Counter(frozenset((vote.ballot.first, vote.ballot.second)) for vote in votes)
    assert min(pairs.values()) >= 10


def test_uncertainty_is_that_of_the_information_matrix():
    """Two models, n even votes: variance of the log-odds 4 / n; a chain of two such contrasts has twice that."""
    votes = [cast(ballot(number, "me", "base", "stage2"), "first" if number % 2 else "second") for number in range(400)]
    assert uncertainty(MODELS[:2], votes)["base", "stage2"] == pytest.approx((4 / 400.5) ** 0.5, rel=1e-6)
    votes += [
        cast(ballot(number, "you", "stage2", "stage3"), "first" if number % 2 else "second") for number in range(400)
    ]
    assert uncertainty(MODELS, votes)["base", "stage3"] == pytest.approx((8 / 400) ** 0.5, rel=0.01)


def test_prompts_take_turns_whatever_was_voted():
    def prompts(choose):
        return [vote.ballot.prompt_id for vote in session(arena(), 40, choose) if not vote.ballot.repeat_of]

    counts = Counter(prompts(lambda asked: "tie"))
    assert len(counts) > 15
    assert max(counts.values()) <= 4


def test_repeats_come_now_and_then_once_each_and_not_at_once():
    votes = session(arena(100), 200, lambda asked: "first")
    places = {vote.ballot.id: index for index, vote in enumerate(votes)}
    repeats = [(index, vote.ballot) for index, vote in enumerate(votes) if vote.ballot.repeat_of]
    assert 12 <= len(repeats) <= 42
    assert len({one.repeat_of for _, one in repeats}) == len(repeats)
    for index, again in repeats:
        earlier = votes[places[again.repeat_of]].ballot
        assert index - places[again.repeat_of] >= 5
        assert not earlier.repeat_of
        assert {earlier.first, earlier.second, earlier.prompt_id} == {again.first, again.second, again.prompt_id}
    turned = [one for _, one in repeats if one.first != votes[places[one.repeat_of]].ballot.first]
    assert 0 < len(turned) < len(repeats)


def test_a_voter_who_has_seen_all_is_asked_nothing():
    small = arena(4)
    votes = session(small, 100, lambda asked: "tie")
    assert len({(v.ballot.prompt_id, frozenset((v.ballot.first, v.ballot.second))) for v in votes}) == 12
    assert next_ballot(small, [v for v in votes if not v.ballot.repeat_of], "helpful", "you") is not None


def test_only_models_that_answered_are_shown():
    places = (("p0", 0), ("p1", 0))
    there = Arena(
        "run",
        MODELS,
        {"helpful": places, "harmless": ()},
        {places[0]: frozenset(MODELS[:2]), places[1]: frozenset(MODELS[1:])},
    )
    votes = session(there, 10, lambda asked: "tie")
    assert {frozenset((v.ballot.first, v.ballot.second)) for v in votes} == {
        frozenset(MODELS[:2]),
        frozenset(MODELS[1:]),
    }
    assert next_ballot(there, (), "harmless", "me") is None
