"""Kubernetes' own schemas: strict JSON schemas by version, the official client's models, kubectl's Go types.

All three see unknown fields and wrong types, and little else: `launch.checks.rules` sees the rest.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from launch.checks.tree import Finding, Tree, where
from launch.render import TIMEOUT_S, Document, kubectl
from runs.errors import UserError

MINORS = ("1.32", "1.34", "1.36")
"""The versions of Kubernetes that every manifest must fit."""

CUSTOM = frozenset(
    {
        ("jobset.x-k8s.io/v1alpha2", "JobSet"),
        ("kueue.x-k8s.io/v1beta2", "ClusterQueue"),
        ("kueue.x-k8s.io/v1beta2", "LocalQueue"),
        ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"),
        ("monitoring.googleapis.com/v1", "PodMonitoring"),
    }
)
"""Kinds of other projects, left out by name; the rules follow their references. Any other unknown kind is a fault."""


def builtin(tree: Tree) -> list[Document]:
    """The objects that Kubernetes itself defines, and the Jobs inside JobSets as Jobs."""
    found = [d for d in tree.documents if (d.get("apiVersion"), d.get("kind")) not in CUSTOM]
    inner = [job for job in tree.jobs if tree.named("Job", job.name) is None]
    for job in inner:
        found.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job.name}, "spec": job.spec})
    return found


def check_schemas(tree: Tree, minor: str) -> list[Finding]:
    """Each object against the strict schema of one Kubernetes version. A kind without a schema is a fault.

    The command `kubernetes-validate` only warns of such a kind, and passes it.

    Raises:
        UserError: kubernetes-validate is not installed, or has no schemas of this version.
    """
    faults = []
    for document in builtin(tree):
        kind = (str(document.get("apiVersion")), str(document.get("kind")))
        validator = _validator(minor, *kind)
        if validator is None:
            faults.append(Finding(f"schema {minor}", where(document), f"no schema for {' '.join(kind)}"))
            continue
        for error in validator.iter_errors(document):
            path = ".".join(str(part) for part in error.path)
            faults.append(Finding(f"schema {minor}", where(document), f"{path}: {error.message[:200]}"))
    return faults


@cache
def _validator(minor: str, api_version: str, kind: str) -> Any:
    """The validator of a kind in kubernetes-validate's strict schemas; None where there is no schema."""
    schemas, definitions = _schemas(minor)
    group, _, version = api_version.rpartition("/")
    if "." in group and not group.endswith(".k8s.io"):
        return None  # files are named by the group's first word: batch.example/v1 would pass as batch/v1
    file = schemas / f"{kind.lower()}-{'-'.join(part for part in (group.split('.')[0], version) if part)}.json"
    if not file.is_file():
        return None
    import jsonschema
    from referencing import Registry, Resource

    schema = json.loads(file.read_text())
    registry = Resource.from_contents(definitions) @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _schemas(minor: str) -> tuple[Path, Any]:
    """The folder of strict schemas of a version, and the definitions that all of them refer to."""
    try:
        import kubernetes_validate
    except ImportError as error:
        raise UserError(
            "kubernetes-validate is not installed.", mend="It belongs to the development group: `uv sync`."
        ) from error
    found = sorted(Path(kubernetes_validate.__file__).parent.glob(f"kubernetes-json-schema/v{minor}.*-local-strict"))
    if not found:
        raise UserError(f"kubernetes-validate has no schemas of Kubernetes {minor}.", mend="Choose another of MINORS.")
    return found[-1], json.loads((found[-1] / "_definitions.json").read_text())


@cache
def model_of(api_version: str, kind: str) -> type[BaseModel] | None:
    """The official client's model of a kind: ``("batch/v1", "Job")`` is ``V1Job``."""
    from kubernetes import client

    group, _, version = api_version.rpartition("/")
    if group not in ("", "apps", "batch", "policy", "networking.k8s.io", "rbac.authorization.k8s.io"):
        return None
    found: Any = getattr(client, f"{version.capitalize()}{kind}", None)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def check_models(tree: Tree) -> list[Finding]:
    """Each object against the official client's strict model, which is what `launch submit` sends."""
    faults = []
    for document in builtin(tree):
        model = model_of(str(document.get("apiVersion")), str(document.get("kind")))
        if model is None:
            kind = f"{document.get('apiVersion')} {document.get('kind')}"
            faults.append(Finding("models", where(document), f"the client has no model for {kind}"))
            continue
        try:
            model.model_validate(document)
        except ValidationError as error:
            for fault in error.errors():
                path = ".".join(str(part) for part in fault["loc"])
                faults.append(Finding("models", where(document), f"{path}: {fault['msg']}"))
    return faults


def check_types(tree: Tree) -> list[Finding]:
    """Jobs and Deployments decoded into Kubernetes' own Go types by kubectl, offline: quantities and integers."""
    faults = []
    for document in builtin(tree):
        if document.get("kind") not in ("Job", "Deployment"):
            continue
        done = subprocess.run(
            [kubectl(), "set", "image", "--local", "-f", "-", "*=any:1", "-o", "name"],
            input=yaml.safe_dump(document),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            text = re.sub(r"\s+", " ", done.stderr.strip())
            faults.append(Finding("types", where(document), text[:300]))
    return faults


def check_all(tree: Tree, minors: Sequence[str] = MINORS) -> dict[str, list[Finding]]:
    """All of the above, by the name of the check."""
    found = {minor: check_schemas(tree, minor) for minor in minors}
    return found | {"models": check_models(tree), "types": check_types(tree)}
