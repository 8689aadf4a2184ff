"""The engine for served models, against a real server on loopback, whole and under every fault."""

from __future__ import annotations

import itertools
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from inference.engines.openai import OpenAIEngine
from inference.engines.transformers import TransformersEngine
from inference.records import Completion, Message, Request, Sampling
from inference.remote.budget import most_prompt_tokens
from inference.remote.faults import ServerStopped, error_fault, retry_after
from inference.remote.journal import Failure, Reply
from inference.remote.labels import read_labels
from inference.remote.server import Prices, Server
from inference.remote.wire import chat_body
from runs.errors import UsageError
from runs.records import read_jsonl
from tests.inference.openai_server import MODEL, Loopback, serving

QUESTIONS = [f"What is {number} and {number}?" for number in range(6)]
GREEDY = Sampling(max_new_tokens=8)
FAST = {"first_wait_s": 0.02, "longest_wait_s": 0.1}


def ask(text: str, key: str | None = None, sample: int = 0) -> Request:
    return Request(key=key or text, messages=(Message(role="user", content=text),), sample=sample)


REQUESTS = [ask(text) for text in QUESTIONS]


def server(loopback: Loopback, **changes: Any) -> Server:
    values = {"base_url": loopback.url, "model": MODEL, "retries": FAST, "concurrency": 3} | changes
    return Server.model_validate(values)


def engine(loopback: Loopback, folder: Path | None = None, **changes: Any) -> OpenAIEngine:
    return OpenAIEngine(server(loopback, **changes), "served", folder)


def by_key(completions: list[Completion]) -> dict[str, Completion]:
    assert len({done.key for done in completions}) == len(completions)
    return {done.key: done for done in completions}


def failures(folder: Path) -> list[Failure]:
    path = folder / "failures-served.jsonl"
    return read_jsonl(path, Failure) if path.exists() else []


def replies(folder: Path) -> list[Reply]:
    return read_jsonl(folder / ".replies" / "served.jsonl", Reply)


# Whole


def test_answers_are_those_of_the_model_behind_the_server(loopback: Loopback, local_engine: TransformersEngine) -> None:
    served = by_key(list(engine(loopback).generate(REQUESTS, GREEDY)))
    local = by_key(list(local_engine.generate(REQUESTS, GREEDY)))
    assert served.keys() == local.keys()
    for key, done in served.items():
        assert done.model_dump(exclude={"seed"}) == local[key].model_dump(exclude={"seed"})


def test_sampling_is_seeded_by_row(loopback: Loopback) -> None:
    warm = Sampling(max_new_tokens=8, temperature=1.0, top_p=0.9, repetition_penalty=1.1, seed=3)
    rows = [ask(QUESTIONS[0], key=str(sample), sample=sample) for sample in range(3)]
    first = by_key(list(engine(loopback).generate(rows, warm)))
    again = by_key(list(engine(loopback).generate(rows[::-1], warm)))
    assert first == again
    assert len({done.seed for done in first.values()}) == 3
    assert all(0 <= body["seed"] < 2**31 and body["repetition_penalty"] == 1.1 for body in loopback.bodies)


def test_requests_in_flight_are_bounded_and_used(loopback: Loopback) -> None:
    loopback.delay = 0.05
    list(engine(loopback, concurrency=3).generate(REQUESTS, GREEDY))
    assert loopback.most_at_once == 3


def test_skipped_keys_are_not_asked(loopback: Loopback) -> None:
    done = list(engine(loopback).generate(REQUESTS, GREEDY, skip=frozenset(QUESTIONS[:4])))
    assert sorted(row.key for row in done) == QUESTIONS[4:]
    assert len(loopback.bodies) == 2


def test_stream_grows_to_the_answer(loopback: Loopback, local_engine: TransformersEngine) -> None:
    *parts, last = engine(loopback).stream(REQUESTS[0], GREEDY)
    (local,) = local_engine.generate(REQUESTS[:1], GREEDY)
    assert last.completion is not None
    assert last.completion.text == last.text == local.text
    assert parts
    assert all(later.text.startswith(earlier.text) for earlier, later in itertools.pairwise(parts))
    asked = iter([False, False, True])
    stopped = list(engine(loopback).stream(REQUESTS[1], GREEDY, stopped=lambda: next(asked, True)))
    assert not [part for part in stopped if part.completion]


