"""An overlay's objects, indexed for the rules: who owns Pods, what Pods mount, which names exist."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from launch.render import Document

REFERENCE = re.compile(r"(?<!\$)\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
"""``$(NAME)`` in a command, argument or value: Kubernetes puts the variable's value in its place."""

CLUSTER_SCOPED = frozenset({"Namespace", "ClusterQueue", "ResourceFlavor", "ClusterRole", "ClusterRoleBinding"})
"""Kinds in use here that live in no namespace."""


@dataclass(frozen=True)
class Finding:
    """One fault: which rule found it, in which object, and what is wrong."""

    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} [{self.rule}]"


@dataclass(frozen=True)
class Workload:
    """An object that makes Pods: a Job (also one inside a JobSet) or a Deployment.

    ``spec`` is the Job's or Deployment's spec, ``metadata`` its own metadata.
    """

    kind: str
    name: str
    spec: Document
    metadata: Document

    @property
    def where(self) -> str:
        """How findings name it."""
        return f"{self.kind}/{self.name}"

    @property
    def template(self) -> Document:
        """The Pod template."""
        found: Document = self.spec.get("template") or {}
        return found

    @property
    def pod(self) -> Document:
        """The Pod's spec."""
        found: Document = self.template.get("spec") or {}
        return found

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the Pods."""
        return (self.template.get("metadata") or {}).get("labels") or {}

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations of the Pods."""
        return (self.template.get("metadata") or {}).get("annotations") or {}

    @property
    def containers(self) -> list[Document]:
        """The containers that run side by side."""
        return self.pod.get("containers") or []

    @property
    def all_containers(self) -> list[Document]:
        """Init containers, then containers."""
        return [*(self.pod.get("initContainers") or []), *self.containers]

    @property
    def indexed(self) -> bool:
        """Whether this is a Job whose Pods have an index."""
        return self.kind == "Job" and self.spec.get("completionMode") == "Indexed"

    @property
    def lockstep(self) -> bool:
        """Whether its Pods talk to each other, so that one cannot work without the others."""
        return self.kind == "Job" and "subdomain" in self.pod

    @property
    def pods(self) -> int:
        """How many Pods run at a time."""
        count = self.spec.get("parallelism" if self.kind == "Job" else "replicas", 1)
        return count if isinstance(count, int) else 1

    def resource(self, name: str, kind: str = "limits") -> int:
        """How many of an extended resource (``nvidia.com/gpu``, ``google.com/tpu``) a Pod has."""
        values = ((c.get("resources") or {}).get(kind) or {} for c in self.containers)
        return sum(int(value.get(name, 0)) for value in values)


def reads(value: Any) -> Iterator[str]:
    """Every string inside ``value``, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from reads(item)
    elif isinstance(value, list):
        for item in value:
            yield from reads(item)


def selects(selector: dict[str, str] | None, labels: dict[str, str]) -> bool:
    """Whether a plain selector matches ``labels``; an empty one matches nothing here."""
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())


def matches(selector: Document | None, labels: dict[str, str]) -> bool:
    """Whether a ``LabelSelector`` (``matchLabels``, ``matchExpressions``) matches; an empty one matches all."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(expression, labels) for expression in selector.get("matchExpressions") or [])


def _expression(expression: Document, labels: dict[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    values: list[str] = expression.get("values") or []
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return bool((key in labels) == (operator == "Exists"))


@dataclass(frozen=True)
class Tree:
    """All objects of an overlay."""

    documents: Sequence[Document]
    external_secrets: frozenset[str] = field(default=frozenset({"huggingface", "dashboard", "critic"}))
    """Secrets that a person makes by the README's commands; no manifest holds them."""

    def of(self, *kinds: str) -> list[Document]:
        """The objects of these kinds."""
        return [document for document in self.documents if document.get("kind") in kinds]

    def named(self, kind: str, name: str | None) -> Document | None:
        """The object of a kind with a name, if there is one."""
        return next((document for document in self.of(kind) if name_of(document) == name), None)

    @cached_property
    def workloads(self) -> list[Workload]:
        """Everything that makes Pods."""
        found = [
            Workload(document["kind"], name_of(document), document.get("spec") or {}, document.get("metadata") or {})
            for document in self.of("Job", "Deployment")
        ]
        for jobset in self.of("JobSet"):
            for part in (jobset.get("spec") or {}).get("replicatedJobs") or []:
                name = f"{name_of(jobset)}-{part.get('name')}"
                found.append(Workload("Job", name, part["template"].get("spec") or {}, jobset["metadata"]))
        return found

    @property
    def jobs(self) -> list[Workload]:
        """The workloads that are Jobs."""
        return [workload for workload in self.workloads if workload.kind == "Job"]

    def config_keys(self, name: str | None) -> set[str] | None:
        """The keys of a ConfigMap, or None when there is no such ConfigMap."""
        found = self.named("ConfigMap", name)
        return None if found is None else {*(found.get("data") or {}), *(found.get("binaryData") or {})}


def name_of(document: Document) -> str:
    """``metadata.name``, or an empty string."""
    return str((document.get("metadata") or {}).get("name", ""))


def where(document: Document) -> str:
    """How findings name an object: ``Kind/name``."""
    return f"{document.get('kind')}/{name_of(document)}"
