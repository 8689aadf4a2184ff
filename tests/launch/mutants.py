"""Manifests with one fault each, and the rule that must see it.

A mutant is (overlay, rule, change). `put` and `drop` walk a path whose steps are keys, indices, or ``name=value`` to
find a list's entry; the first step is ``Kind/name``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from launch.checks.tree import name_of
from launch.render import Document

Change = Callable[[list[Document]], None]


class Mutant(NamedTuple):
    """One fault: in which overlay, which rule must name it, and how to make it."""

    rule: str
    overlay: str
    fault: str
    change: Change


def find(documents: list[Document], name: str) -> Document:
    """The object ``Kind/name``; generated names may end in a hash."""
    kind, _, wanted = name.partition("/")
    return next(
        d for d in documents if d["kind"] == kind and (name_of(d) == wanted or name_of(d).startswith(f"{wanted}-"))
    )


def step(node: Any, part: str | int) -> Any:
    """One step of a path."""
    if isinstance(node, list) and isinstance(part, str):
        key, _, value = part.partition("=")
        return next(entry for entry in node if str(entry.get(key)) == value)
    return node[part]


def walk(documents: list[Document], name: str, path: tuple[str | int, ...]) -> Any:
    """The node at a path."""
    node: Any = find(documents, name)
    for part in path:
        node = step(node, part)
    return node


def put(name: str, *path: str | int, to: Any) -> Change:
    """Set the value at a path; ``"-"`` as the last step appends to a list."""

    def change(documents: list[Document]) -> None:
        node = walk(documents, name, path[:-1])
        if path[-1] == "-":
            node.append(to)
        else:
            node[path[-1]] = to

    return change


def drop(name: str, *path: str | int) -> Change:
    """Take away what stands at a path, or the whole object when there is none."""

    def change(documents: list[Document]) -> None:
        if not path:
            documents.remove(find(documents, name))
            return
        node = walk(documents, name, path[:-1])
        if isinstance(node, list) and isinstance(path[-1], str):
            node.remove(step(node, path[-1]))
        else:
            del node[path[-1]]

    return change


def add(document: Document) -> Change:
    """One more object."""
    return lambda documents: documents.append(document)


def twice(name: str) -> Change:
    """The same object again."""
    return lambda documents: documents.append(find(documents, name))


POD = ("spec", "template", "spec")
MAIN = (*POD, "containers", "name=main")
GPU, TPU = "gke-gpu", "gke-tpu"
SFT, CLASSIFIER, EVALUATE = "Job/sft", "Job/classifier", "Job/evaluate"
SECURITY = (*MAIN, "securityContext")
NS = "constitutional-ai"


def _object(api: str, kind: str, name: str, **rest: Any) -> Document:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NS}, **rest}


JOBS = [
    Mutant("job-restart-policy", GPU, "restarts Always", put(SFT, *POD, "restartPolicy", to="Always")),
    Mutant("job-restart-policy", GPU, "OnFailure with a policy", put(SFT, *POD, "restartPolicy", to="OnFailure")),
    Mutant("job-index-without-indexed", GPU, "index without Indexed", drop(EVALUATE, "spec", "completionMode")),
    Mutant("job-indexed-completions", GPU, "no completions", drop(EVALUATE, "spec", "completions")),
    Mutant("job-completion-mode", GPU, "mode misspelt", put(SFT, "spec", "completionMode", to="indexed")),
    Mutant("job-lockstep", GPU, "fewer Pods than ranks", put(SFT, "spec", "parallelism", to=1)),
    Mutant("job-lockstep", GPU, "ranks without an index", put(SFT, "spec", "completionMode", to="NonIndexed")),
    Mutant("job-world-size", GPU, "count differs", put(SFT, *MAIN, "env", "name=JOB_COMPLETIONS", "value", to="4")),
    Mutant("job-world-size", GPU, "WORLD_SIZE by hand", put(SFT, *MAIN, "env", "name=WORLD_SIZE", "value", to="3")),
    Mutant("job-world-size", GPU, "nobody says how many", drop(EVALUATE, *MAIN, "env", "name=JOB_COMPLETIONS")),
    Mutant("job-parallelism", GPU, "more Pods than work", put(EVALUATE, "spec", "parallelism", to=9)),
    Mutant("job-backoff-per-index", GPU, "per index, no index", put("Job/pairs", "spec", "backoffLimitPerIndex", to=2)),
    Mutant("job-backoff-per-index", GPU, "max failed alone", drop(EVALUATE, "spec", "backoffLimitPerIndex")),
    Mutant("job-backoff-per-index", GPU, "more may fail than are", put(EVALUATE, "spec", "maxFailedIndexes", to=9)),
    Mutant("job-shards-retry-alone", GPU, "one limit for all", drop(EVALUATE, "spec", "backoffLimitPerIndex")),
    Mutant("job-backoff-covers-ranks", GPU, "no restarts", put(SFT, "spec", "backoffLimit", to=1)),
    Mutant(
        "job-failure-policy-shape",
        GPU,
        "no such action",
        put(SFT, "spec", "podFailurePolicy", "rules", 0, "action", to="Retry"),
    ),
    Mutant(
        "job-failure-policy-shape",
        GPU,
        "no condition",
        put(SFT, "spec", "podFailurePolicy", "rules", "-", to={"action": "Count"}),
    ),
    Mutant(
        "job-failure-policy-shape",
        GPU,
        "FailIndex without limits per index",
        put(SFT, "spec", "podFailurePolicy", "rules", 2, "action", to="FailIndex"),
    ),
    Mutant(
        "job-failure-policy-codes",
        GPU,
        "codes fall",
        put(SFT, "spec", "podFailurePolicy", "rules", 2, "onExitCodes", "values", to=[64, 2]),
    ),
    Mutant(
        "job-failure-policy-codes",
        GPU,
        "0 is a failure",
        put(SFT, "spec", "podFailurePolicy", "rules", 2, "onExitCodes", "values", to=[0, 2, 64]),
    ),
    Mutant(
        "job-failure-policy-codes",
        GPU,
        "no such operator",
        put(SFT, "spec", "podFailurePolicy", "rules", 2, "onExitCodes", "operator", to="Equals"),
    ),
    Mutant(
        "job-failure-policy-container",
        GPU,
        "no such container",
        put(SFT, "spec", "podFailurePolicy", "rules", 1, "onExitCodes", "containerName", to="train"),
    ),
    Mutant("job-exit-code-contract", GPU, "evictions count", drop(SFT, "spec", "podFailurePolicy", "rules", 0)),
    Mutant("job-exit-code-contract", GPU, "75 counts", drop(SFT, "spec", "podFailurePolicy", "rules", 1)),
    Mutant("job-exit-code-contract", GPU, "2 is tried again", drop(SFT, "spec", "podFailurePolicy", "rules", 2)),
    Mutant("job-replacement", GPU, "two Pods of one rank", drop(SFT, "spec", "podReplacementPolicy")),
    Mutant("job-ends", GPU, "no deadline", drop(SFT, "spec", "activeDeadlineSeconds")),
    Mutant("job-ends", GPU, "never cleared", drop(SFT, "spec", "ttlSecondsAfterFinished")),
    Mutant("job-selector", GPU, "own selector", put(SFT, "spec", "manualSelector", to=True)),
    Mutant("job-order", GPU, "no predecessor", drop("Job/pairs")),
    Mutant("job-order", GPU, "waits and runs", put("Job/dpo", "spec", "suspend", to=False)),
    Mutant(
        "job-order", GPU, "a circle", put(SFT, "metadata", "annotations", to={"constitutional-ai/after": "evaluate"})
    ),
    Mutant("job-order", GPU, "no right to release", put("Role/chain", "rules", 1, "resourceNames", to=["pairs"])),
    Mutant("job-order", GPU, "suspended for ever", put(SFT, "spec", "suspend", to=True)),
]

PODS = [
    Mutant("pod-non-root", GPU, "root by number", put(SFT, *POD, "securityContext", "runAsUser", to=0)),
    Mutant("pod-non-root", GPU, "root allowed", put(SFT, *SECURITY, "runAsNonRoot", to=False)),
    Mutant("pod-seccomp", GPU, "unconfined", put(SFT, *SECURITY, "seccompProfile", "type", to="Unconfined")),
    Mutant("pod-capabilities", GPU, "keeps them", drop(SFT, *SECURITY, "capabilities")),
    Mutant("pod-capabilities", GPU, "adds one", put(SFT, *SECURITY, "capabilities", "add", to=["SYS_PTRACE"])),
    Mutant("pod-escalation", GPU, "privileged", put(SFT, *SECURITY, "privileged", to=True)),
    Mutant("pod-escalation", GPU, "escalation", drop(SFT, *SECURITY, "allowPrivilegeEscalation")),
    Mutant("pod-read-only-root", GPU, "writable", put(SFT, *SECURITY, "readOnlyRootFilesystem", to=False)),
    Mutant("pod-read-only-root", GPU, "no /tmp", drop(SFT, *MAIN, "volumeMounts", "mountPath=/tmp")),
    Mutant("pod-host", GPU, "host network", put(SFT, *POD, "hostNetwork", to=True)),
    Mutant("pod-host", GPU, "host path", put(SFT, *POD, "volumes", "-", to={"name": "x", "hostPath": {"path": "/"}})),
    Mutant("pod-host", GPU, "host port", put(SFT, *MAIN, "ports", 0, "hostPort", to=80)),
    Mutant("pod-resources", GPU, "no memory limit", drop(SFT, *MAIN, "resources", "limits", "memory")),
    Mutant("pod-resources", GPU, "no requests", drop(SFT, *MAIN, "resources", "requests")),
    Mutant("pod-resources", GPU, "asks for more", put(SFT, *MAIN, "resources", "requests", "memory", to="25Gi")),
    Mutant(
        "pod-extended-resources",
        GPU,
        "half a GPU more",
        put(SFT, *MAIN, "resources", "requests", "nvidia.com/gpu", to="2"),
    ),
    Mutant("pod-extended-resources", TPU, "no limit", drop(CLASSIFIER, *MAIN, "resources", "limits", "google.com/tpu")),
    Mutant("pod-token", GPU, "a token for a trainer", put(SFT, *POD, "automountServiceAccountToken", to=True)),
    Mutant(
        "pod-secret-in-env",
        GPU,
        "the token itself",
        put(SFT, *MAIN, "env", "-", to={"name": "HF_TOKEN", "value": "made-up"}),
    ),
    Mutant(
        "pod-secret-in-env",
        GPU,
        "by a variable",
        put(SFT, *MAIN, "env", "-", to={"name": "X", "valueFrom": {"secretKeyRef": {"name": "critic", "key": "k"}}}),
    ),
    Mutant("pod-env-unique", GPU, "set twice", put(SFT, *MAIN, "env", "-", to={"name": "WORLD_SIZE", "value": "2"})),
    Mutant("pod-env-references", GPU, "too early", put(SFT, *MAIN, "env", 0, to={"name": "A", "value": "$(RANK)"})),
    Mutant("pod-env-references", GPU, "unknown", put(SFT, *MAIN, "args", "-", to="--config=$(FAMILIY).yaml")),
    Mutant(
        "pod-field-references",
        GPU,
        "no such field",
        put(SFT, *MAIN, "env", "name=RANK", "valueFrom", "fieldRef", "fieldPath", to="spec.completions"),
    ),
    Mutant("pod-mounts", GPU, "no such volume", put(SFT, *MAIN, "volumeMounts", 0, "name", to="tpm")),
    Mutant("pod-mounts", GPU, "one path twice", put(SFT, *MAIN, "volumeMounts", 0, "mountPath", to="/dev/shm")),
    Mutant(
        "pod-mounts", GPU, "out of the volume", put(SFT, *MAIN, "volumeMounts", "mountPath=/data", "subPath", to="../x")
    ),
    Mutant("pod-mounts", GPU, "volume twice", put(SFT, *POD, "volumes", "-", to={"name": "tmp", "emptyDir": {}})),
    Mutant(
        "pod-unused-volume",
        GPU,
        "not mounted",
        put(SFT, *POD, "volumes", "-", to={"name": "spare", "emptyDir": {"sizeLimit": "1Gi"}}),
    ),
    Mutant("pod-scratch-limit", GPU, "endless", put(SFT, *POD, "volumes", "name=tmp", "emptyDir", to={})),
    Mutant("pod-ports", GPU, "long name", put(SFT, *MAIN, "ports", 0, "name", to="the-coordinator-port")),
    Mutant("pod-ports", GPU, "no such port", put(SFT, *MAIN, "ports", 0, "containerPort", to=70000)),
    Mutant("pod-ports", GPU, "one name twice", put(SFT, *MAIN, "ports", 0, "name", to="metrics")),
    Mutant("pod-container-names", GPU, "upper case", put(SFT, *MAIN, "name", to="Main")),
    Mutant("pod-container-names", GPU, "twice", put("Job/pairs", *POD, "initContainers", 0, "name", to="main")),
    Mutant("pod-probes", GPU, "no readiness", drop("Deployment/dashboard", *MAIN, "readinessProbe")),
    Mutant(
        "pod-probes",
        GPU,
        "alive means ready",
        put(
            "Deployment/dashboard",
            *MAIN,
            "livenessProbe",
            to={"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 10},
        ),
    ),
    Mutant(
        "pod-probes",
        GPU,
        "no such port",
        put("Deployment/dashboard", *MAIN, "startupProbe", "httpGet", "port", to="web"),
    ),
    Mutant("pod-grace", GPU, "no time to save", put(SFT, *POD, "terminationGracePeriodSeconds", to=5)),
]

LINKS = [
    Mutant("link-unique", GPU, "twice", twice(SFT)),
    Mutant("link-namespace", GPU, "elsewhere", put(SFT, "metadata", "namespace", to="default")),
    Mutant("link-namespace", GPU, "no namespace made", drop("Namespace/constitutional-ai")),
    Mutant(
        "link-namespace",
        GPU,
        "not restricted",
        put("Namespace/constitutional-ai", "metadata", "labels", "pod-security.kubernetes.io/enforce", to="baseline"),
    ),
    Mutant("link-service-account", GPU, "not there", drop("ServiceAccount/worker")),
    Mutant("link-service-account", GPU, "the default one", drop(SFT, *POD, "serviceAccountName")),
    Mutant("link-config-map", GPU, "not there", drop("ConfigMap/configs-finetune")),
    Mutant(
        "link-config-map",
        GPU,
        "no such key",
        lambda documents: walk(documents, SFT, (*MAIN, "env")).append(
            {
                "name": "F",
                "valueFrom": {
                    "configMapKeyRef": {"name": name_of(find(documents, "ConfigMap/settings")), "key": "FAMILIE"}
                },
            }
        ),
    ),
    Mutant("link-secret", GPU, "in a manifest", add(_object("v1", "Secret", "huggingface", stringData={"token": "x"}))),
    Mutant(
        "link-secret",
        GPU,
        "nobody makes it",
        put(SFT, *POD, "volumes", "name=huggingface", "secret", "secretName", to="hf"),
    ),
    Mutant("link-claim", GPU, "not there", drop("PersistentVolumeClaim/work")),
    Mutant(
        "link-shared-claim",
        GPU,
        "one node only",
        put("PersistentVolumeClaim/work", "spec", "accessModes", to=["ReadWriteOnce"]),
    ),
    Mutant("link-role", GPU, "no such Role", drop("Role/launcher")),
    Mutant("link-role", GPU, "no such subject", drop("ServiceAccount/launcher")),
    Mutant("link-least-rights", GPU, "by a star", put("Role/launcher", "rules", 0, "verbs", to=["*"])),
    Mutant("link-least-rights", GPU, "secrets", put("Role/launcher", "rules", 0, "resources", to=["secrets"])),
    Mutant(
        "link-least-rights", GPU, "whole cluster", add(_object("rbac.authorization.k8s.io/v1", "ClusterRole", "all"))
    ),
    Mutant(
        "link-chain-names",
        GPU,
        "a Job that does not wait",
        put("Role/chain", "rules", 1, "resourceNames", "-", to="sft"),
    ),
    Mutant(
        "link-selector",
        GPU,
        "other Pods",
        put("Deployment/dashboard", "spec", "selector", "matchLabels", to={"a": "b"}),
    ),
    Mutant(
        "link-disruption-budget",
        GPU,
        "never drained",
        put("PodDisruptionBudget/dashboard", "spec", "maxUnavailable", to=0),
    ),
    Mutant(
        "link-disruption-budget",
        GPU,
        "no Pod",
        put("PodDisruptionBudget/dashboard", "spec", "selector", "matchLabels", to={"a": "b"}),
    ),
    Mutant("link-queue", "everything", "no queue", drop("LocalQueue/training")),
    Mutant("link-queue", "everything", "no flavor", drop("ResourceFlavor/l4-spot")),
    Mutant("link-queue", "everything", "no cluster queue", drop("ClusterQueue/constitutional-ai")),
    Mutant(
        "link-queue",
        "everything",
        "not covered",
        put("ClusterQueue/constitutional-ai", "spec", "resourceGroups", 0, "coveredResources", to=["cpu", "memory"]),
    ),
]

NETWORK = [
    Mutant("net-headless-service", GPU, "no Service", drop("Service/workers")),
    Mutant("net-headless-service", GPU, "not headless", drop("Service/workers", "spec", "clusterIP")),
    Mutant("net-headless-service", GPU, "other Pods", put("Service/workers", "spec", "selector", to={"a": "b"})),
    Mutant("net-headless-service", GPU, "ready ones only", drop("Service/workers", "spec", "publishNotReadyAddresses")),
    Mutant("net-headless-service", GPU, "name misspelt", put(SFT, *POD, "subdomain", to="worker")),
    Mutant(
        "net-meeting-point",
        GPU,
        "another Service",
        put(SFT, *MAIN, "env", "name=MASTER_ADDR", "value", to="$(JOB_NAME)-0.sft"),
    ),
    Mutant("net-meeting-point", GPU, "another port", put(SFT, *MAIN, "env", "name=MASTER_PORT", "value", to="29501")),
    Mutant(
        "net-meeting-point", GPU, "another Job", put(SFT, *MAIN, "env", "name=MASTER_ADDR", "value", to="dpo-0.workers")
    ),
    Mutant(
        "net-meeting-point",
        TPU,
        "no port",
        put(CLASSIFIER, *MAIN, "env", "name=JAX_COORDINATOR_ADDRESS", "value", to="x"),
    ),
    Mutant("net-service-selects", GPU, "nothing", put("Service/dashboard", "spec", "selector", to={"app": "dash"})),
    Mutant(
        "net-service-selects", GPU, "no such port", put("Service/dashboard", "spec", "ports", 0, "targetPort", to="web")
    ),
    Mutant("net-no-front-door", GPU, "load balancer", put("Service/dashboard", "spec", "type", to="LoadBalancer")),
    Mutant(
        "net-no-front-door", GPU, "no such node port", put("Service/dashboard", "spec", "ports", 0, "nodePort", to=80)
    ),
    Mutant("net-default-deny", GPU, "all allowed", drop("NetworkPolicy/default-deny")),
    Mutant(
        "net-policy-selects",
        GPU,
        "no Pod",
        put("NetworkPolicy/critic", "spec", "podSelector", to={"matchLabels": {"a": "b"}}),
    ),
    Mutant("net-policy-selects", GPU, "direction", put("NetworkPolicy/names", "spec", "policyTypes", to=["Ingress"])),
    Mutant("net-names", GPU, "no names", drop("NetworkPolicy/names")),
    Mutant("net-ranks-reach-each-other", GPU, "no policy", drop("NetworkPolicy/workers")),
    Mutant(
        "net-ranks-reach-each-other",
        GPU,
        "one port only",
        put("NetworkPolicy/workers", "spec", "egress", 0, "ports", to=[{"port": 1}]),
    ),
    Mutant("net-hub", GPU, "no way out", drop("NetworkPolicy/hub")),
    Mutant(
        "net-monitoring",
        GPU,
        "no such port",
        put("PodMonitoring/trainers", "spec", "endpoints", 0, "port", to="http-metrics"),
    ),
    Mutant("net-monitoring", GPU, "collector kept out", drop("NetworkPolicy/metrics")),
]

HARDWARE = [
    Mutant(
        "hw-topology",
        TPU,
        "slice too large",
        put(CLASSIFIER, *POD, "nodeSelector", "cloud.google.com/gke-tpu-topology", to="4x4"),
    ),
    Mutant(
        "hw-topology",
        TPU,
        "no topology",
        put(CLASSIFIER, *POD, "nodeSelector", "cloud.google.com/gke-tpu-topology", to="8"),
    ),
    Mutant(
        "hw-node-selector",
        TPU,
        "any TPU",
        drop(CLASSIFIER, *POD, "nodeSelector", "cloud.google.com/gke-tpu-accelerator"),
    ),
    Mutant("hw-node-selector", GPU, "any GPU", drop(SFT, *POD, "nodeSelector", "cloud.google.com/gke-accelerator")),
    Mutant(
        "hw-node-selector",
        GPU,
        "a GPU node for nothing",
        put("Job/pairs", *POD, "nodeSelector", to={"cloud.google.com/gke-accelerator": "nvidia-l4"}),
    ),
    Mutant("hw-toleration", GPU, "GPU taint", drop(SFT, *POD, "tolerations", "key=nvidia.com/gpu")),
    Mutant("hw-toleration", GPU, "Spot taint", drop(SFT, *POD, "tolerations", "key=cloud.google.com/gke-spot")),
    Mutant("hw-toleration", TPU, "TPU taint", drop(CLASSIFIER, *POD, "tolerations", "key=google.com/tpu")),
    Mutant("hw-spot-grace", GPU, "600 s", put(SFT, *POD, "terminationGracePeriodSeconds", to=600)),
    Mutant("hw-ranks", "everything", "an idle GPU", put(SFT, *MAIN, "env", "name=RANKS_PER_POD", "value", to="1")),
    Mutant("hw-ranks", "everything", "nobody starts them", put(SFT, *MAIN, "command", to=["finetune"])),
    Mutant("hw-image", GPU, "no CUDA", put(SFT, *MAIN, "image", to="constitutional-ai/cpu:0.1.0")),
    Mutant("hw-image", TPU, "no TPU library", put(CLASSIFIER, *MAIN, "image", to="constitutional-ai/cuda:0.1.0")),
    Mutant(
        "hw-shared-memory", GPU, "64 MiB", put(SFT, *POD, "volumes", "name=shm", "emptyDir", to={"sizeLimit": "1Gi"})
    ),
    Mutant(
        "hw-bucket",
        "everything",
        "no annotation",
        drop(SFT, "spec", "template", "metadata", "annotations", "gke-gcsfuse/volumes"),
    ),
    Mutant(
        "hw-bucket",
        "everything",
        "root's files",
        put(SFT, *POD, "volumes", "name=datasets", "csi", "volumeAttributes", "mountOptions", to="implicit-dirs"),
    ),
    Mutant(
        "hw-bucket", "everything", "writable", put(SFT, *POD, "volumes", "name=datasets", "csi", "readOnly", to=False)
    ),
]

SYNTAX = [
    Mutant("text-names", GPU, "underscore", put(SFT, "metadata", "name", to="supervised_tuning")),
    Mutant("text-names", GPU, "no room for the index", put(SFT, "metadata", "name", to="s" * 62)),
    Mutant("text-labels", GPU, "illegal value", put(SFT, "metadata", "labels", "app.kubernetes.io/name", to="a b")),
    Mutant(
        "text-labels", GPU, "number", put(SFT, "spec", "template", "metadata", "labels", "constitutional-ai/hub", to=1)
    ),
    Mutant("text-images", GPU, "latest", put(SFT, *MAIN, "image", to="constitutional-ai/cuda")),
    Mutant("text-images", GPU, "no reference", put(SFT, *MAIN, "image", to="Constitutional AI/cuda:1")),
    Mutant("text-quantities", GPU, "GiB", put(SFT, *MAIN, "resources", "limits", "memory", to="24GiB")),
    Mutant("text-quantities", GPU, "size", put(SFT, *POD, "volumes", "name=tmp", "emptyDir", "sizeLimit", to="5 Gi")),
]

MUTANTS = [*JOBS, *PODS, *LINKS, *NETWORK, *HARDWARE, *SYNTAX]
