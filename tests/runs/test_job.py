"""What a Job tells its processes: shards, and when to stop."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runs.errors import Preempted, UsageError
from runs.job import Shard, parse_shard, preemptible, stop_flag


@pytest.mark.parametrize(("text", "shard"), [("0/1", (0, 1)), ("2/8", (2, 8)), ("auto/4", (3, 4)), ("auto", (3, 5))])
def test_shards_are_read_from_the_command_line_or_the_job(text, shard, monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    monkeypatch.setenv("JOB_COMPLETIONS", "5")
    found = parse_shard(text)
    assert (found.index, found.count) == shard
    assert parse_shard(str(found)) == found


@pytest.mark.parametrize("text", ["", "1", "8/8", "-1/2", "a/b", "1/0", "auto/x", "AUTO"])
def test_what_is_no_shard_is_refused(text, monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    with pytest.raises(UsageError):
        parse_shard(text)


def test_auto_outside_a_job_names_the_variable(monkeypatch):
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    with pytest.raises(UsageError, match="JOB_COMPLETION_INDEX, which is not set"):
        parse_shard("auto/8")


@settings(deadline=None)
@given(batches=st.lists(st.integers(), min_size=1, max_size=60), count=st.integers(1, 60))
def test_shards_are_disjoint_complete_and_even(batches, count):
    if len(batches) < count:
        with pytest.raises(UsageError, match="cannot be shared"):
            Shard(index=0, count=count).of(batches)
        return
    numbered = list(enumerate(batches))
    parts = [Shard(index=index, count=count).of(numbered) for index in range(count)]
    assert sorted(row for part in parts for row in part) == numbered
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_sigterm_raises_a_flag_or_leaves():
    before = signal.getsignal(signal.SIGTERM)
    with stop_flag() as stopped:
        assert not stopped
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped
    with pytest.raises(Preempted) as left, preemptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert left.value.exit_code == 75
    assert signal.getsignal(signal.SIGTERM) == before
