"""Rules on spelling: names, labels, images, quantities."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from launch.checks.quantities import parse_quantity
from launch.checks.rules.registry import Faults, rule
from launch.checks.tree import Tree, where
from launch.render import Document

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
QUALIFIED = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)")
IMAGE = re.compile(
    r"(?P<name>[a-z0-9]+([._-][a-z0-9]+)*(:\d+)?(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
QUANTITIES = frozenset({"requests", "limits"})


@rule("text-names")
def names(tree: Tree) -> Faults:
    """The API: names are DNS names; a Service's and a Namespace's are labels; an Indexed Job's Pods need room."""
    for document in tree.documents:
        name = str((document.get("metadata") or {}).get("name", ""))
        pattern = LABEL if document.get("kind") in ("Service", "Namespace") else SUBDOMAIN
        if not pattern.fullmatch(name):
            yield where(document), f"name {name!r} is no DNS name"
    for job in tree.jobs:
        longest = f"{job.name}-{max(int(job.spec.get('completions') or 1) - 1, 0)}" if job.indexed else job.name
        if len(longest) > 63:
            yield job.where, f"{longest} is longer than 63 letters: the Pods could not have it as their host name"


@rule("text-labels")
def labels(tree: Tree) -> Faults:
    """The API: keys are [domain/]name, values at most 63 letters, digits, '.', '_' and '-'; both are strings."""
    for document in tree.documents:
        for place, metadata in _metadata(document):
            for key, value in (metadata.get("labels") or {}).items():
                if not _legal_key(str(key)):
                    yield where(document), f"label key {key!r} in {place}"
                if not isinstance(value, str) or (value and not QUALIFIED.fullmatch(value)):
                    yield where(document), f"label {key}: {value!r} in {place}"
            for key, value in (metadata.get("annotations") or {}).items():
                if not _legal_key(str(key)) or not isinstance(value, str):
                    yield where(document), f"annotation {key}: {value!r} in {place}"


def _metadata(value: Any, place: str = "metadata") -> Iterator[tuple[str, Document]]:
    """The metadata of an object and of the templates in it."""
    if isinstance(value, dict):
        if isinstance(value.get("metadata"), dict):
            yield place, value["metadata"]
        for key in ("spec", "template"):
            yield from _metadata(value.get(key), f"{key}.{place}")


def _legal_key(key: str) -> bool:
    domain, slash, name = key.rpartition("/")
    return bool(QUALIFIED.fullmatch(name)) and (not slash or bool(SUBDOMAIN.fullmatch(domain)))


@rule("text-images")
def images(tree: Tree) -> Faults:
    """No API server parses images: a slip is an ErrImagePull, and `latest` is another program every week."""
    for workload in tree.workloads:
        for container in workload.all_containers:
            text = str(container.get("image", ""))
            found = IMAGE.fullmatch(text)
            if found is None:
                yield workload.where, f"{text!r} is no image reference"
            elif not found["digest"] and found["tag"] in (None, "latest"):
                yield workload.where, f"{text} names no version"


@rule("text-quantities")
def quantities(tree: Tree) -> Faults:
    """The API: 16Gi is a quantity, 16GiB is none; a schema takes both for strings."""
    for document in tree.documents:
        yield from ((where(document), f"{value!r} is no quantity ({key})") for key, value in _quantities(document))


def _quantities(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _quantities(item)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in QUANTITIES and isinstance(item, dict):
            yield from ((f"{key}.{name}", q) for name, q in item.items() if parse_quantity(q) is None)
        elif key in ("sizeLimit", "nominalQuota") and parse_quantity(item) is None:
            yield key, item
        else:
            yield from _quantities(item)
