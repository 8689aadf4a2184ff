"""checkov on the rendered manifests, from its own locked environment: it pins what the project must not pin."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from launch.checks.tree import Finding
from launch.render import TREE
from runs.errors import UserError

FOLDER = TREE / "checkov"
CONFIG = FOLDER / "config.yaml"
CHECKOV = FOLDER / ".venv" / "bin" / "checkov"
TIMEOUT_S = 600


def check_posture(texts: Mapping[str, str]) -> dict[str, list[Finding]]:
    """What checkov finds beyond the exceptions that its config explains.

    Args:
        texts: overlay → its YAML. All are read in one run: most of its time is checkov's start.

    Raises:
        UserError: checkov is not installed, or did not read every overlay.
    """
    if not CHECKOV.is_file():
        raise UserError("checkov is not installed.", mend="uv sync --project k8s/checkov")
    with TemporaryDirectory() as folder:
        paths = {overlay: Path(folder, f"{number}.yaml") for number, overlay in enumerate(texts)}
        for overlay, path in paths.items():
            path.write_text(texts[overlay], encoding="utf-8")
        words = [str(CHECKOV), "--config-file", str(CONFIG), "--output", "json", "--file", *map(str, paths.values())]
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    try:
        found = json.loads(done.stdout)
        report = found[0] if isinstance(found, list) else found
        failed, passed = report["results"]["failed_checks"], report["summary"]["passed"]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError("checkov gave no report.", why=(done.stderr or done.stdout).strip()[-500:]) from error
    if not passed:
        raise UserError("checkov checked nothing.", why=done.stderr.strip()[-500:])
    overlays = {path.name: overlay for overlay, path in paths.items()}
    faults: dict[str, list[Finding]] = {overlay: [] for overlay in texts}
    for entry in failed:
        name = Path(entry["file_path"]).name
        faults[overlays[name]].append(Finding(entry["check_id"], entry["resource"], entry["check_name"]))
    return faults
