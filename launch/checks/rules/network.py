"""Rules on names, ports and reachability: Services, NetworkPolicies, the ranks' meeting point."""

from __future__ import annotations

import re

from launch.checks.rules.jobs import environment
from launch.checks.rules.registry import Faults, rule
from launch.checks.tree import Tree, Workload, matches, name_of, selects, where
from launch.render import Document

MEETING = re.compile(r"(?P<host>[^.:]+(?:\$\([A-Z_]+\))?-0)\.(?P<service>[a-z0-9-]+)(?::(?P<port>\d+))?")
"""Where ranks meet: Pod 0 of the Job, by the headless Service."""


@rule("net-headless-service")
def headless_service(tree: Tree) -> Faults:
    """No API server sees it: `subdomain` gives Pods names only by a headless Service that selects them."""
    for workload in tree.workloads:
        name = workload.pod.get("subdomain")
        if name is None:
            continue
        service = tree.named("Service", name)
        if service is None:
            yield workload.where, f"subdomain {name}: there is no such Service"
            continue
        spec = service.get("spec") or {}
        if spec.get("clusterIP") != "None":
            yield workload.where, f"subdomain {name}: the Service is not headless (clusterIP: None)"
        if not selects(spec.get("selector"), workload.labels):
            yield workload.where, f"subdomain {name}: the Service does not select these Pods"
        if not spec.get("publishNotReadyAddresses"):
            yield workload.where, f"subdomain {name}: names appear only when Pods are ready (publishNotReadyAddresses)"


@rule("net-meeting-point")
def meeting_point(tree: Tree) -> Faults:
    """Ranks ask for Pod 0 under the Service's name, on a port that it has."""
    for job in tree.jobs:
        if not job.lockstep:
            continue
        values = environment(job)
        address = values.get("JAX_COORDINATOR_ADDRESS")
        if address is None and "MASTER_ADDR" in values:
            address = f"{values['MASTER_ADDR']}:{values.get('MASTER_PORT', '')}"
        found = MEETING.fullmatch(address or "")
        if found is None:
            yield job.where, f"ranks meet at {address or 'no address'}: expected POD-0.SERVICE:PORT"
            continue
        if found["service"] != job.pod.get("subdomain"):
            yield job.where, f"ranks meet at {found['service']}, but their subdomain is {job.pod.get('subdomain')}"
        if found["port"] not in {str(p.get("containerPort")) for c in job.containers for p in c.get("ports") or []}:
            yield job.where, f"ranks meet on port {found['port']}, which no container has"
        if found["host"] not in (f"{job.name}-0", "$(JOB_NAME)-0"):
            yield job.where, f"ranks meet at {found['host']}, which is no Pod of this Job"


@rule("net-service-selects")
def service_selects(tree: Tree) -> Faults:
    """No API server sees it: a Service that selects nothing answers nobody."""
    for service in tree.of("Service"):
        spec = service.get("spec") or {}
        chosen = _chosen(tree, spec.get("selector"))
        if not chosen:
            yield where(service), "selects no Pod"
        for port in spec.get("ports") or []:
            target = port.get("targetPort", port.get("port"))
            for workload in chosen:
                known = {value for c in workload.containers for p in c.get("ports") or [] for value in _names(p)}
                if target not in known:
                    yield where(service), f"port {target} is not a port of {workload.where}"


def _chosen(tree: Tree, selector: dict[str, str] | None) -> list[Workload]:
    return [workload for workload in tree.workloads if selects(selector, workload.labels)]


def _names(port: dict[str, object]) -> list[object]:
    return [port.get("name"), port.get("containerPort")]


@rule("net-no-front-door")
def no_front_door(tree: Tree) -> Faults:
    """Nothing here is open to the internet: people come in by `kubectl port-forward`."""
    for service in tree.of("Service"):
        spec = service.get("spec") or {}
        if spec.get("type", "ClusterIP") != "ClusterIP" or spec.get("externalIPs"):
            yield where(service), f"type {spec.get('type')} opens it to the outside"
        for port in spec.get("ports") or []:
            if "nodePort" in port and not 30000 <= port["nodePort"] <= 32767:
                yield where(service), f"nodePort {port['nodePort']} lies outside 30000 to 32767"
    for ingress in tree.of("Ingress", "Gateway"):
        yield where(ingress), "opens a door to the outside"


