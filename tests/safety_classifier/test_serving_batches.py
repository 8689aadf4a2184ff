"""The batcher alone: which waiting texts share a call of the model."""

import asyncio

import pytest

from safety_classifier.serving.batcher import Batcher, QueueFull, estimated_tokens
from safety_classifier.serving.metrics import Metrics
from safety_classifier.serving.settings import BatchSection
from tests.safety_classifier.stand_in import StandIn


def batcher_calls(submissions, **settings):
    """The calls that result when all submissions wait while the model is busy."""
    judge = StandIn()

    async def go():
        batcher = Batcher(judge, BatchSection(window_ms=0, **settings), Metrics())
        batcher.start()
        judge.gate.clear()
        first = asyncio.create_task(batcher.submit(["first"], [""]))
        while not judge.entered.is_set():
            await asyncio.sleep(0.002)
        tasks = [asyncio.create_task(batcher.submit(texts, [""] * len(texts))) for texts in submissions]
        await asyncio.sleep(0.01)
        judge.gate.set()
        await asyncio.gather(first, *tasks)
        await batcher.close()

    asyncio.run(go())
    return judge.calls[1:]


def test_a_call_holds_rows_of_similar_length():
    short, long = [f"short {n}" for n in range(6)], [f"long {n} " * 100 for n in range(6)]
    mixed = [[text] for pair in zip(short, long, strict=True) for text in pair]
    calls = batcher_calls(mixed, max_rows=6)
    assert sorted(calls[0]) == short
    assert sorted(calls[1]) == sorted(long)


def test_a_call_keeps_to_its_rows_and_tokens():
    calls = batcher_calls([["abcd" * 10] * 30], max_rows=8)
    assert max(len(call) for call in calls) == 8
    calls = batcher_calls([["abcd" * 98] * 10], max_tokens=300)  # 100 tokens each
    assert [len(call) for call in calls] == [3, 3, 3, 1]
    calls = batcher_calls([["a" * 9000], ["b" * 9000]], max_tokens=300)  # longer than a call: one each
    assert [len(call) for call in calls] == [1, 1]


def test_a_large_request_does_not_keep_a_small_one_waiting():
    calls = batcher_calls([["abcd" * 98] * 200, ["abcd" * 98 + "!"]], max_tokens=300, max_queue_tokens=100_000)
    place = next(number for number, call in enumerate(calls) if any(text.endswith("!") for text in call))
    assert place <= 2 < len(calls)


def test_estimated_tokens_are_near_for_words_and_for_other_scripts():
    assert estimated_tokens("", "") == 2
    assert estimated_tokens("a plain English sentence of words", "") == 10
    assert estimated_tokens("汉" * 40, "") == 32


def test_the_batcher_refuses_what_does_not_fit():
    async def full():
        batcher = Batcher(StandIn(), BatchSection(max_queue_rows=2), Metrics())
        with pytest.raises(QueueFull):
            await batcher.submit(["a"] * 3, [""] * 3)
        assert await batcher.submit([], []) == []

    asyncio.run(full())
