"""What a run was made of, for the last section of the page."""

from __future__ import annotations

from html import escape
from typing import Any

from evaluation.report.data import RunData
from evaluation.report.grid import Cell, Grid, to_html


def provenance_html(run: RunData) -> str:
    """Config, identity, files with digests, versions, machine."""
    manifest = run.manifest
    made = [
        ("run id", run.results.run_id),
        ("command", manifest.command),
        ("created", manifest.created),
        ("wall time", f"{manifest.wall_seconds:,.0f} s"),
        ("peak memory", f"{manifest.peak_memory_gib} GiB"),
        ("code", _code(manifest.git)),
        *((f"seed of {name}", str(seed)) for name, seed in manifest.seeds.items()),
    ]
    files = [(name, entry.sha256, f"{entry.size:,} bytes") for name, entry in manifest.files.items()]
    machine = [*manifest.packages.items(), *((key, str(value)) for key, value in manifest.hardware.items())]
    return (
        "<p class='lead'>Everything that could have changed a result; the run id is its digest.</p>"
        + _pairs(made)
        + "<h3>Identity</h3>"
        + _pairs(list(_flat(run.results.identity)))
        + "<h3>Settings</h3>"
        + _pairs(list(_flat(run.results.config)))
        + "<h3>Files</h3>"
        + to_html(
            Grid(("file", "sha256", "size"), tuple(tuple(Cell(text, look="text") for text in row) for row in files))
        )
        + "<h3>Software and machine</h3>"
        + _pairs(machine)
        + f"<details><summary>Manifest as JSON</summary><pre class='small'>{escape(manifest.model_dump_json(indent=2))}"
        "</pre></details>"
    )


def _code(git: dict[str, Any]) -> str:
    if not git.get("commit"):
        return "not in a checkout"
    return f"{git['commit']}{', with local changes' if git.get('dirty') else ''}"


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return to_html(Grid(("", ""), tuple((Cell(key), Cell(value, look="text")) for key, value in pairs)))


def _flat(value: Any, dotted: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, entry in value.items() for pair in _flat(entry, f"{dotted}.{key}".lstrip("."))]
    return [(dotted, str(value))]