@rule("net-default-deny")
def default_deny(tree: Tree) -> Faults:
    """What no policy mentions is forbidden, in both directions."""
    for policy in tree.of("NetworkPolicy"):
        spec = policy.get("spec") or {}
        both = set(spec.get("policyTypes") or []) == {"Ingress", "Egress"}
        if both and not any(spec.get(key) for key in ("podSelector", "ingress", "egress")):
            return
    yield "NetworkPolicy", "there is no policy that denies all by default"


@rule("net-policy-selects")
def policy_selects(tree: Tree) -> Faults:
    """A policy for Pods that are not there is a slip in a label; one that lacks its direction does nothing."""
    for policy in tree.of("NetworkPolicy"):
        spec = policy.get("spec") or {}
        chosen = [workload for workload in tree.workloads if matches(spec.get("podSelector"), workload.labels)]
        if not chosen and name_of(policy) in {workload.name for workload in tree.workloads}:
            yield where(policy), "selects no Pod"
        for key, direction in (("ingress", "Ingress"), ("egress", "Egress")):
            if spec.get(key) and direction not in (spec.get("policyTypes") or []):
                yield where(policy), f"has rules for {key}, but policyTypes lacks {direction}"


@rule("net-names")
def names(tree: Tree) -> Faults:
    """Under default deny every Pod needs a policy that lets it ask for names."""
    for workload in tree.workloads:
        if not any(53 in _egress_ports(policy) for policy in _policies_of(tree, workload)):
            yield workload.where, "no NetworkPolicy lets it ask for names (port 53)"


@rule("net-ranks-reach-each-other")
def ranks_reach(tree: Tree) -> Faults:
    """Under default deny ranks need a policy that lets them reach each other, both ways and on every port."""
    for job in tree.jobs:
        if not job.lockstep:
            continue
        for key, side in (("ingress", "from"), ("egress", "to")):
            open_to = [
                peer.get("podSelector")
                for policy in _policies_of(tree, job)
                for entry in (policy["spec"].get(key) or [])
                if not entry.get("ports")
                for peer in entry.get(side) or []
                if "podSelector" in peer and "namespaceSelector" not in peer
            ]
            if not any(matches(peer, job.labels) for peer in open_to):
                yield job.where, f"no NetworkPolicy allows {key} between its Pods"


@rule("net-hub")
def hub(tree: Tree) -> Faults:
    """A Pod that downloads weights (it mounts the hub's token and does not merge) may reach HTTPS."""
    for workload in tree.workloads:
        required = [
            v for v in workload.pod.get("volumes") or [] if (v.get("secret") or {}).get("secretName") == "huggingface"
        ]
        gated = any(not volume["secret"].get("optional") for volume in required)
        if gated and not any(443 in _egress_ports(policy) for policy in _policies_of(tree, workload)):
            yield workload.where, "needs a gated model, and no NetworkPolicy lets it reach the hub (port 443)"


def _policies_of(tree: Tree, workload: Workload) -> list[Document]:
    found = tree.of("NetworkPolicy")
    return [policy for policy in found if matches((policy.get("spec") or {}).get("podSelector"), workload.labels)]


def _egress_ports(policy: Document) -> set[object]:
    rules = (policy.get("spec") or {}).get("egress") or []
    return {port.get("port") for entry in rules for port in entry.get("ports") or []}


@rule("net-monitoring")
def monitoring(tree: Tree) -> Faults:
    """A PodMonitoring selects Pods that have the port, and a NetworkPolicy lets the collector in."""
    for monitor in tree.of("PodMonitoring"):
        spec = monitor.get("spec") or {}
        chosen = [workload for workload in tree.workloads if matches(spec.get("selector"), workload.labels)]
        ports = {p.get("name") for w in chosen for c in w.containers for p in c.get("ports") or []}
        for endpoint in spec.get("endpoints") or []:
            if endpoint.get("port") not in ports:
                yield where(monitor), f"no selected Pod has the port {endpoint.get('port')}"
            elif not any(
                port.get("port") == endpoint.get("port")
                for policy in tree.of("NetworkPolicy")
                for entry in (policy.get("spec") or {}).get("ingress") or []
                for port in entry.get("ports") or []
            ):
                yield where(monitor), f"no NetworkPolicy lets a collector reach the port {endpoint.get('port')}"