def test_labels_are_scored_as_the_model_does(loopback: Loopback, local_engine: TransformersEngine) -> None:
    served = {row.key: row for row in engine(loopback).label_logprobs(REQUESTS, ["A", "B"])}
    local = {row.key: row for row in local_engine.label_logprobs(REQUESTS, ["A", "B"])}
    assert served.keys() == local.keys()
    for key, row in served.items():
        for label, value in row.logprobs.items():
            # The server lists ten letters, two spellings each; one that is missing is less likely than those.
            assert value is None or value == pytest.approx(local[key].logprobs[label], abs=1e-6)
    assert any(value is not None for row in served.values() for value in row.logprobs.values())


# Resuming


def test_nothing_is_asked_twice(loopback: Loopback, tmp_path: Path) -> None:
    running = engine(loopback, tmp_path).generate(REQUESTS, GREEDY)
    seen = [next(running), next(running)]
    running.close()
    kept = {reply.text for reply in replies(tmp_path)}
    assert {done.text for done in seen} <= kept
    whole = by_key(list(engine(loopback, tmp_path).generate(REQUESTS, GREEDY)))
    assert len(whole) == 6
    asked = len(loopback.bodies)
    again = engine(loopback, tmp_path)
    assert by_key(list(again.generate(REQUESTS, GREEDY))) == whole
    assert len(loopback.bodies) == asked
    assert again.usage["requests"] == 0
    assert len(replies(tmp_path)) == 6


def test_closing_early_does_not_wait_for_the_server(loopback: Loopback, tmp_path: Path) -> None:
    loopback.faults.extend(["ok", "hang", "hang"])
    running = engine(loopback, tmp_path).generate(REQUESTS[:3], GREEDY)
    next(running)
    start = time.monotonic()
    running.close()
    assert time.monotonic() - start < 10  # the server would hold the requests for an hour


# Faults that pass


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429", "rate_limited"),
        ("500", "server_error"),
        ("503", "server_error"),
        ("error200", "server_error"),
        ("cut", "cut"),
        ("broken", "malformed"),
    ],
)
def test_a_passing_fault_is_tried_again(loopback: Loopback, tmp_path: Path, fault: str, reason: str) -> None:
    loopback.faults.extend([fault, "ok", fault, fault])
    whole = by_key(list(engine(loopback, tmp_path).generate(REQUESTS, GREEDY)))
    assert sorted(whole) == QUESTIONS
    assert [failure.reason for failure in failures(tmp_path)] == [reason] * 3
    assert not any(failure.final for failure in failures(tmp_path))
    assert len(replies(tmp_path)) == 6
    data = (tmp_path / ".replies" / "served.jsonl").read_text()
    for word in ("Slow down", "Something is wrong", "Upstream", "half of an"):
        assert word not in data
    assert len(loopback.answered) == 6


def test_a_hanging_server_is_tried_again(loopback: Loopback, tmp_path: Path) -> None:
    loopback.faults.extend(["hang", "hang"])
    whole = list(engine(loopback, tmp_path, timeouts={"read_s": 1.0}).generate(REQUESTS, GREEDY))
    assert len(whole) == 6
    # On a machine that is busy, a request that does not hang may be too late as well.
    assert len(failures(tmp_path)) >= 2
    assert {failure.reason for failure in failures(tmp_path)} == {"timeout"}


def test_retry_after_holds_everyone_back(loopback: Loopback, tmp_path: Path) -> None:
    loopback.faults.append("429:1")
    list(engine(loopback, tmp_path, concurrency=1).generate(REQUESTS[:3], GREEDY))
    first, second = loopback.arrived[:2]
    assert second - first >= 1.0
    loopback.arrived.clear()
    loopback.faults.extend(["429:1", "ok"])
    list(engine(loopback, tmp_path / "b", concurrency=2).generate(REQUESTS, GREEDY))
    # What was in flight beside the refused request ends; nothing new starts before the second is over.
    assert sum(moment - loopback.arrived[0] < 0.9 for moment in loopback.arrived) <= 2


