"""Rules on Jobs: indices, world size, restarts, exit codes, order."""

from __future__ import annotations

from itertools import pairwise

from launch.checks.rules.registry import Faults, rule
from launch.checks.tree import REFERENCE, Tree, Workload, reads

COUNT = "JOB_COMPLETIONS"
"""The variable that tells a Pod how many there are (`runs.job`)."""

WORLD_SIZE = (COUNT, "JAX_NUM_PROCESSES", "WORLD_SIZE")
"""Variables that say how many Pods a Job has."""

AFTER = "constitutional-ai/after"
"""Annotation: names of the Jobs, separated by commas, that must be complete before this one is released."""

PREEMPTED, CONFIG_FAULTS = 75, (2, 64)
"""Exit codes: stopped with a checkpoint saved; a fault that no restart mends."""

RESTARTS = 3
"""Fewest times that a run of Pods in lockstep must be able to start again."""


def environment(job: Workload) -> dict[str, str]:
    """The literal environment of a Job's containers, with ``$(NAME)`` of earlier literals put in."""
    found: dict[str, str] = {}
    for container in job.containers:
        for entry in container.get("env") or []:
            if "value" in entry:
                text = str(entry["value"])
                found[entry["name"]] = REFERENCE.sub(lambda match: found.get(match[1], match[0]), text)
    return found


@rule("job-restart-policy")
def restart_policy(tree: Tree) -> Faults:
    """The API: a Job's Pods restart Never or OnFailure, and Never when a podFailurePolicy is there."""
    for job in tree.jobs:
        policy = job.pod.get("restartPolicy")
        if policy not in ("Never", "OnFailure"):
            yield job.where, f"restartPolicy is {policy or 'Always, the default'}: a Job needs Never or OnFailure"
        elif "podFailurePolicy" in job.spec and policy != "Never":
            yield job.where, "podFailurePolicy needs restartPolicy Never"


@rule("job-index-without-indexed")
def index_without_indexed(tree: Tree) -> Faults:
    """No API server sees it: the index is read, but only an Indexed Job sets it."""
    for job in tree.jobs:
        texts = list(reads(job.pod.get("containers"))) + list(reads(job.pod.get("initContainers")))
        if not job.indexed and any("JOB_COMPLETION_INDEX" in t or "job-completion-index" in t for t in texts):
            yield job.where, "reads the completion index, but completionMode is not Indexed"


@rule("job-indexed-completions")
def indexed_completions(tree: Tree) -> Faults:
    """The API: an Indexed Job says how many completions it wants."""
    for job in tree.jobs:
        if job.indexed and "completions" not in job.spec:
            yield job.where, "is Indexed without completions"


@rule("job-completion-mode")
def completion_mode(tree: Tree) -> Faults:
    """The API: the mode is Indexed or NonIndexed."""
    for job in tree.jobs:
        mode = job.spec.get("completionMode", "NonIndexed")
        if mode not in ("Indexed", "NonIndexed"):
            yield job.where, f"completionMode {mode} does not exist"


@rule("job-lockstep")
def lockstep(tree: Tree) -> Faults:
    """Ranks wait for each other: with fewer Pods at a time than ranks, the run hangs for ever."""
    for job in tree.jobs:
        if not job.lockstep:
            continue
        if not job.indexed:
            yield job.where, "its Pods form one run (subdomain), so it must be Indexed"
        elif job.spec.get("completions") != job.spec.get("parallelism", 1):
            yield job.where, f"{job.spec.get('completions')} ranks, but {job.pods} Pods at a time: it would hang"


@rule("job-world-size")
def world_size(tree: Tree) -> Faults:
    """The number of Pods stands in several fields; components/one-source makes them one, and this checks it."""
    for job in tree.jobs:
        known = {name: value for name, value in environment(job).items() if name in WORLD_SIZE}
        for name, value in known.items():
            if value != str(job.spec.get("completions")):
                yield job.where, f"{name} is {value}, completions is {job.spec.get('completions')}"
        if job.indexed and COUNT not in known:
            yield job.where, f"no container is told how many Pods there are ({COUNT})"


