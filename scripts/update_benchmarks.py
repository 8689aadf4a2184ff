"""Write docs/benchmarks.md from the kept results: `uv run python scripts/update_benchmarks.py`."""

from __future__ import annotations

from benchmarks.classifier_report import Results, report
from runs.paths import PROJECT_ROOT

KEPT = PROJECT_ROOT / "benchmarks" / "results" / "classifier.json"
PAGE = PROJECT_ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Speed is a ratio to a peer in the same run; absolute figures are this machine's. Missed bars stay in the tables.

## The classifier against PyTorch and ONNX Runtime

Same architecture, same weights, same rows, interleaved in one run, each library in a process of its own. Below float32
ours takes GELU's tanh form, the peers the exact one; the error of a logit, in the table of throughput, holds that.
Made by

    uv run python benchmarks/classifier.py --json benchmarks/results/classifier.json
    uv run python benchmarks/classifier.py --busy --json benchmarks/results/classifier.json
    uv run python scripts/update_benchmarks.py

"""


def page(results: Results) -> str:
    """The whole page."""
    return HEAD + report(results).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(Results.model_validate_json(KEPT.read_bytes())), encoding="utf-8")