def test_retry_after_reads_numbers_and_dates() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after("7", now) == 7.0
    assert retry_after((now + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT"), now) == 90.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now) == 0.0
    assert retry_after("soon", now) is None
    assert retry_after(None) is None


def test_a_pause_that_is_too_long_ends_the_run(loopback: Loopback, tmp_path: Path) -> None:
    loopback.faults.extend(["ok", "429:86400"])
    taken = []
    with pytest.raises(ServerStopped, match="left alone for 86400 s"):
        taken.extend(engine(loopback, tmp_path, concurrency=1).generate(REQUESTS, GREEDY))
    assert len(loopback.arrived) == 2
    assert len(list(engine(loopback, tmp_path).generate(REQUESTS, GREEDY))) == 6


def test_waits_double_and_are_spread(loopback: Loopback) -> None:
    client = engine(loopback, retries={"first_wait_s": 1.0, "longest_wait_s": 8.0})._client
    fault = error_fault({"code": 500}, None)
    waits = {key: [client.pause(fault, key, attempt) for attempt in range(1, 7)] for key in "abcdefgh"}
    for row in waits.values():
        for attempt, wait in enumerate(row):
            full = min(8.0, 2.0**attempt)
            assert full / 2 <= wait <= full
    assert len({row[0] for row in waits.values()}) == 8


# Faults that stay


def test_a_request_that_is_given_up_is_left_out(loopback: Loopback, tmp_path: Path) -> None:
    loopback.faults.extend(["ok", "filter", "ok", "400"])
    first = by_key(list(engine(loopback, tmp_path, concurrency=1).generate(REQUESTS, GREEDY)))
    assert sorted(first) == [QUESTIONS[index] for index in (0, 2, 4, 5)]
    assert [(row.reason, row.status, row.final) for row in failures(tmp_path)] == [
        ("content_filter", 200, True),
        ("rejected", 400, True),
    ]
    assert len(list(engine(loopback, tmp_path).generate(REQUESTS, GREEDY))) == 6


def test_wrong_key_stops_at_once_and_shows_no_key(
    local_engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-wrong-key-of-the-test")
    with serving(Loopback(local_engine, key="sk-right")) as guarded:
        asking = engine(guarded, tmp_path, api_key_env="TEST_KEY", concurrency=1)
        with pytest.raises(ServerStopped, match=r"does not accept the API key(.|\n)*TEST_KEY") as caught:
            list(asking.generate(REQUESTS, GREEDY))
        assert len(guarded.arrived) == 1
        written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
        for place in (str(caught.value), written, repr(asking.server), json.dumps(asking.identity)):
            assert "wrong-key" not in place
        monkeypatch.setenv("TEST_KEY", "sk-right")
        assert len(list(engine(guarded, tmp_path, api_key_env="TEST_KEY").generate(REQUESTS, GREEDY))) == 6
    assert not any("sk-right" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_key_in_a_servers_own_words_is_blotted_out(
    local_engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret-of-the-test")
    with serving(Loopback(local_engine)) as careless:
        careless.faults.append("500")
        list(engine(careless, tmp_path, api_key_env="TEST_KEY").generate(REQUESTS, GREEDY))
    (failure,) = failures(tmp_path)
    assert failure.detail == "Something is wrong with [key]."


def test_missing_key_is_named(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(UsageError, match="TEST_KEY holds no API key"):
        engine(loopback, api_key_env="TEST_KEY")


@pytest.mark.parametrize(
    ("fault", "words"), [("402", "no credit left"), ("404", "no such model"), ("no_usage", "how many tokens")]
)
def test_faults_that_every_request_would_meet_stop_at_once(
    loopback: Loopback, tmp_path: Path, fault: str, words: str
) -> None:
    loopback.faults.extend(["ok", fault])
    with pytest.raises(ServerStopped, match=words):
        list(engine(loopback, tmp_path, concurrency=1).generate(REQUESTS, GREEDY))
    assert len(loopback.arrived) == 2


def test_what_is_in_flight_is_kept_when_the_run_stops(loopback: Loopback, tmp_path: Path) -> None:
    loopback.delay = 0.1
    loopback.faults.extend(["ok", "402", "ok"])
    taken: list[Completion] = []
    with pytest.raises(ServerStopped):
        taken.extend(iter_into(engine(loopback, tmp_path).generate(REQUESTS, GREEDY), taken))
    assert len(taken) == len(replies(tmp_path)) == len(loopback.answered) == 2


def iter_into(source: Any, taken: list[Completion]) -> list[Completion]:
    for done in source:
        taken.append(done)
    return []


def test_a_server_that_is_not_there(tmp_path: Path, loopback: Loopback) -> None:
    gone = engine(loopback, tmp_path, base_url="http://127.0.0.1:9/v1", retries=FAST | {"attempts": 2}, concurrency=1)
    with pytest.raises(ServerStopped, match="does not answer") as caught:
        list(gone.generate(REQUESTS, GREEDY))
    assert "127.0.0.1:9" in str(caught.value)
    assert [row.reason for row in failures(tmp_path)] == ["unreachable"] * 6
    assert [row.final for row in failures(tmp_path)] == [False, True] * 3


def test_a_server_that_rejects_everything(loopback: Loopback, tmp_path: Path) -> None:
    loopback.faults.extend(["400"] * 6)
    with pytest.raises(ServerStopped, match="rejects every request"):
        list(engine(loopback, tmp_path, concurrency=1).generate(REQUESTS, GREEDY))
    assert len(loopback.arrived) == 3


def test_a_cut_stream_is_no_answer(loopback: Loopback, tmp_path: Path) -> None:
    loopback.faults.append("cut")
    with pytest.raises(ServerStopped, match="no whole answer"):
        list(engine(loopback, tmp_path).stream(REQUESTS[0], GREEDY))
    assert [failure.reason for failure in failures(tmp_path)] == ["cut"]
    assert not replies(tmp_path)
    loopback.faults.extend(["500", "429"])
    *_, last = engine(loopback, tmp_path).stream(REQUESTS[0], GREEDY)
    assert last.completion is not None


def test_absent_log_probabilities_are_an_error(loopback: Loopback, tmp_path: Path) -> None:
    loopback.faults.append("no_logprobs")
    with pytest.raises(ServerStopped, match=r"no log-probabilities, and this step reads them(.|\n)*engine: self"):
        list(engine(loopback, tmp_path, concurrency=1).label_logprobs(REQUESTS, ["A", "B"]))
    assert len(loopback.arrived) == 1


# Money

PRICES = {"prompt": 2.0, "completion": 10.0}


def test_costs_are_counted(loopback: Loopback, tmp_path: Path) -> None:
    paying = engine(loopback, tmp_path, prices=PRICES)
    done = list(paying.generate(REQUESTS, GREEDY))
    expected = sum(row.prompt_tokens * 2.0 + row.completion_tokens * 10.0 for row in done) / 1e6
    assert paying.usage["spent_usd"] == pytest.approx(expected, abs=1e-6)
    assert sum(reply.cost_usd for reply in replies(tmp_path)) == pytest.approx(expected)
    assert paying.usage["prompt_tokens"] == sum(row.prompt_tokens for row in done)


def test_spending_stops_before_the_limit_and_goes_on_with_a_higher_one(loopback: Loopback, tmp_path: Path) -> None:
    worst = Prices(**PRICES).cost(most_prompt_tokens(REQUESTS[0].messages), GREEDY.max_new_tokens)
    limit = 1.5 * worst
    taken: list[Completion] = []
    poor = engine(loopback, tmp_path, prices=PRICES, limit_usd=limit)
    with pytest.raises(ServerStopped, match="spending limit"):
        iter_into(poor.generate(REQUESTS, GREEDY), taken)
    # One at a time fits: the others waited for what it really cost, and did not stop the run.
    assert 1 < len(taken) == len(replies(tmp_path)) < 6
    assert poor.usage["spent_usd"] <= limit
    asked = len(loopback.bodies)
    # The limit is the run's: a new process knows what the last one spent.
    still = engine(loopback, tmp_path, prices=PRICES, limit_usd=poor.usage["spent_usd"] + worst / 2)
    with pytest.raises(ServerStopped, match="spending limit"):
        list(still.generate(REQUESTS, GREEDY))
    assert len(loopback.bodies) == asked
    rich = engine(loopback, tmp_path, prices=PRICES, limit_usd=1.0)
    assert len(list(rich.generate(REQUESTS, GREEDY))) == 6
    assert len(loopback.bodies) == 6


def test_what_may_have_been_billed_counts(loopback: Loopback, tmp_path: Path) -> None:
    loopback.faults.extend(["hang", "500"])
    paying = engine(loopback, tmp_path, prices=PRICES, timeouts={"read_s": 1.0}, concurrency=1)
    list(paying.generate(REQUESTS[:1], GREEDY))
    failed = failures(tmp_path)
    assert [failure.reason for failure in failed][:2] == ["timeout", "server_error"]
    assert all((failure.cost_usd > 0) == (failure.reason == "timeout") for failure in failed)
    (reply,) = replies(tmp_path)
    again = engine(loopback, tmp_path, prices=PRICES)
    list(again.generate(REQUESTS[:1], GREEDY))
    assert again.usage["spent_usd"] == pytest.approx(sum(row.cost_usd for row in failed) + reply.cost_usd, abs=1e-6)


# Configs and bodies


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"base_url": "https://me:sk-1@host/v1"}, "user, password or query"),
        ({"base_url": "https://host/v1?key=1"}, "user, password or query"),
        ({"base_url": "host/v1"}, "http"),
        ({"limit_usd": 1.0}, "prices"),
        ({"extra_body": {"seed": 1}}, "seed"),
    ],
)
def test_unusable_sections_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Server.model_validate({"base_url": "http://127.0.0.1/v1", "model": "m"} | values)


def test_identity_is_the_model_not_the_port() -> None:
    def identity(**values: Any) -> dict[str, str]:
        return Server.model_validate({"base_url": "http://127.0.0.1:8000/v1", "model": "m"} | values).identity

    base = identity()
    assert base == identity(base_url="http://localhost:9/v1", concurrency=2, prices=PRICES, limit_usd=3.0)
    assert base == identity(api_key_env="K", timeouts={"read_s": 1.0})
    for change in ({"model": "n"}, {"base_url": "http://far/v1"}, {"dialect": "openai"}, {"extra_body": {"x": 1}}):
        assert base != identity(**change)
    assert identity(base_url="http://far:1/v1", served_by="lab") == identity(base_url="http://b/v1", served_by="lab")


def test_dialects() -> None:
    warm = Sampling(max_new_tokens=5, temperature=0.5, top_p=0.9, repetition_penalty=1.2)

    def body(dialect: str, sampling: Sampling) -> dict[str, Any]:
        section = Server.model_validate({"base_url": "http://h/v1", "model": "m", "dialect": dialect})
        made = chat_body(section, REQUESTS[0].messages, sampling, 7)
        return {key: value for key, value in made.items() if key not in ("model", "messages")}

    sampled = {"temperature": 0.5, "top_p": 0.9, "seed": 7}
    assert body("vllm", warm) == sampled | {"max_tokens": 5, "repetition_penalty": 1.2}
    plain = warm.model_copy(update={"repetition_penalty": 1.0})
    assert body("openai", plain) == sampled | {"max_completion_tokens": 5}
    made = body("transformers", warm)
    assert json.loads(made.pop("generation_config")) == {"do_sample": True, "repetition_penalty": 1.2}
    assert made == sampled | {"max_tokens": 5}
    assert body("transformers", GREEDY) == {"temperature": 0.0, "max_tokens": 8}


def test_openais_own_dialect_has_no_repetition_penalty(loopback: Loopback) -> None:
    with pytest.raises(UsageError, match="repetition penalty"):
        list(engine(loopback, dialect="openai").generate(REQUESTS, Sampling(repetition_penalty=1.1)))
    assert not loopback.bodies


def test_labels_sum_their_spellings() -> None:
    assert read_labels({"A": -1.0, "B": -2.0}, ["A", "B", "C"]) == {"A": -1.0, "B": -2.0, "C": None}
    summed = read_labels({"A": -1.0, " A": -1.0, "AB": -0.1}, ["A"])["A"]
    assert summed == pytest.approx(-1.0 + 0.6931471805599453)
