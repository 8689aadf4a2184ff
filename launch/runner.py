"""Run a rendered Job here: its real commands as processes on the loopback interface, its failures as the Job's.

What the Job controller decides (indexes, how many at a time, what a failure costs, when to give up) is decided as the
manifest says. So a test can kill a rank, evict another, and see whether the Job comes to its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from launch.pods import Ground, Pod
from launch.submit import choose
from runs.errors import UserError
from runs.paths import PROJECT_ROOT

Document = dict[str, Any]
Ending = Literal["succeeded", "failed", "ignored"]
POLL_S = 0.1
RESTART_S = 0.5
"""The wait before a failed Pod is made again (Kubernetes begins with ten seconds)."""


@dataclass(frozen=True)
class Attempt:
    """A Pod that has ended."""

    index: int
    attempt: int
    exit_code: int
    """As the container's: 128 + the signal that killed it."""
    ending: Ending
    seconds: float


@dataclass
class Outcome:
    """How the Job ended."""

    complete: bool
    why: str
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """What counts against the back-off limit."""
        return sum(attempt.ending == "failed" for attempt in self.attempts)


class _Running:
    """A Pod's processes: its init containers one after the other, then the main one."""

    def __init__(self, pod: Pod) -> None:
        spec = pod.ground.template["spec"]
        self.pod, self.began = pod, time.monotonic()
        self.evicted_at: float | None = None
        self.left = [*(spec.get("initContainers") or []), *spec["containers"]]
        self.log: IO[bytes] | None = None
        self.process = self._next()

    def _next(self) -> subprocess.Popen[bytes]:
        container = self.left.pop(0)
        self.container = str(container["name"])
        arguments, environment, directory = self.pod.command(container)
        self.pod.folder.mkdir(parents=True, exist_ok=True)
        if self.log is not None:
            self.log.close()
        self.log = (self.pod.folder / f"{self.container}.log").open("wb")
        try:
            return subprocess.Popen(
                arguments,
                env=environment,
                cwd=directory,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(
                f"The command of container '{self.container}' cannot be started: {arguments[0]}.",
                why=f"{error.strerror}.",
                mend="In the image it is on the PATH; here it must be too (`uv sync`).",
            ) from error

    def exit_code(self) -> int | None:
        """The Pod's exit code once it has ended."""
        code = self.process.poll()
        if code is None:
            return None
        if code == 0 and self.left:
            self.process = self._next()
            return None
        if self.log is not None:
            self.log.close()
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        """Send a signal to the container's first process, as the kubelet does; SIGKILL reaches all of them."""
        try:
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                os.kill(self.process.pid, number)
        except ProcessLookupError:
            return


class JobRunner:
    """A Job on this machine.

    Args:
        documents: rendered objects: the Job and what it mounts.
        job: the Job's name.
        folder: of volumes, logs and the image's stand-in; jobs that share it share their claims.
        project: the files that the image would hold.
    """

    def __init__(self, documents: Sequence[Document], job: str, folder: Path, *, project: Path | None = None) -> None:
        document = choose(documents, job)
        self.ground = Ground(folder.resolve(), documents, document, project or PROJECT_ROOT)
        self.spec: Document = document["spec"]
        self.indexed = self.spec.get("completionMode") == "Indexed"
        self.completions = int(self.spec.get("completions") or 1)
        self.parallelism = int(self.spec.get("parallelism") or 1)
        self.running: dict[int, _Running] = {}
        self.attempts: list[Attempt] = []
        self._due: dict[int, float] = dict.fromkeys(range(self.completions), 0.0)

    def run(self, *, timeout: float, on_poll: Callable[[JobRunner], None] | None = None) -> Outcome:
        """Run to the end.

        Args:
            timeout: seconds; then everything is killed and the Job has failed (as ``activeDeadlineSeconds``).
            on_poll: called ten times a second: where a test kills and evicts.

        Raises:
            UserError: a command cannot be started, or the Job came to its end only because it could write where a
                cluster would not let it.
        """
        self.ground.prepare()
        end = time.monotonic() + timeout
        try:
            while True:
                self._start_due()
                if on_poll is not None:
                    on_poll(self)
                outcome = self._collect()
                if outcome is not None:
                    if outcome.complete:
                        self._refuse_writes()
                    return outcome
                if time.monotonic() > end:
                    return Outcome(False, f"DeadlineExceeded: not done after {timeout:.0f} s", self.attempts)
                time.sleep(POLL_S)
        finally:
            self._kill_all()

    def _refuse_writes(self) -> None:
        changed = self.ground.changed()
        if changed:
            raise UserError(
                f"Job '{self.ground.name}' wrote to its image: {', '.join(changed[:5])}.",
                why="In a cluster the root file system is read-only, and a mount point cannot be renamed.",
                mend="Mount a volume there, or let the command write inside one.",
            )

    def log(self, index: int, container: str = "main") -> str:
        """All that the Pods of an index have written so far."""
        paths = sorted((self.ground.folder / "pods").glob(f"{self.ground.name}-{index}-*/{container}.log"))
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)

    def kill(self, index: int) -> None:
        """SIGKILL a Pod: out of memory, a node that is gone."""
        self.running[index].signal(signal.SIGKILL)

    def evict(self, index: int) -> None:
        """SIGTERM a Pod, as preemption and eviction do; after the grace period it is killed."""
        running = self.running[index]
        running.evicted_at = time.monotonic()
        running.signal(signal.SIGTERM)

    def _start_due(self) -> None:
        for index, due in sorted(self._due.items()):
            if len(self.running) >= self.parallelism:
                return
            if time.monotonic() >= due:
                del self._due[index]
                attempt = sum(one.index == index for one in self.attempts)
                self.running[index] = _Running(Pod(self.ground, index, attempt))

    def _collect(self) -> Outcome | None:
        """Take up what has ended; the outcome once the Job has."""
        grace = float(self.ground.template["spec"].get("terminationGracePeriodSeconds") or 30)
        for index, running in list(self.running.items()):
            code = running.exit_code()
            if code is None:
                if running.evicted_at is not None and time.monotonic() - running.evicted_at > grace:
                    running.signal(signal.SIGKILL)
                continue
            del self.running[index]
            ending, final = self._judge(running, code)
            spent = time.monotonic() - running.began
            self.attempts.append(Attempt(index, running.pod.attempt, code, ending, spent))
            if final:
                return Outcome(False, final, self.attempts)
            if ending != "succeeded":
                self._due[index] = time.monotonic() + RESTART_S
        if not self.running and not self._due:
            return Outcome(True, "Complete", self.attempts)
        return None

    def _judge(self, running: _Running, code: int) -> tuple[Ending, str]:
        """How a Pod ended, and why that fails the Job; empty where it does not."""
        if code == 0:
            return "succeeded", ""
        for rule in (self.spec.get("podFailurePolicy") or {}).get("rules") or []:
            if _matches(rule, running, code):
                if rule["action"] == "FailJob":
                    return "failed", f"PodFailurePolicy: index {running.pod.index} ended with exit code {code}"
                if rule["action"] == "Ignore":
                    return "ignored", ""
                break
        per_index = self.spec.get("backoffLimitPerIndex")
        index = running.pod.index
        failures = 1 + sum(a.ending == "failed" and (per_index is None or a.index == index) for a in self.attempts)
        limit = int(per_index if per_index is not None else self.spec.get("backoffLimit", 6))
        if failures > limit:
            return "failed", f"BackoffLimitExceeded: {failures} failures, the last: index {index}, exit code {code}"
        return "failed", ""

    def _kill_all(self) -> None:
        for running in self.running.values():
            running.signal(signal.SIGKILL)
            running.process.wait()


def _matches(rule: Document, running: _Running, code: int) -> bool:
    """Whether a rule of the podFailurePolicy is about this ending."""
    conditions = rule.get("onPodConditions")
    if conditions is not None:
        return running.evicted_at is not None and any(entry["type"] == "DisruptionTarget" for entry in conditions)
    codes = rule["onExitCodes"]
    if codes.get("containerName") not in (None, running.container):
        return False
    return bool((code in codes["values"]) == (codes["operator"] == "In"))
