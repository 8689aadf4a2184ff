"""One worker, many askers: jobs on something that does one thing at a time, each asker in turn.

A job is a generator that runs in the worker's thread; whoever asked watches its latest state from another thread. So
the work neither waits for a slow watcher nor goes on for one that has left, and a stop reaches it at its next step.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from runs.errors import UserError

State = TypeVar("State")
Work = Callable[[Callable[[], bool]], Iterator[State]]
"""Given a function that says whether to stop, yields its state after each step."""

MAX_EACH = 3
"""Jobs that one asker may have waiting."""
MAX_WAITING = 100
"""Jobs that may wait in all."""
LOOK = 0.5
"""Seconds after which a watcher looks at its place in the queue again."""


@dataclass(frozen=True)
class Waiting:
    """The job has not begun."""

    ahead: int
    """Jobs before it, the one being worked on included."""


class Job(Generic[State]):
    """One piece of work, and what its asker sees of it."""

    def __init__(self, desk: Desk, asker: str, work: Work[State]) -> None:
        self.asker, self._desk, self._work = asker, desk, work
        self._changed = threading.Condition()
        self._stopped, self._begun, self._done = False, False, False
        self._states = 0
        self._latest: State | None = None
        self._error: BaseException | None = None

    def stop(self) -> None:
        """End the work at its next step, or take it out of the queue."""
        self._stopped = True
        self._desk.withdraw(self)

    @property
    def stopped(self) -> bool:
        """Whether the work was told to end before its time."""
        return self._stopped

    def watch(self) -> Iterator[State | Waiting]:
        """The job's place while it waits, then its states; of states that follow each other fast, the latest.

        Ends with the job. A watcher that leaves (closes this generator) stops the job.

        Raises:
            BaseException: whatever the work raised.
        """
        shown, place = 0, -1
        try:
            while True:
                with self._changed:
                    if not self._done and self._states == shown:
                        self._changed.wait(timeout=LOOK)
                    done, begun, count, state = self._done, self._begun, self._states, self._latest
                if count > shown and state is not None:
                    shown = count
                    yield state
                elif done:
                    break
                elif not begun and (ahead := self._desk.ahead(self)) != place:
                    place = ahead
                    yield Waiting(ahead)
        finally:
            self.stop()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        """In the worker's thread."""
        with self:
            for state in self._work(lambda: self._stopped):
                with self._changed:
                    self._latest, self._states = state, self._states + 1
                    self._changed.notify_all()

    def __enter__(self) -> Self:
        with self._changed:
            self._begun = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Hand an error over to the watcher: it is the asker's, and the worker goes on."""
        self._finish(error)
        return True

    def _finish(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._done, self._error = True, error
            self._changed.notify_all()


class Desk:
    """Serves jobs one at a time, in its own thread; askers take turns, and each one's jobs go in order.

    Somebody with ten jobs waits as long for the second as anybody else does for the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: OrderedDict[str, deque[Job[object]]] = OrderedDict()
        """Asker → waiting jobs; the first asker is served next."""
        self._current: Job[object] | None = None
        self._worker: threading.Thread | None = None
        """Lives while there is work."""

    def submit(self, asker: str, work: Work[State]) -> Job[State]:
        """Put work into the queue.

        Raises:
            UserError: the asker, or all of them together, have too much waiting.
        """
        job: Job[State] = Job(self, asker, work)
        with self._lock:
            waiting = sum(map(len, self._queues.values()))
            if len(self._queues.get(asker, ())) >= MAX_EACH:
                raise UserError(f"You have {MAX_EACH} requests waiting already.", mend="Stop them, or wait.")
            if waiting >= MAX_WAITING:
                raise UserError(f"The queue is full ({waiting} requests wait).", mend="Try again in a minute.")
            self._queues.setdefault(asker, deque()).append(job)  # type: ignore[arg-type]
            if self._worker is None:
                # A daemon: the program may end in the middle of an answer.
                self._worker = threading.Thread(target=self._serve, name="desk", daemon=True)
                self._worker.start()
        return job

    def stop(self, asker: str) -> int:
        """Stop everything of one asker; returns how many jobs that were."""
        with self._lock:
            jobs = [*self._queues.get(asker, ())]
            if self._current is not None and self._current.asker == asker:
                jobs.append(self._current)
        for job in jobs:
            job.stop()
        return len(jobs)

    def ahead(self, job: Job[State]) -> int:
        """Jobs that will be done before ``job``, if nobody else comes; 0 once it is being done."""
        with self._lock:
            if self._current is job:
                return 0
            order = list(_in_turn(self._queues))
            place = next((index for index, one in enumerate(order) if one is job), 0)
            return place + (self._current is not None)

    def withdraw(self, job: Job[State]) -> None:
        """Take a job that waits out of the queue; one that runs ends by itself."""
        with self._lock:
            queue = self._queues.get(job.asker)
            if queue is None or not any(one is job for one in queue):
                return
            self._queues[job.asker] = deque(one for one in queue if one is not job)
            if not self._queues[job.asker]:
                del self._queues[job.asker]
        job._finish()

    def _serve(self) -> None:
        """In the worker's thread: do jobs until none is left."""
        while (job := self._next()) is not None:
            job._run()

    def _next(self) -> Job[object] | None:
        with self._lock:
            self._current = None
            if not self._queues:
                self._worker = None
                return None
            asker, queue = self._queues.popitem(last=False)
            self._current = queue.popleft()
            if queue:
                self._queues[asker] = queue  # behind all others
            return self._current


def _in_turn(queues: OrderedDict[str, deque[Job[object]]]) -> Iterator[Job[object]]:
    """Waiting jobs in the order in which they will be served."""
    rounds = max(map(len, queues.values()), default=0)
    for index in range(rounds):
        for queue in queues.values():
            if index < len(queue):
                yield queue[index]
