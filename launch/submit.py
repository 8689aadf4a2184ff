"""From an overlay to a Job in the cluster: chosen, named, created, waited for."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from launch.api import Api, Exists, Gone, Refused
from launch.state import State, read
from runs.errors import UsageError, UserError, unknown_name
from runs.identity import digest

Document = dict[str, Any]

AFTER = "constitutional-ai/after"
"""The annotation by which the chain holds a Job back; a Job that is submitted by hand does not wait."""
QUEUE, QUEUE_LABEL = "constitutional-ai/queue", "kueue.x-k8s.io/queue-name"
"""The annotation with the queue that a held Job joins when it is released, and Kueue's own label."""
JOB, TEMPLATE = "constitutional-ai/job", "constitutional-ai/template"
"""Label: which of the tree's Jobs it is. Annotation: digest of its spec, so that a changed one is noticed."""
LONGEST = 52
"""Of a Job's name: its Pods add an index and five characters, and host names end at 63."""
DELETION_S = 180.0
"""How long `replace` waits for the old Job's Pods to save and go."""


def choose(documents: Sequence[Document], job: str) -> Document:
    """The Job called ``job`` among the rendered objects.

    Raises:
        UsageError: there is none; the nearest name is given.
    """
    jobs = {document["metadata"]["name"]: document for document in documents if document["kind"] == "Job"}
    if job not in jobs:
        raise unknown_name("job", job, jobs)
    return jobs[job]


def prepare(document: Document, *, name: str | None = None) -> Document:
    """A Job ready to be created: a name of its own, not suspended, marked with what it is.

    Args:
        document: as rendered.
        name: the Job's name; None makes a new one, because a Job's template can never change.

    Raises:
        UsageError: the name is no name for a Job.
    """
    made = copy.deepcopy(document)
    original = str(made["metadata"]["name"])
    chosen = name if name is not None else f"{original[: LONGEST - 7]}-{secrets.token_hex(3)}"
    legal = chosen.replace("-", "").isalnum() and chosen.isascii() and chosen == chosen.lower()
    if not legal or chosen.startswith("-") or chosen.endswith("-") or len(chosen) > LONGEST:
        raise UsageError(
            f"'{chosen}' cannot be the name of a Job.",
            mend=f"Use at most {LONGEST} lower-case letters, digits and hyphens, with a letter or digit at both ends.",
        )
    made["metadata"]["name"] = chosen
    made["metadata"].setdefault("labels", {})[JOB] = original
    annotations = made["metadata"].setdefault("annotations", {})
    annotations.pop(AFTER, None)
    if QUEUE in annotations:  # Kueue suspends what carries its label, until there is room
        made["metadata"]["labels"][QUEUE_LABEL] = annotations.pop(QUEUE)
    made["spec"]["suspend"] = False
    annotations[TEMPLATE] = digest(made["spec"])
    return made


def needed(documents: Sequence[Document], job: Document) -> list[Document]:
    """The rendered objects that ``job`` names: its config maps, claims, service account and headless Service."""
    pod = job["spec"]["template"]["spec"]
    names = {("ServiceAccount", pod.get("serviceAccountName")), ("Service", pod.get("subdomain"))}
    for volume in pod.get("volumes") or []:
        names.add(("ConfigMap", (volume.get("configMap") or {}).get("name")))
        names.add(("PersistentVolumeClaim", (volume.get("persistentVolumeClaim") or {}).get("claimName")))
    for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
        for source in container.get("envFrom") or []:
            names.add(("ConfigMap", (source.get("configMapRef") or {}).get("name")))
    return [document for document in documents if (document["kind"], document["metadata"]["name"]) in names]


def provide(api: Api, documents: Sequence[Document], warn: Callable[[str], None]) -> list[str]:
    """Create those of ``documents`` that are not there; says which. What may not be created is warned of."""
    made, refused = [], []
    for document in documents:
        name = f"{document['kind']} '{document['metadata']['name']}'"
        try:
            api.create(document)
            made.append(name)
        except Exists:
            continue
        except Refused:
            refused.append(name)
    if refused:
        warn(
            f"You may not make {', '.join(refused)}. The Job needs them; someone who may: "
            "kubectl apply -k k8s/overlays/OVERLAY"
        )
    return made


def create(api: Api, job: Document, *, replace: bool, say: Callable[[str], None]) -> None:
    """Create the Job.

    Args:
        api: the cluster.
        job: of `prepare`.
        replace: delete a Job of this name first, and wait until its Pods are gone.
        say: told what takes time.

    Raises:
        UserError: a Job of this name is there and ``replace`` was not asked for; its template differs or not.
    """
    name = job["metadata"]["name"]
    if replace:
        remove(api, name, say)
    try:
        api.create(job)
    except Exists as error:
        old = api.job(name)
        state = read(old, api.pods(name))
        same = (old["metadata"].get("annotations") or {}).get(TEMPLATE) == job["metadata"]["annotations"][TEMPLATE]
        why = (
            "It has the same template." if same else "Its template is another one, and a Job's template cannot change."
        )
        raise UserError(
            f"A Job '{name}' is there already ({state.phase}).",
            why=why,
            mend="Leave out --name for a new one, or give --replace, which deletes it (its checkpoints stay).",
        ) from error


def remove(api: Api, name: str, say: Callable[[str], None]) -> bool:
    """Delete a Job and wait until it is gone; False where there was none.

    Raises:
        UserError: it is still there after `DELETION_S`.
    """
    try:
        api.delete_job(name)
    except Gone:
        return False
    say(f"Deleting Job '{name}': its Pods save and leave.")
    end = time.monotonic() + DELETION_S
    while time.monotonic() < end:
        if not any(job["metadata"]["name"] == name for job in api.jobs(selector="")):
            return True
        time.sleep(0.5)
    raise UserError(
        f"Job '{name}' is still being deleted.",
        why="A Pod does not end, or a finaliser holds it.",
        mend=f"Look: kubectl describe job {name}. Then try again.",
    )


def wait(api: Api, name: str, show: Callable[[State], None]) -> State:
    """Follow a Job to its end; ``show`` gets every new state.

    Raises:
        UserError: it was deleted meanwhile, or the cluster stays away.
    """
    last: State | None = None
    for job in api.follow(name):
        if job is None:
            raise UserError(f"Job '{name}' was deleted while it was waited for.")
        pods = api.pods(name)
        warnings = api.warnings(name) if not pods else []
        state = read(job, pods, warnings)
        if state != last:
            show(state)
            last = state
        if state.finished:
            return state
    raise AssertionError("a followed Job ends or goes")
