"""Write the measured tables of docs/kubernetes.md and docs/distributed.md: `uv run python scripts/update_guides.py`.

The results are made by

    uv run python -m launch.checks --posture --json > benchmarks/results/kubernetes.json
    uv run python benchmarks/scaling.py --output benchmarks/results/scaling.json
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from runs.paths import PROJECT_ROOT

RESULTS = PROJECT_ROOT / "benchmarks" / "results"
CHECKS, SCALING = RESULTS / "kubernetes.json", RESULTS / "scaling.json"
KUBERNETES, DISTRIBUTED = PROJECT_ROOT / "docs" / "kubernetes.md", PROJECT_ROOT / "docs" / "distributed.md"

SEEN = {
    "render": ("`kubectl kustomize`, twice", "builds, same bytes, no placeholder left"),
    "1.32": ("strict schemas, Kubernetes 1.32", "unknown fields, wrong types; a kind without a schema fails"),
    "1.34": ("strict schemas, Kubernetes 1.34", "the same"),
    "1.36": ("strict schemas, Kubernetes 1.36", "the same"),
    "models": ("models of the official client", "the same, as `launch` sends it"),
    "types": ("Go types (`kubectl set image --local`)", "quantities, integers"),
    "rules": ("the project's rules, each with its mutants", "references, world size, ports, policies, hardware"),
    "checkov": ("checkov, three exceptions justified", "posture"),
}
"""Check → how the table calls it, and what it sees."""


def checks(results: dict[str, Any]) -> str:
    """Overlays × checks: findings."""
    overlays = results["overlays"]
    names = [entry["overlay"] for entry in overlays]
    lines = [
        f"| check | what it sees | {' | '.join(names)} |",
        f"| --- | --- |{' ---: |' * len(names)}",
        f"| objects | | {' | '.join(str(entry['objects']) for entry in overlays)} |",
    ]
    for check, (name, sees) in SEEN.items():
        found = (entry["findings"][check] for entry in overlays)
        lines.append(f"| {name} | {sees} | {' | '.join('pass' if not n else f'{n} findings' for n in found)} |")
    return "\n".join(lines) + "\n"


def scaling(results: dict[str, Any]) -> str:
    """Rates, efficiency, and how fast a run stops."""
    machine = results["hardware"]
    loads = [results[part]["load_before"] for part in ("classifier", "evaluation", "stop")]
    head = f"{machine['cores']} cores, {machine['memory_gib']:.0f} GiB, no accelerator."
    if max(loads) > 1:
        head += (
            f" The machine had other work (load {min(loads):.0f} to {max(loads):.0f} before the parts); "
            "what was measured had the higher priority."
        )
    lines = [
        head,
        "",
        "| work | unit | one process, one core | two, a core each | one, all cores | efficiency 1 → 2 |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    titles = {
        "minilm-4096": "classifier, MiniLM, 4096 tokens a step as shipped",
        "minilm-512": "classifier, MiniLM, 512 tokens a step",
        "tiny": "classifier, tiny: the worst case",
    }
    for name, title in titles.items():
        found = results["classifier"]["trainings"][name]
        lines.append(_rates(title, "steps/s", found["steps_per_second"], found["efficiency"]))
    found = results["evaluation"]
    title = f"evaluation, {found['prompts']} prompts, two shards"
    lines.append(_rates(f"{title}, with loading", "answers/s", found["answers_per_second"], found["efficiency"]))
    lines.append(_rates(f"{title}, decoding", "tokens/s", found["tokens_per_second"], found["efficiency_decoding"]))
    lines += ["", "| SIGTERM to one process of | seconds until all have left | exit codes | finished work lost |"]
    lines.append("| --- | ---: | ---: | ---: |")
    for name, entry in results["stop"]["runs"].items():
        codes = ", ".join(map(str, entry["exit_codes"]))
        lines.append(f"| {name} | {entry['seconds']:.1f} | {codes} | {entry['lost']} |")
    return "\n".join(lines) + "\n"


def _rates(title: str, unit: str, rates: dict[str, float], efficiency: float) -> str:
    cells = (f"{rates[label]:.3g}" for label in ("one", "two", "one with all cores"))
    return f"| {title} | {unit} | {' | '.join(cells)} | {efficiency:.0%} |"


def updated(page: str, name: str, text: str) -> str:
    """``page`` with the block between its markers ``name:begin`` and ``name:end`` written anew."""
    block = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if not block.search(page):
        raise ValueError(f"the page has no block '{name}'")
    return block.sub(lambda found: found.group(1) + text + found.group(2), page)


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    return {
        KUBERNETES: updated(KUBERNETES.read_text(), "checks", checks(json.loads(CHECKS.read_text()))),
        DISTRIBUTED: updated(DISTRIBUTED.read_text(), "scaling", scaling(json.loads(SCALING.read_text()))),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
