"""What the Grafana dashboard asks for, and what a program exports: the tests of each program compare the two."""

from __future__ import annotations

import json
import re

from runs.paths import PROJECT_ROOT

BOARD = json.loads((PROJECT_ROOT / "k8s" / "grafana" / "dashboard.json").read_text())
PARTS = ("cai_sft", "cai_dpo", "cai_classifier", "cai_evaluate", "cai_critique_revision", "safety_classifier")
"""First words of metric names; each has a test beside the program that exports them."""


def queries() -> list[str]:
    """The PromQL of every panel."""
    return [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


def asked(part: str | None = None) -> set[str]:
    """The metrics that the dashboard reads, all or those of one of `PARTS`."""
    names = {name for query in queries() for name in re.findall(r"\b([a-z]\w*_\w+)\{", query)}
    return {name for name in names if part is None or name.startswith(f"{part}_")}


def exported(text: str) -> set[str]:
    """The metrics in Prometheus' text format."""
    return {re.split(r"[{ ]", line, maxsplit=1)[0] for line in text.splitlines() if line and not line.startswith("#")}
