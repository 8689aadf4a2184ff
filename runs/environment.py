"""The machine and the software that a run used, and the settings it needs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import warnings
from importlib import metadata
from typing import Any

from runs.paths import PROJECT_ROOT

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "numpy",
    "safetensors",
    "tokenizers",
    "jax",
    "flax",
    "optax",
)
"""Libraries whose version can change a result; a manifest records them."""


def prepare_process() -> None:
    """Set what must be set before torch and the hub libraries load. A user's own values win.

    ``OMP_WAIT_POLICY=passive``: with the default, waiting OpenMP threads spin and steal the core that the
    working thread needs; on a busy two-core machine that costs a factor of ten (docs/footguns.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The libraries warn each other of their own next versions; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl|torch)\.")


def package_versions() -> dict[str, str]:
    """Versions of the installed libraries in `PACKAGES`, and of Python."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def git_state() -> dict[str, Any]:
    """The checkout's commit and whether files differ from it; ``commit`` is None outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(PROJECT_ROOT), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(status) if status is not None else None}


def hardware() -> dict[str, Any]:
    """Processor, core count, memory and accelerator, without loading torch unless it is loaded."""
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        found["accelerator"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return found


def peak_memory_gib() -> float:
    """Largest resident size of this process so far, in GiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**30 if sys.platform == "darwin" else 2**20), 2)
