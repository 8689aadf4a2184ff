"""What `evaluate ls` shows."""

from __future__ import annotations

from pathlib import Path

from evaluation.evaluators import registry
from inference.families import family_names, load_family
from runs.manifest import NAME, Manifest
from runs.paths import shown

Listing = tuple[str, list[str], list[list[str]]]
"""Title, column names, rows."""


def list_models() -> Listing:
    """Families with their checkpoints; an adapter that is not trained yet is marked."""
    rows = []
    for name in family_names():
        family = load_family(name)
        names = ["base"] + [
            point if (family.adapter_folder(point) / NAME).is_file() else f"{point} (not trained)"
            for point in family.adapters
        ]
        rows.append([name, family.base.public_id, family.dtype, family.licence, ", ".join(names)])
    return "Model families", ["family", "base", "dtype", "licence", "models"], rows


def list_evaluators() -> Listing:
    """Evaluators with the first line of what they say of themselves."""
    rows = [list(entry) for entry in registry.entries()]
    return "Evaluators", ["evaluator", "version", "about"], rows


def list_runs(root: Path) -> Listing:
    """Finished evaluations under ``root``, newest first."""
    found = []
    for path in root.glob(f"*/{NAME}"):
        manifest = Manifest.model_validate_json(path.read_bytes())
        if manifest.kind == "evaluation":
            models = ", ".join(manifest.config["models"])
            found.append([shown(path.parent), models, str(manifest.counts["prompts"]), manifest.created])
    found.sort(key=lambda row: row[3], reverse=True)
    return "Evaluations", ["folder", "models", "prompts", "created"], found