@rule("job-parallelism")
def parallelism(tree: Tree) -> Faults:
    """More Pods at a time than there is work for is a slip."""
    for job in tree.jobs:
        completions = job.spec.get("completions")
        if isinstance(completions, int) and job.pods > completions:
            yield job.where, f"parallelism {job.pods} exceeds completions {completions}"


@rule("job-backoff-per-index")
def backoff_per_index(tree: Tree) -> Faults:
    """The API: limits per index belong to Indexed Jobs, and maxFailedIndexes needs backoffLimitPerIndex."""
    for job in tree.jobs:
        if "backoffLimitPerIndex" in job.spec and not job.indexed:
            yield job.where, "backoffLimitPerIndex needs completionMode Indexed"
        if "maxFailedIndexes" in job.spec:
            if "backoffLimitPerIndex" not in job.spec:
                yield job.where, "maxFailedIndexes needs backoffLimitPerIndex"
            elif job.spec["maxFailedIndexes"] > job.spec.get("completions", 0):
                yield job.where, "maxFailedIndexes exceeds completions"


@rule("job-shards-retry-alone")
def shards_retry_alone(tree: Tree) -> Faults:
    """Shards do not need each other: one that fails is tried again alone, so the limit is per index."""
    for job in tree.jobs:
        if job.indexed and not job.lockstep and "backoffLimitPerIndex" not in job.spec:
            yield (
                job.where,
                "is a Job of shards without backoffLimitPerIndex: one bad shard uses up everyone's restarts",
            )


@rule("job-backoff-covers-ranks")
def backoff_covers_ranks(tree: Tree) -> Faults:
    """One lost rank fails all Pods of the run, and each failure counts."""
    for job in tree.jobs:
        limit = job.spec.get("backoffLimit", 6)
        if job.lockstep and limit < RESTARTS * job.pods:
            yield job.where, f"backoffLimit {limit} allows fewer than {RESTARTS} restarts of {job.pods} Pods"


@rule("job-failure-policy-shape")
def failure_policy_shape(tree: Tree) -> Faults:
    """The API: each rule has one known action and exactly one condition; FailIndex needs limits per index."""
    for job in tree.jobs:
        for number, entry in enumerate((job.spec.get("podFailurePolicy") or {}).get("rules") or []):
            if entry.get("action") not in ("Ignore", "FailJob", "FailIndex", "Count"):
                yield job.where, f"podFailurePolicy rule {number}: no action {entry.get('action')}"
            if ("onExitCodes" in entry) == ("onPodConditions" in entry):
                yield job.where, f"podFailurePolicy rule {number}: needs onExitCodes or onPodConditions, and not both"
            if entry.get("action") == "FailIndex" and "backoffLimitPerIndex" not in job.spec:
                yield job.where, f"podFailurePolicy rule {number}: FailIndex needs backoffLimitPerIndex"


@rule("job-failure-policy-codes")
def failure_policy_codes(tree: Tree) -> Faults:
    """The API: exit codes are in order, different, from 0 to 255, and `In` never holds 0."""
    for job in tree.jobs:
        for entry in (job.spec.get("podFailurePolicy") or {}).get("rules") or []:
            codes = entry.get("onExitCodes") or {}
            values = codes.get("values") or []
            if "onExitCodes" in entry and codes.get("operator") not in ("In", "NotIn"):
                yield job.where, f"podFailurePolicy: operator {codes.get('operator')} does not exist"
            if "onExitCodes" in entry and not values:
                yield job.where, "podFailurePolicy: onExitCodes without values"
            if any(a >= b for a, b in pairwise(values)) or any(not 0 <= value <= 255 for value in values):
                yield job.where, f"podFailurePolicy: exit codes {values} must rise and lie in 0 to 255"
            if codes.get("operator") == "In" and 0 in values:
                yield job.where, "podFailurePolicy: exit code 0 is no failure"


@rule("job-failure-policy-container")
def failure_policy_container(tree: Tree) -> Faults:
    """The API: a container that a rule names is there."""
    for job in tree.jobs:
        names = {container.get("name") for container in job.all_containers}
        for entry in (job.spec.get("podFailurePolicy") or {}).get("rules") or []:
            name = (entry.get("onExitCodes") or {}).get("containerName")
            if name is not None and name not in names:
                yield job.where, f"podFailurePolicy names the container {name}, which is not there"


