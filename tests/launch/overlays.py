"""Overlays that tests render: the ones that ship, and one with every component that those leave out."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from launch.render import TREE, Document, parse, render_text

SHIPPED = ("local", "gke-gpu", "gke-tpu")
JOBS = ("classifier", "sft", "critique-revision", "pairs", "dpo", "evaluate", "verdict", "chain")
EXTRAS = ("gpu-a100", "spot", "workload-identity", "gcsfuse", "kueue", "one-source", "jobset")
"""Components of `everything`, in an order in which they fit together."""


@cache
def text_of(overlay: str) -> str:
    """An overlay's YAML, rendered once for all tests; `everything` is put together here."""
    if overlay != "everything":
        return render_text(overlay)
    with TemporaryDirectory() as folder:
        write_overlay(Path(folder), jobs=JOBS, components=EXTRAS)
        return f"{render_text(folder)}---\n{render_text(str(TREE / 'cluster' / 'kueue'))}"


def write_overlay(folder: Path, *, jobs: tuple[str, ...], components: tuple[str, ...]) -> None:
    """A kustomization of base, ``jobs`` and ``components`` in ``folder``; kustomize wants relative paths."""
    up = os.path.relpath(TREE, folder.resolve())
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "constitutional-ai",
        "resources": [f"{up}/base", *(f"{up}/jobs/{name}" for name in jobs)],
        "components": [f"{up}/components/{name}" for name in components],
        "labels": [{"pairs": {"app.kubernetes.io/part-of": "constitutional-ai"}, "includeTemplates": True}],
        "images": [{"name": f"constitutional-ai/{name}", "newTag": "0.1.0"} for name in ("cpu", "cuda", "tpu")],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))


@cache
def _parsed(overlay: str) -> str:
    return json.dumps(parse(text_of(overlay)))


def documents(overlay: str) -> list[Document]:
    """A fresh copy of an overlay's objects."""
    found: list[Document] = json.loads(_parsed(overlay))
    return found


__all__ = ["EXTRAS", "JOBS", "SHIPPED", "documents", "text_of", "write_overlay"]
