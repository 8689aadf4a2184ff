"""Write docs/benchmarks.md from the kept results: `uv run python scripts/update_benchmarks.py`."""

from __future__ import annotations

from benchmarks import serving
from benchmarks.classifier_report import Results, report
from benchmarks.serving import Serving
from runs.paths import PROJECT_ROOT

KEPT = PROJECT_ROOT / "benchmarks" / "results" / "classifier.json"
SERVED = KEPT.with_name("serving.json")
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


SERVER = """
## The classifier's server under load

Requests arrive as a Poisson process, whether or not earlier ones have been answered; a latency counts from the moment
at which the request was due. The client takes its share of the same cores. Made by

    uv run safety-classifier serve &
    uv run python benchmarks/serving.py --seconds 20 --start 40 --json benchmarks/results/serving.json

"""


def page() -> str:
    """The whole page, from the kept results."""
    speeds = report(Results.model_validate_json(KEPT.read_bytes()))
    load = serving.report(Serving.model_validate_json(SERVED.read_bytes()))
    return HEAD + speeds.rstrip() + "\n" + SERVER + load


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
