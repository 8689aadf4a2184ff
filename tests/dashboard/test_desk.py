"""One thing at a time, everybody in turn, a stop that reaches the work, and errors that reach the asker."""

import threading

import pytest

from dashboard.desk import MAX_EACH, Desk, Waiting
from runs.errors import UserError


class Steps:
    """Work whose steps a test lets happen, one by one."""

    def __init__(self, name="", count=3, log=None):
        self.name, self.count, self.log = name, count, log if log is not None else []
        self.go = threading.Semaphore(0)

    def __call__(self, stopped):
        for step in range(self.count):
            self.go.acquire(timeout=10)
            if stopped():
                self.log.append(f"{self.name} stopped")
                return
            self.log.append(f"{self.name}{step}")
            yield f"{self.name}{step}"


def states(job):
    return [state for state in job.watch() if not isinstance(state, Waiting)]


def test_a_job_runs_to_its_end_and_the_watcher_sees_the_last_state():
    steps = Steps("a")
    job = Desk().submit("me", steps)
    steps.go.release(3)
    assert states(job)[-1] == "a2"


def test_askers_take_turns_and_each_ones_jobs_keep_their_order():
    desk, log = Desk(), []
    first = Steps("hold", 1, log)
    holding = desk.submit("z", first)
    works = [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")]
    jobs = [desk.submit(asker, Steps(name + ".", 1, log)) for asker, name in works]
    assert [desk.ahead(job) for job in jobs] == [1, 4, 6, 2, 3, 5]
    for job in jobs:
        job._work.go.release()
    first.go.release()
    for job in (holding, *jobs):
        states(job)
    assert log == ["hold0", "a1.0", "b1.0", "c1.0", "a2.0", "b2.0", "a3.0"]


def test_a_stop_ends_the_work_at_its_next_step():
    desk, steps = Desk(), Steps("a", 100)
    job = desk.submit("me", steps)
    seen = job.watch()
    steps.go.release()
    assert next(state for state in seen if state == "a0")
    assert desk.stop("me") == 1
    steps.go.release(100)
    assert list(seen) == []
    assert steps.log == ["a0", "a stopped"]
    assert desk.stop("me") in (0, 1)


def test_a_watcher_that_leaves_stops_the_work():
    desk, steps = Desk(), Steps("a", 100)
    job = desk.submit("me", steps)
    seen = job.watch()
    steps.go.release()
    next(state for state in seen if state == "a0")
    seen.close()
    assert job.stopped
    steps.go.release(100)
    after = Steps("b", 1)
    after.go.release()
    assert states(desk.submit("me", after)) == ["b0"]
    assert steps.log == ["a0", "a stopped"]


def test_a_job_that_waits_is_stopped_without_being_begun():
    desk, first, second = Desk(), Steps("a", 1), Steps("b", 1)
    running, waiting = desk.submit("me", first), desk.submit("you", second)
    seen = waiting.watch()
    assert next(seen) == Waiting(1)
    desk.stop("you")
    assert list(seen) == []
    first.go.release()
    assert states(running) == ["a0"]
    assert second.log == []


def test_an_error_is_the_askers_and_the_worker_goes_on():
    def fails(stopped):
        yield "begun"
        raise UserError("No such model.")

    desk, after = Desk(), Steps("b", 1)
    broken = desk.submit("me", fails)
    fine = desk.submit("you", after)
    after.go.release()
    with pytest.raises(UserError, match="No such model"):
        states(broken)
    assert states(fine) == ["b0"]


def test_an_asker_may_have_only_so_much_waiting():
    desk, hold = Desk(), Steps("a", 1)
    running = desk.submit("me", hold)
    for _ in range(MAX_EACH + 1):
        try:
            desk.submit("me", Steps("x", 0))
        except UserError as error:
            refused = error
    assert "waiting already" in refused.what
    desk.submit("you", Steps("y", 0))
    hold.go.release()
    states(running)


def test_the_worker_lives_only_while_there_is_work():
    desk = Desk()
    for round_ in range(3):
        steps = Steps(f"r{round_}.", 1)
        steps.go.release()
        assert states(desk.submit("me", steps)) == [f"r{round_}.0"]
