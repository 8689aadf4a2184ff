"""Rules on GKE's hardware: accelerators, slices, Spot nodes, buckets."""

from __future__ import annotations

import math
import re

from launch.checks.rules.jobs import environment
from launch.checks.rules.registry import Faults, rule
from launch.checks.tree import Tree, Workload

GPU, TPU = "nvidia.com/gpu", "google.com/tpu"
GPU_NODES = "cloud.google.com/gke-accelerator"
TPU_NODES = ("cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology")
SPOT = "cloud.google.com/gke-spot"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (a path inside the container)
SPOT_GRACE_S = 25
"""Seconds that a Pod on a Spot node has: the notice comes 30 s ahead, and the last 5 are the system's."""

IMAGES = {GPU: ("cuda", "vllm"), TPU: ("tpu",)}
"""What the image's name must say for a resource."""


def node_selector(workload: Workload) -> dict[str, str]:
    """The labels that the Pods' node must have."""
    found: dict[str, str] = workload.pod.get("nodeSelector") or {}
    return found


def tolerates(workload: Workload, key: str) -> bool:
    """Whether the Pods tolerate a NoSchedule taint with this key."""
    for toleration in workload.pod.get("tolerations") or []:
        if toleration.get("key") == key and toleration.get("effect", "NoSchedule") == "NoSchedule":
            return True
    return False


@rule("hw-topology")
def topology(tree: Tree) -> Faults:
    """A TPU slice is used as a whole: Pods times chips is the product of its topology."""
    for workload in tree.workloads:
        text = node_selector(workload).get(TPU_NODES[1])
        if text is None:
            continue
        if not re.fullmatch(r"\d+(x\d+){1,2}", text):
            yield workload.where, f"{text} is no topology"
            continue
        chips, there = workload.pods * workload.resource(TPU), math.prod(map(int, text.split("x")))
        if chips != there:
            yield workload.where, f"{workload.pods} Pods take {chips} chips, the slice {text} has {there}"


@rule("hw-node-selector")
def selector(tree: Tree) -> Faults:
    """GKE finds, or makes, the node by these labels."""
    for workload in tree.workloads:
        labels = node_selector(workload)
        if workload.resource(GPU) and GPU_NODES not in labels:
            yield workload.where, f"asks for GPUs without {GPU_NODES}: any kind may come"
        if workload.resource(TPU):
            yield from ((workload.where, f"asks for TPUs without {name}") for name in TPU_NODES if name not in labels)
        if GPU_NODES in labels and not workload.resource(GPU):
            yield workload.where, "goes to a GPU node and takes no GPU"


@rule("hw-toleration")
def toleration(tree: Tree) -> Faults:
    """Accelerator and Spot nodes are tainted: a Pod without the toleration stays pending."""
    for workload in tree.workloads:
        for name in (GPU, TPU):
            if workload.resource(name) and not tolerates(workload, name):
                yield workload.where, f"takes {name} and does not tolerate the taint of its nodes"
        if SPOT in node_selector(workload) and not tolerates(workload, SPOT):
            yield workload.where, "goes to Spot nodes and does not tolerate their taint"


@rule("hw-spot-grace")
def spot_grace(tree: Tree) -> Faults:
    """On a Spot node a longer grace is a promise that the node cannot keep."""
    for workload in tree.workloads:
        grace = workload.pod.get("terminationGracePeriodSeconds", 30)
        if SPOT in node_selector(workload) and grace > SPOT_GRACE_S:
            yield workload.where, f"has {grace} s to save, a Spot node gives {SPOT_GRACE_S}"


@rule("hw-ranks")
def ranks(tree: Tree) -> Faults:
    """PyTorch: one rank a GPU. Fewer leave GPUs idle, more fail."""
    for job in tree.jobs:
        values = environment(job)
        if job.lockstep and "MASTER_ADDR" in values and job.resource(GPU):
            count = values.get("RANKS_PER_POD", "1")
            if count != str(job.resource(GPU)):
                yield job.where, f"{count} ranks for {job.resource(GPU)} GPUs"
            started = {word for c in job.containers for word in [*(c.get("command") or []), *(c.get("args") or [])]}
            if count != "1" and not {"finetune.elastic", "torchrun"} <= started:
                yield job.where, f"{count} ranks in a Pod need torchrun, under finetune.elastic, to start them"


@rule("hw-image")
def image(tree: Tree) -> Faults:
    """The image has the libraries of the accelerator."""
    for workload in tree.workloads:
        for name, words in IMAGES.items():
            for container in workload.containers:
                taken = ((container.get("resources") or {}).get("limits") or {}).get(name)
                if taken and not any(word in str(container.get("image")) for word in words):
                    yield workload.where, f"takes {name} with the image {container.get('image')}"


@rule("hw-shared-memory")
def shared_memory(tree: Tree) -> Faults:
    """Several GPUs of one Pod talk by /dev/shm, which is 64 MiB unless a volume in memory is mounted there."""
    for workload in tree.workloads:
        memory = {
            v["name"] for v in workload.pod.get("volumes") or [] if (v.get("emptyDir") or {}).get("medium") == "Memory"
        }
        for container in workload.containers:
            mounts = container.get("volumeMounts") or []
            mounted = {mount.get("name") for mount in mounts if mount.get("mountPath") == SHARED_MEMORY}
            if workload.resource(GPU) and not mounted & memory:
                yield workload.where, f"takes GPUs without a volume in memory at {SHARED_MEMORY}"


@rule("hw-bucket")
def bucket(tree: Tree) -> Faults:
    """gcsfuse: GKE adds its side-car by an annotation, and files belong to root unless uid and gid say otherwise."""
    for workload in tree.workloads:
        for volume in workload.pod.get("volumes") or []:
            source = volume.get("csi") or {}
            if source.get("driver") != "gcsfuse.csi.storage.gke.io":
                continue
            if workload.annotations.get("gke-gcsfuse/volumes") != "true":
                yield workload.where, 'mounts a bucket without the annotation gke-gcsfuse/volumes: "true"'
            attributes = source.get("volumeAttributes") or {}
            context = workload.pod.get("securityContext") or {}
            wanted = {f"uid={context.get('runAsUser')}", f"gid={context.get('runAsGroup')}"}
            if not wanted <= set(str(attributes.get("mountOptions", "")).split(",")):
                yield (
                    workload.where,
                    f"mounts a bucket without {','.join(sorted(wanted))}: a non-root Pod cannot read it",
                )
            if not attributes.get("bucketName"):
                yield workload.where, "mounts a bucket without a name"
            if source.get("readOnly") is not True:
                yield workload.where, "mounts a bucket for writing: it knows no appending and no atomic rename"
