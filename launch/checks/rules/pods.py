"""Rules on Pods: what PodSecurity `restricted` asks for, resources, environment, volumes, probes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from launch.checks.quantities import parse_quantity
from launch.checks.rules.registry import Faults, rule
from launch.checks.tree import REFERENCE, Tree, Workload, reads
from launch.render import Document

RESTRICTED_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
"""Volume kinds that PodSecurity `restricted` admits."""

SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|SECRET|API_KEY|CREDENTIALS)$")
"""Names of variables whose value is nobody's business."""

FIELDS = re.compile(
    r"metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])|"
    r"spec\.(nodeName|serviceAccountName)|status\.(hostIP|hostIPs|podIP|podIPs)"
)
"""What the downward API gives to variables."""

SCRATCH = "/tmp"  # noqa: S108 (a path inside the container)

INJECTED = frozenset({"JOB_COMPLETION_INDEX"})
"""Variables that the Job controller adds, to Indexed Jobs only."""


def containers(tree: Tree) -> Iterator[tuple[Workload, Document]]:
    """Every container of every workload, init containers included."""
    for workload in tree.workloads:
        for container in workload.all_containers:
            yield workload, container


def effective(workload: Workload, container: Document, key: str) -> object:
    """A setting of the container's securityContext, else of the Pod's."""
    own = container.get("securityContext") or {}
    return own.get(key, (workload.pod.get("securityContext") or {}).get(key))


@rule("pod-non-root")
def non_root(tree: Tree) -> Faults:
    """PodSecurity restricted: no container runs as root."""
    for workload, container in containers(tree):
        if (
            effective(workload, container, "runAsNonRoot") is not True
            or effective(workload, container, "runAsUser") == 0
        ):
            yield workload.where, f"container {container['name']} may run as root"


@rule("pod-seccomp")
def seccomp(tree: Tree) -> Faults:
    """PodSecurity restricted: system calls are filtered."""
    for workload, container in containers(tree):
        profile = effective(workload, container, "seccompProfile")
        if not isinstance(profile, dict) or profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield workload.where, f"container {container['name']} has no seccomp profile"


@rule("pod-capabilities")
def capabilities(tree: Tree) -> Faults:
    """PodSecurity restricted: all capabilities are dropped, and none is added."""
    for workload, container in containers(tree):
        found = (container.get("securityContext") or {}).get("capabilities") or {}
        if "ALL" not in (found.get("drop") or []) or found.get("add"):
            yield workload.where, f"container {container['name']} keeps or adds capabilities"


@rule("pod-escalation")
def escalation(tree: Tree) -> Faults:
    """PodSecurity restricted: no privileges, and no way to more of them."""
    for workload, container in containers(tree):
        own = container.get("securityContext") or {}
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield workload.where, f"container {container['name']} may gain privileges"