@rule("job-exit-code-contract")
def exit_code_contract(tree: Tree) -> Faults:
    """Preemption (DisruptionTarget, 75) must not use up restarts; a bad config (2, 64) must not be tried again."""
    for job in tree.jobs:
        rules = (job.spec.get("podFailurePolicy") or {}).get("rules") or []
        conditions = {
            c.get("type") for r in rules if r.get("action") == "Ignore" for c in r.get("onPodConditions") or []
        }
        by_code = {
            code: r.get("action")
            for r in reversed(rules)
            if (r.get("onExitCodes") or {}).get("operator") == "In"
            for code in r["onExitCodes"].get("values") or []
        }
        if "DisruptionTarget" not in conditions:
            yield job.where, "an eviction (DisruptionTarget) counts as a failure"
        if by_code.get(PREEMPTED) != "Ignore":
            yield job.where, f"exit code {PREEMPTED} (preempted, checkpoint saved) counts as a failure"
        yield from (
            (job.where, f"exit code {code} (a fault of the config) does not fail the Job")
            for code in CONFIG_FAULTS
            if by_code.get(code) != "FailJob"
        )


@rule("job-replacement")
def replacement(tree: Tree) -> Faults:
    """Two Pods of one index must never write one checkpoint; the API asks for it beside a podFailurePolicy as well."""
    for job in tree.jobs:
        if job.spec.get("podReplacementPolicy") != "Failed":
            yield job.where, "podReplacementPolicy must be Failed: the old Pod may still write while the new one starts"


@rule("job-ends")
def ends(tree: Tree) -> Faults:
    """A Job that hangs is stopped, and a finished one is cleared away."""
    for job in tree.jobs:
        if not job.spec.get("activeDeadlineSeconds"):
            yield job.where, "has no activeDeadlineSeconds: a hang would cost money until someone looks"
        if "ttlSecondsAfterFinished" not in job.spec:
            yield job.where, "has no ttlSecondsAfterFinished"


@rule("job-selector")
def selector(tree: Tree) -> Faults:
    """The API makes a Job's selector itself; one from a manifest is refused, or takes other Jobs' Pods."""
    for job in tree.jobs:
        if "selector" in job.spec or job.spec.get("manualSelector"):
            yield job.where, "must not choose its own selector"


@rule("job-order")
def order(tree: Tree) -> Faults:
    """The chain: predecessors exist, without a circle; who waits is suspended; the chain may release it."""
    after = {job.name: predecessors(job) for job in tree.jobs}
    for job in tree.jobs:
        for name in after[job.name]:
            if name not in after:
                yield job.where, f"waits for the Job {name}, which is not there"
        if after[job.name]:
            if job.spec.get("suspend") is not True:
                yield job.where, "waits for other Jobs, so it must be created with suspend: true"
            if _reaches(after, job.name, job.name):
                yield job.where, "waits for itself, by way of others"
            if job.name not in _released_by_chain(tree):
                yield job.where, "no Role lets the Job chain release it (resourceNames)"
        elif job.spec.get("suspend") and "kueue.x-k8s.io/queue-name" not in (job.metadata.get("labels") or {}):
            yield job.where, f"is suspended, and nothing releases it: no {AFTER}, no queue"


def predecessors(job: Workload) -> list[str]:
    """The Jobs that must be complete before ``job`` is released."""
    text = (job.metadata.get("annotations") or {}).get(AFTER, "")
    return [name.strip() for name in text.split(",") if name.strip()]


def _reaches(after: dict[str, list[str]], start: str, goal: str) -> bool:
    seen: set[str] = set()
    stack = list(after.get(start, []))
    while stack:
        name = stack.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            stack += after.get(name, [])
    return False


def _released_by_chain(tree: Tree) -> set[str]:
    role = tree.named("Role", "chain") or {}
    granted = [entry for entry in role.get("rules") or [] if "patch" in entry.get("verbs", [])]
    return {name for entry in granted for name in entry.get("resourceNames", [])}
