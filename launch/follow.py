"""Logs of a Job's Pods, followed through everything that breaks a stream.

A stream ends when its Pod does, when the server drops it, or when a connection dies. It is opened again where it was
(each line carries its time, and lines that came already are not repeated) until the Pod has ended. A Pod that is
replaced, because it was preempted or failed, is followed as its successor.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from launch.api import Api, Gone, NotYet, Unreachable
from launch.state import ended, index_of, problem, read
from runs.errors import UserError

Document = dict[str, Any]
CONTAINER = "main"
PAUSE_S = 0.5
POLL_S = 2.0


@dataclass
class Place:
    """How far a log was read: the time of the last line, and the lines that bear it."""

    time: str = ""
    lines: list[str] = field(default_factory=list)

    def take(self, stamped: str) -> str | None:
        """The line without its time, or None where it came already."""
        stamp, _, line = stamped.partition(" ")
        if stamp < self.time or (stamp == self.time and line in self.lines):
            return None
        if stamp != self.time:
            self.time, self.lines = stamp, []
        self.lines.append(line)
        return line

    @property
    def seconds_ago(self) -> int | None:
        """How far back a new stream must begin; None: at the start."""
        if not self.time:
            return None
        # Python reads microseconds; the cluster writes nanoseconds.
        then = datetime.fromisoformat(self.time[:26].rstrip("Z") + "+00:00")
        return max(1, int((datetime.now(UTC) - then).total_seconds()) + 2)


def pod_lines(
    api: Api, pod: str, *, follow: bool, tail: int | None, say: Callable[[str], None], container: str = CONTAINER
) -> Iterator[str]:
    """The lines of one Pod's log, each once, until the Pod has ended or is gone.

    Raises:
        UserError: the cluster refuses (403: its reason), or stays away too long.
    """
    place, told, lost = Place(), "", 0.0
    while True:
        try:
            for stamped in api.log(pod, container, follow=follow, tail=tail, since=place.seconds_ago):
                line = place.take(stamped)
                if line is not None:
                    yield line
            lost = 0.0
            if not follow or ended(api.pod(pod)):
                return
            tail = None
        except NotYet as error:
            try:
                why = problem(api.pod(pod)) or f"Pod {pod} is starting: {error.why.rpartition(': ')[2]}"
            except Gone:
                return
            if not follow:
                say(why)
                return
            if why != told:
                say(why)
                told = why
        except Gone:
            if follow:
                say(f"Pod {pod} is gone.")
            return
        except Unreachable:
            lost = lost or time.monotonic()
            if not follow or time.monotonic() - lost > 120.0:
                raise
        time.sleep(PAUSE_S)


def job_lines(
    api: Api, job: str, *, follow: bool, index: str | None, tail: int | None, say: Callable[[str], None]
) -> Iterator[tuple[str, str]]:
    """The lines of a Job's Pods with the completion index in front; followed, until the Job has ended.

    Raises:
        UserError: there is no such Job, or no Pod of that index, or the cluster refuses.
    """
    api.job(job)
    if not follow:
        latest = {index_of(pod): pod for pod in _chosen(api, job, index)}
        if not latest:
            state = read(api.job(job), [], api.warnings(job))
            raise UserError(f"There is no log{f' of index {index}' if index else ''} yet.", why=state.line)
        for number, pod in sorted(latest.items()):
            for line in pod_lines(api, pod["metadata"]["name"], follow=False, tail=tail, say=say):
                yield number, line
        return
    yield from _Follower(api, job, index, tail, say).lines()


def _chosen(api: Api, job: str, index: str | None) -> list[Document]:
    return [pod for pod in api.pods(job) if index is None or index_of(pod) == index]


class _Follower:
    """A thread for each Pod; new Pods are found as the old ones are replaced."""

    def __init__(self, api: Api, job: str, index: str | None, tail: int | None, say: Callable[[str], None]) -> None:
        self.api, self.job, self.index, self.tail, self.say = api, job, index, tail, say
        self.queue: queue.Queue[tuple[str, str] | UserError | None] = queue.Queue()
        self.followed: set[str] = set()
        self.open = 0

    def lines(self) -> Iterator[tuple[str, str]]:
        """Lines as they come; an error of any thread is raised here."""
        due, finished, lost = 0.0, False, 0.0
        while True:
            if time.monotonic() >= due and not finished:
                try:
                    finished, lost = self._look(), 0.0
                except Unreachable:
                    lost = lost or time.monotonic()
                    if time.monotonic() - lost > 120.0:
                        raise
                due = time.monotonic() + POLL_S
            if finished and self.open == 0 and self.queue.empty():
                return
            try:
                item = self.queue.get(timeout=PAUSE_S)
            except queue.Empty:
                continue
            if item is None:
                self.open -= 1
            elif isinstance(item, UserError):
                raise item
            else:
                yield item

    def _look(self) -> bool:
        """Follow the Pods that are new; whether the Job has ended (or is gone)."""
        try:
            job = self.api.job(self.job)
        except UserError as error:
            if isinstance(error, Unreachable):
                raise
            self.say(f"Job '{self.job}' is gone.")
            return True
        for pod in _chosen(self.api, self.job, self.index):
            name = pod["metadata"]["name"]
            if name not in self.followed:
                self.followed.add(name)
                self.open += 1
                threading.Thread(target=self._read, args=(name, index_of(pod)), daemon=True).start()
        state = read(job, [])
        if state.finished:
            self.say(state.line)
        return state.finished

    def _read(self, pod: str, number: str) -> None:
        try:
            for line in pod_lines(self.api, pod, follow=True, tail=self.tail, say=self.say):
                self.queue.put((number, line))
        except UserError as error:
            self.queue.put(error)
        finally:
            self.queue.put(None)
