"""Release each suspended Job when the Jobs that it waits for are complete: what the Job of k8s/jobs/chain runs.

A Job says what it waits for in its annotation ``constitutional-ai/after``. Nothing is remembered between rounds: a
chain that was killed reads the Jobs again and goes on. With an annotation that names a Kueue queue, it joins that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from runs.cli import make_app, run_app
from runs.console import Reporter, plain
from runs.errors import UserError
from runs.job import preemptible

if TYPE_CHECKING:
    from kubernetes.client import BatchV1Api

AFTER = "constitutional-ai/after"
"""Annotation: names of Jobs, separated by commas."""

QUEUE = "constitutional-ai/queue"
"""Annotation: the Kueue queue that the Job joins when it is released; without it its suspension is lifted."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
SELECTOR = "app.kubernetes.io/part-of=constitutional-ai"
ROUND_S = 15.0
RETRIES = 20
"""Rounds in a row that may fail to reach the API server: it is upgraded while Jobs run for days."""

app = make_app("Release each suspended Job when the Jobs that it waits for are complete.")


class Link(NamedTuple):
    """A Job as the chain sees it."""

    name: str
    after: tuple[str, ...]
    released: bool
    outcome: str
    """``Complete``, ``Failed``, or nothing yet."""
    queue: str | None


class Decision(NamedTuple):
    """What one round found."""

    release: list[Link]
    waiting: list[Link]
    faults: list[str]


def read_link(job: dict[str, Any]) -> Link:
    """A Job as the API gives it, as a `Link`."""
    metadata, spec = job["metadata"], job.get("spec") or {}
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    conditions = (job.get("status") or {}).get("conditions") or []
    ended = [c["type"] for c in conditions if c.get("status") == "True" and c["type"] in ("Complete", "Failed")]
    after = tuple(name.strip() for name in annotations.get(AFTER, "").split(",") if name.strip())
    released = not spec.get("suspend") or QUEUE_LABEL in labels
    return Link(metadata["name"], after, released, ended[0] if ended else "", annotations.get(QUEUE))


def decide(links: Iterable[Link]) -> Decision:
    """Which Jobs can be released, which wait, and which wait in vain."""
    known = {link.name: link for link in links}
    release, waiting, faults = [], [], []
    for link in known.values():
        if link.released:
            continue
        lost = [name for name in link.after if name not in known]
        failed = [name for name in link.after if name in known and known[name].outcome == "Failed"]
        if lost:
            faults.append(f"{link.name} waits for {', '.join(lost)}, which does not exist.")
        elif failed:
            faults.append(f"{link.name} waits for {', '.join(failed)}, which failed.")
        elif all(known[name].outcome == "Complete" for name in link.after):
            release.append(link)
        else:
            waiting.append(link)
    return Decision(release, waiting, faults)


def release_patch(link: Link) -> dict[str, Any]:
    """The merge patch that releases a Job: into its queue, or at once."""
    if link.queue is not None:
        return {"metadata": {"labels": {QUEUE_LABEL: link.queue}}}
    return {"spec": {"suspend": False}}


def run_round(api: BatchV1Api, namespace: str, reporter: Reporter) -> Decision:
    """Look at all Jobs once, and release those whose time has come."""
    found = api.list_namespaced_job(namespace, label_selector=SELECTOR)
    decision = decide([read_link(_plain_job(api, job)) for job in found.items])
    for link in decision.release:
        api.patch_namespaced_job(link.name, namespace, release_patch(link))
        reporter.say(f"released {plain(link.name)} (after {plain(', '.join(link.after))})")
    return decision


def _plain_job(api: BatchV1Api, job: Any) -> dict[str, Any]:
    plain_job: dict[str, Any] = api.api_client.sanitize_for_serialization(job)
    return plain_job


@app.command()
def chain() -> None:
    """Run inside the cluster until every Job is released; fails when one waits in vain."""
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        config.load_incluster_config()
    except config.ConfigException as error:
        raise UserError(
            "This is no Pod with a token for the API server.",
            why=str(error),
            mend="`kubectl apply -k` starts it in the cluster; from outside use `launch submit` Job by Job.",
        ) from error
    api, namespace = client.BatchV1Api(), os.environ.get("NAMESPACE", "constitutional-ai")
    with preemptible():
        follow(lambda: run_round(api, namespace, Reporter()), Reporter(), faults=(ApiException, HTTPError))


def follow(look: Callable[[], Decision], reporter: Reporter, *, faults: tuple[type[Exception], ...]) -> None:
    """Look again and again until every Job is released.

    Args:
        look: one round.
        reporter: is told of what goes wrong.
        faults: what ``look`` raises when the API server does not answer.

    Raises:
        UserError: a Job waits in vain; the API server refuses, or stays away for `RETRIES` rounds.
    """
    failures = 0
    while True:
        try:
            decision = look()
        except faults as error:
            status = getattr(error, "status", None)
            failures += 1
            if status in (401, 403) or failures > RETRIES:
                raise UserError("The Jobs cannot be read or released.", why=str(error)) from error
            reporter.warn(f"the API server did not answer ({plain(status or type(error).__name__)}); trying again")
        else:
            failures = 0
            if decision.faults:
                raise UserError(
                    "The chain cannot go on.",
                    why="\n".join(decision.faults),
                    mend="See `kubectl describe job`, delete the failed Job, and apply the overlay again.",
                )
            if not decision.waiting and not decision.release:
                reporter.say("every Job is released")
                return
        time.sleep(ROUND_S)


if __name__ == "__main__":
    run_app(app, bare=())