@rule("pod-read-only-root")
def read_only_root(tree: Tree) -> Faults:
    """Beyond restricted: what a container writes goes to volumes, and never into the image."""
    for workload, container in containers(tree):
        if (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is not True:
            yield workload.where, f"container {container['name']} can write to its root file system"
        elif SCRATCH not in {mount.get("mountPath") for mount in container.get("volumeMounts") or []}:
            yield workload.where, f"container {container['name']} has a read-only root and no volume at {SCRATCH}"


@rule("pod-host")
def host(tree: Tree) -> Faults:
    """PodSecurity restricted: nothing of the node: no namespaces, paths or ports."""
    for workload in tree.workloads:
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if workload.pod.get(key):
                yield workload.where, f"shares the node's {key[4:]}"
        for volume in workload.pod.get("volumes") or []:
            kinds = set(volume) - {"name"}
            if not kinds <= RESTRICTED_VOLUMES:
                yield (
                    workload.where,
                    f"volume {volume['name']} is of a kind that restricted refuses: {', '.join(kinds)}",
                )
        for container in workload.all_containers:
            if any("hostPort" in port for port in container.get("ports") or []):
                yield workload.where, f"container {container['name']} takes a port of the node"


@rule("pod-resources")
def resources(tree: Tree) -> Faults:
    """Memory is limited, and what the scheduler must know is asked for; nothing asks for more than its limit."""
    for workload, container in containers(tree):
        found = container.get("resources") or {}
        requests, limits = found.get("requests") or {}, found.get("limits") or {}
        missing = [f"requests.{key}" for key in ("cpu", "memory", "ephemeral-storage") if key not in requests]
        missing += [f"limits.{key}" for key in ("memory", "ephemeral-storage") if key not in limits]
        if missing:
            yield workload.where, f"container {container['name']} lacks {', '.join(missing)}"
        for key in requests.keys() & limits.keys():
            asked, limit = parse_quantity(requests[key]), parse_quantity(limits[key])
            if asked is not None and limit is not None and asked > limit:
                yield workload.where, f"container {container['name']} asks for more {key} than its limit"


@rule("pod-extended-resources")
def extended_resources(tree: Tree) -> Faults:
    """The API: chips and GPUs are whole, and requests equal limits."""
    for workload, container in containers(tree):
        found = container.get("resources") or {}
        requests, limits = found.get("requests") or {}, found.get("limits") or {}
        for key in {key for key in (*requests, *limits) if "/" in key}:
            if key not in limits or str(requests.get(key, limits[key])) != str(limits[key]):
                yield workload.where, f"container {container['name']}: requests and limits of {key} differ"
            elif not str(limits[key]).isdigit():
                yield workload.where, f"container {container['name']}: {key} must be a whole number"


@rule("pod-token")
def token(tree: Tree) -> Faults:
    """Only a Pod whose ServiceAccount has rights gets a token for the API server."""
    granted = {s.get("name") for binding in tree.of("RoleBinding") for s in binding.get("subjects") or []}
    for workload in tree.workloads:
        account = workload.pod.get("serviceAccountName", "default")
        if workload.pod.get("automountServiceAccountToken") is not False and account not in granted:
            yield workload.where, f"mounts a token of the ServiceAccount {account}, which has no rights and needs none"


@rule("pod-secret-in-env")
def secret_in_env(tree: Tree) -> Faults:
    """A secret in a manifest or a variable shows up in `kubectl describe`, crash dumps and child processes."""
    for workload, container in containers(tree):
        for entry in container.get("env") or []:
            reference = (entry.get("valueFrom") or {}).get("secretKeyRef")
            if SECRET_NAME.search(entry["name"]) and "value" in entry:
                yield workload.where, f"the manifest itself holds {entry['name']}"
            elif reference:
                yield workload.where, f"{entry['name']} comes from a Secret by a variable: mount it as a file"


@rule("pod-env-unique")
def env_unique(tree: Tree) -> Faults:
    """The last of two equal names wins, in silence."""
    for workload, container in containers(tree):
        counts = Counter(entry["name"] for entry in container.get("env") or [])
        yield from ((workload.where, f"{name} is set {n} times") for name, n in counts.items() if n > 1)


@rule("pod-env-references")
def env_references(tree: Tree) -> Faults:
    """`$(NAME)` that nothing defines stays as it is, in silence; in `env` only what stands earlier counts."""
    for workload, container in containers(tree):
        earlier: set[str] = set()
        for entry in container.get("env") or []:
            for name in REFERENCE.findall(str(entry.get("value", ""))):
                if name not in earlier:
                    yield workload.where, f"{entry['name']} reads $({name}), which no earlier variable defines"
            earlier.add(entry["name"])
        known = earlier | (set(INJECTED) if workload.indexed else set())
        for source in container.get("envFrom") or []:
            known |= tree.config_keys((source.get("configMapRef") or {}).get("name")) or set()
        for text in reads([container.get("command"), container.get("args")]):
            for name in set(REFERENCE.findall(text)) - known:
                yield workload.where, f"the command reads $({name}), which nothing defines"


@rule("pod-field-references")
def field_references(tree: Tree) -> Faults:
    """The API: the downward API knows few fields."""
    for workload, container in containers(tree):
        for entry in container.get("env") or []:
            path = ((entry.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
            if path is not None and not FIELDS.fullmatch(path):
                yield workload.where, f"{entry['name']} reads the field {path}, which the downward API does not give"


@rule("pod-mounts")
def mounts(tree: Tree) -> Faults:
    """The API: what is mounted is a volume of the Pod, at a path of its own."""
    for workload in tree.workloads:
        volumes = [volume.get("name") for volume in workload.pod.get("volumes") or []]
        if len(set(volumes)) < len(volumes):
            yield workload.where, "two volumes have one name"
        for container in workload.all_containers:
            found = container.get("volumeMounts") or []
            paths = [str(mount.get("mountPath")) for mount in found]
            for mount in found:
                if mount.get("name") not in volumes:
                    yield (
                        workload.where,
                        f"container {container['name']} mounts {mount.get('name')}, which is no volume",
                    )
                sub = str(mount.get("subPath", ""))
                if sub.startswith("/") or ".." in sub.split("/"):
                    yield workload.where, f"subPath {sub} must be relative and stay inside the volume"
            if len(set(paths)) < len(paths) or not all(path.startswith("/") for path in paths):
                yield workload.where, f"container {container['name']}: mount paths must be absolute and different"


@rule("pod-unused-volume")
def unused_volume(tree: Tree) -> Faults:
    """A volume that no container mounts is a slip, or a mount that got lost."""
    for workload in tree.workloads:
        used = {mount.get("name") for c in workload.all_containers for mount in c.get("volumeMounts") or []}
        for volume in workload.pod.get("volumes") or []:
            if volume.get("name") not in used:
                yield workload.where, f"no container mounts the volume {volume.get('name')}"


@rule("pod-scratch-limit")
def scratch_limit(tree: Tree) -> Faults:
    """Scratch space without a limit fills the node's disk, and other Pods are evicted for it."""
    for workload in tree.workloads:
        for volume in workload.pod.get("volumes") or []:
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield workload.where, f"volume {volume['name']} has no sizeLimit"


@rule("pod-ports")
def ports(tree: Tree) -> Faults:
    """The API: port names are short, lower-case and different; numbers lie in 1 to 65535."""
    for workload, container in containers(tree):
        found = container.get("ports") or []
        names = [port["name"] for port in found if "name" in port]
        if len(set(names)) < len(names):
            yield workload.where, f"container {container['name']} has two ports of one name"
        for name in names:
            if not re.fullmatch(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", name):
                yield workload.where, f"port name {name}: at most 15 of a-z, 0-9 and -"
        for port in found:
            number = port.get("containerPort")
            if not isinstance(number, int) or not 1 <= number <= 65535:
                yield workload.where, f"container port {number} does not exist"


@rule("pod-container-names")
def container_names(tree: Tree) -> Faults:
    """The API: container names are DNS labels and different."""
    for workload in tree.workloads:
        names = [str(container.get("name", "")) for container in workload.all_containers]
        if len(set(names)) < len(names):
            yield workload.where, "two containers have one name"
        for name in names:
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
                yield workload.where, f"container name {name!r} is no DNS label"


@rule("pod-probes")
def probes(tree: Tree) -> Faults:
    """A server says when it is up and ready; liveness asks less than readiness, or load would kill it."""
    for workload in tree.workloads:
        if workload.kind != "Deployment":
            continue
        for container in workload.containers:
            kinds = [k for k in ("startupProbe", "readinessProbe", "livenessProbe") if k not in container]
            if kinds:
                yield workload.where, f"container {container['name']} lacks {', '.join(kinds)}"
                continue
            if container["readinessProbe"] == container["livenessProbe"]:
                yield workload.where, "liveness and readiness ask the same: an overload would become a restart"
            names = {port.get("name") for port in container.get("ports") or []}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container[kind]
                port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
                if isinstance(port, str) and port not in names:
                    yield workload.where, f"{kind} asks the port {port}, which the container does not have"


@rule("pod-grace")
def grace(tree: Tree) -> Faults:
    """A trainer needs time between SIGTERM and SIGKILL to reach the sync point and save."""
    for workload in tree.workloads:
        if workload.pod.get("terminationGracePeriodSeconds", 30) < 20:
            yield workload.where, "terminationGracePeriodSeconds is below 20: a checkpoint may be cut off"
