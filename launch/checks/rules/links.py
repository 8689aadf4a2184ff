"""Rules on references that an API server does not follow: accounts, configs, claims, rights, queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from launch.checks.rules.jobs import AFTER
from launch.checks.rules.registry import Faults, rule
from launch.checks.tree import CLUSTER_SCOPED, Tree, matches, name_of, where
from launch.render import Document

QUEUE = "kueue.x-k8s.io/queue-name"
LATER_QUEUE = "constitutional-ai/queue"
"""Annotation: the queue that the chain puts a Job into when it releases it."""


@rule("link-unique")
def unique(tree: Tree) -> Faults:
    """Of two objects of one kind and name, `kubectl apply` keeps the last."""
    counts = Counter(where(document) for document in tree.documents)
    yield from ((name, f"stands {n} times in the overlay") for name, n in counts.items() if n > 1)


@rule("link-namespace")
def namespace(tree: Tree) -> Faults:
    """Everything lives in the one namespace that the overlay makes, under PodSecurity restricted."""
    made = {name_of(document): document for document in tree.of("Namespace")}
    for document in tree.documents:
        place = (document.get("metadata") or {}).get("namespace")
        if document.get("kind") in CLUSTER_SCOPED:
            if place is not None:
                yield where(document), "belongs to no namespace, yet names one"
        elif place not in made:
            yield where(document), f"is in the namespace {place or 'default'}, which the overlay does not make"
    for name, document in made.items():
        labels = (document.get("metadata") or {}).get("labels") or {}
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"Namespace/{name}", "does not enforce PodSecurity restricted"


@rule("link-service-account")
def service_account(tree: Tree) -> Faults:
    """No API server sees it before the Pod: the ServiceAccount is there, and is the Pod's own."""
    for workload in tree.workloads:
        account = workload.pod.get("serviceAccountName")
        if account is None:
            yield workload.where, "has no ServiceAccount of its own"
        elif tree.named("ServiceAccount", account) is None:
            yield workload.where, f"the ServiceAccount {account} is not there"


def config_references(pod: Document) -> Iterator[tuple[str, list[str]]]:
    """The ConfigMaps that a Pod cannot start without: name, and the keys that it reads."""
    for container in [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]:
        for source in container.get("envFrom") or []:
            reference = source.get("configMapRef")
            if reference and not reference.get("optional"):
                yield reference["name"], []
        for entry in container.get("env") or []:
            reference = (entry.get("valueFrom") or {}).get("configMapKeyRef")
            if reference and not reference.get("optional"):
                yield reference["name"], [reference["key"]]
    for volume in pod.get("volumes") or []:
        for source in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            reference = source.get("configMap")
            if reference and not reference.get("optional"):
                yield reference["name"], [item["key"] for item in reference.get("items") or []]


@rule("link-config-map")
def config_map(tree: Tree) -> Faults:
    """No API server sees it before the Pod: the ConfigMaps and their keys are there."""
    for workload in tree.workloads:
        for name, keys in config_references(workload.pod):
            known = tree.config_keys(name)
            if known is None:
                yield workload.where, f"the ConfigMap {name} is not there"
            else:
                yield from ((workload.where, f"the ConfigMap {name} has no key {k}") for k in keys if k not in known)


