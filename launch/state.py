"""How a Job stands, in one line: read from the Job, its Pods and the cluster's warnings. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Document = dict[str, Any]

PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
CODES = {
    2: "the command line or the config is wrong",
    64: "the input cannot be used",
    75: "stopped with a checkpoint",
    137: "killed (SIGKILL)",
    143: "ended by SIGTERM",
}
"""Exit codes that a Pod can end with (docs/architecture.md, "Commands")."""


@dataclass(frozen=True)
class State:
    """A Job at a glance."""

    name: str
    phase: str
    """``waiting``, ``running``, ``complete``, ``failed`` or ``suspended``."""
    done: int
    total: int
    detail: str
    """What is going on, or why it does not: one line."""
    resumed: int = 0
    """Pods that stopped with a checkpoint."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in ("complete", "failed")

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.name}: {self.phase}, {self.done} of {self.total} done" + (
            f"; {self.detail}" if self.detail else ""
        )


def read(job: Document, pods: Sequence[Document] = (), warnings: Sequence[str] = ()) -> State:
    """The state of a Job.

    Args:
        job: as the API gives it.
        pods: its Pods, the oldest first.
        warnings: the cluster's warnings about it, the latest last.
    """
    spec, status = job.get("spec", {}), job.get("status", {})
    total = spec.get("completions") or spec.get("parallelism") or 1
    done = int(status.get("succeeded") or 0)
    conditions = {entry["type"]: entry for entry in status.get("conditions") or [] if entry.get("status") == "True"}
    stopped = sum(_exit_code(pod) == 75 for pod in pods)

    def state(phase: str, detail: str) -> State:
        return State(str(job["metadata"]["name"]), phase, done, int(total), " ".join(detail.split()), stopped)

    if "Complete" in conditions:
        return state("complete", _duration(status))
    if "Failed" in conditions or "FailureTarget" in conditions:
        found = conditions.get("Failed") or conditions["FailureTarget"]
        return state("failed", "; ".join(filter(None, [_failure(found), _endings(pods)])))
    if spec.get("suspend"):
        return state("suspended", "waits for its turn (a queue or the chain lifts the suspension)")
    trouble = next(filter(None, map(problem, reversed(pods))), "")
    if trouble:
        return state("waiting", trouble)
    active = int(status.get("active") or 0)
    if not pods and not active:
        return state("waiting", f"no Pod yet: {warnings[-1]}" if warnings else "no Pod yet")
    running = sum(pod.get("status", {}).get("phase") == "Running" for pod in pods)
    detail = f"{running} of {active} Pods running" if active else "between Pods"
    return state("running" if running else "waiting", "; ".join(filter(None, [detail, _endings(pods)])))


def problem(pod: Document) -> str:
    """Why a Pod does not run: its image, its config, or no node for it; empty where nothing holds it up."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (entry.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in PULL:
            return f"Pod {name} cannot pull its image {entry.get('image', '')} ({reason}): {message}".rstrip(": ")
        if reason in CONFIG:
            return f"Pod {name} cannot start ({reason}): {message}".rstrip(": ")
    if status.get("phase") == "Pending":
        for condition in status.get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return f"Pod {name} has no node: {condition.get('message', condition.get('reason', ''))}"
    return ""


def index_of(pod: Document) -> str:
    """A Pod's completion index, or its name where it has none."""
    metadata = pod["metadata"]
    index = (metadata.get("annotations") or {}).get("batch.kubernetes.io/job-completion-index")
    return str(index) if index is not None else str(metadata["name"])


def ended(pod: Document) -> bool:
    """Whether a Pod has ended."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def pod_row(pod: Document) -> list[str]:
    """A Pod's line in a table: name, index, phase, node, how it ended."""
    status = pod.get("status", {})
    code = _exit_code(pod)
    ending = "" if code is None else f"exit {code}" + (f" ({CODES[code]})" if code in CODES else "")
    return [
        str(pod["metadata"]["name"]),
        index_of(pod),
        str(status.get("phase", "Unknown")),
        str(pod.get("spec", {}).get("nodeName") or "none"),
        problem(pod) or ending,
    ]


def _exit_code(pod: Document) -> int | None:
    """The exit code of the first container that failed, else of the last that ended."""
    entries = pod.get("status", {}).get("containerStatuses") or []
    codes = [
        entry["state"]["terminated"]["exitCode"] for entry in entries if (entry.get("state") or {}).get("terminated")
    ]
    failed = [code for code in codes if code]
    return int(failed[0]) if failed else (int(codes[-1]) if codes else None)


def _endings(pods: Sequence[Document]) -> str:
    """How the Pods that failed ended, counted."""
    codes = Counter(_exit_code(pod) for pod in pods if pod.get("status", {}).get("phase") == "Failed")
    parts = []
    for code, count in sorted(codes.items(), key=lambda entry: str(entry[0])):
        what = CODES.get(code or -1, "")
        parts.append(
            f"{count} × " + (f"exit {code}" if code is not None else "evicted") + (f" ({what})" if what else "")
        )
    return ", ".join(parts)


def _failure(condition: Document) -> str:
    return ": ".join(filter(None, [str(condition.get("reason", "")), str(condition.get("message", ""))]))


def _duration(status: Document) -> str:
    if not (status.get("startTime") and status.get("completionTime")):
        return ""
    began, ended_at = (datetime.fromisoformat(status[key]) for key in ("startTime", "completionTime"))
    return f"took {ended_at - began}"