@rule("link-secret")
def secret(tree: Tree) -> Faults:
    """Secrets are made by hand with the README's commands; no manifest holds one, and no other is asked for."""
    for document in tree.of("Secret"):
        yield where(document), "a Secret has no place in a manifest"
    for workload in tree.workloads:
        names = [(volume.get("secret") or {}).get("secretName") for volume in workload.pod.get("volumes") or []]
        for container in workload.all_containers:
            for entry in container.get("env") or []:
                names.append(((entry.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name"))
        for name in names:
            if name is not None and name not in tree.external_secrets:
                yield workload.where, f"nobody is told to make the Secret {name}"


@rule("link-claim")
def claim(tree: Tree) -> Faults:
    """No API server sees it before the Pod: the volume claim is there."""
    for workload in tree.workloads:
        for volume in workload.pod.get("volumes") or []:
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if name is not None and tree.named("PersistentVolumeClaim", name) is None:
                yield workload.where, f"the PersistentVolumeClaim {name} is not there"


@rule("link-shared-claim")
def shared_claim(tree: Tree) -> Faults:
    """Pods on several nodes share a claim only when it is ReadWriteMany; with ReadWriteOnce they stay pending."""
    for workload in tree.workloads:
        for volume in workload.pod.get("volumes") or []:
            found = tree.named("PersistentVolumeClaim", (volume.get("persistentVolumeClaim") or {}).get("claimName"))
            modes = ((found or {}).get("spec") or {}).get("accessModes") or []
            if found and workload.pod.get("nodeSelector") and workload.pods > 1 and "ReadWriteMany" not in modes:
                yield (
                    workload.where,
                    f"{workload.pods} Pods on several nodes mount {name_of(found)}: {', '.join(modes)}",
                )


@rule("link-role")
def role(tree: Tree) -> Faults:
    """No API server sees it: a binding's Role and subjects are there."""
    for binding in tree.of("RoleBinding"):
        reference = binding.get("roleRef") or {}
        if tree.named(str(reference.get("kind")), reference.get("name")) is None:
            yield where(binding), f"the {reference.get('kind')} {reference.get('name')} is not there"
        for subject in binding.get("subjects") or []:
            if subject.get("kind") == "ServiceAccount" and tree.named("ServiceAccount", subject.get("name")) is None:
                yield where(binding), f"the ServiceAccount {subject.get('name')} is not there"


@rule("link-least-rights")
def least_rights(tree: Tree) -> Faults:
    """No stars, no Secrets, no other Roles, nothing in the whole cluster."""
    for document in tree.of("ClusterRole", "ClusterRoleBinding"):
        yield where(document), "gives rights in the whole cluster"
    for document in tree.of("Role"):
        for entry in document.get("rules") or []:
            if "*" in [*entry.get("verbs", []), *entry.get("resources", []), *entry.get("apiGroups", [])]:
                yield where(document), "gives rights by a star"
            for name in {"secrets", "roles", "rolebindings", "serviceaccounts/token"} & set(entry.get("resources", [])):
                yield where(document), f"gives rights on {name}"


@rule("link-chain-names")
def chain_names(tree: Tree) -> Faults:
    """The chain's Role names the Jobs that wait, and no other."""
    waiting = {job.name for job in tree.jobs if AFTER in (job.metadata.get("annotations") or {})}
    if tree.named("Job", "chain") is None:
        return
    for entry in (tree.named("Role", "chain") or {}).get("rules") or []:
        for name in set(entry.get("resourceNames") or []) - waiting:
            yield "Role/chain", f"may change the Job {name}, which does not wait"


@rule("link-selector")
def selector(tree: Tree) -> Faults:
    """The API: a Deployment's selector matches its own Pods."""
    for document in tree.of("Deployment"):
        spec = document.get("spec") or {}
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
        if not spec.get("selector") or not matches(spec["selector"], labels):
            yield where(document), "its selector does not match its own Pods"


@rule("link-disruption-budget")
def disruption_budget(tree: Tree) -> Faults:
    """A budget selects Pods, and lets a node be drained."""
    for document in tree.of("PodDisruptionBudget"):
        spec = document.get("spec") or {}
        chosen = [workload for workload in tree.workloads if matches(spec.get("selector"), workload.labels)]
        if not chosen:
            yield where(document), "selects no Pod"
        if ("minAvailable" in spec) == ("maxUnavailable" in spec):
            yield where(document), "needs minAvailable or maxUnavailable, and not both"
        for workload in chosen:
            if spec.get("maxUnavailable") == 0 or spec.get("minAvailable", 0) in (workload.pods or 1, "100%"):
                yield where(document), f"no Pod of {workload.where} may ever be evicted: a drain would hang"


@rule("link-queue")
def queue(tree: Tree) -> Faults:
    """Kueue: the queue of a Job, its ClusterQueue and its flavors are there, and every resource is covered."""
    for local in tree.of("LocalQueue"):
        name = (local.get("spec") or {}).get("clusterQueue")
        if tree.named("ClusterQueue", name) is None:
            yield where(local), f"the ClusterQueue {name} is not there"
    for cluster in tree.of("ClusterQueue"):
        for group in (cluster.get("spec") or {}).get("resourceGroups") or []:
            for flavor in group.get("flavors") or []:
                if tree.named("ResourceFlavor", flavor.get("name")) is None:
                    yield where(cluster), f"the ResourceFlavor {flavor.get('name')} is not there"
                if [entry["name"] for entry in flavor.get("resources") or []] != group.get("coveredResources"):
                    yield where(cluster), f"flavor {flavor.get('name')}: resources differ from coveredResources"
    for job in tree.jobs:
        metadata = job.metadata
        name = (metadata.get("labels") or {}).get(QUEUE) or (metadata.get("annotations") or {}).get(LATER_QUEUE)
        if name is None:
            continue
        if tree.named("LocalQueue", name) is None:
            yield job.where, f"the LocalQueue {name} is not there"
        covered = {
            resource
            for cluster in tree.of("ClusterQueue")
            for group in cluster["spec"].get("resourceGroups") or []
            for resource in group.get("coveredResources") or []
        }
        asked = {key for c in job.all_containers for key in ((c.get("resources") or {}).get("requests") or {})}
        if asked - covered:
            yield (
                job.where,
                f"no queue has a quota for {', '.join(sorted(asked - covered))}: it would never be admitted",
            )
