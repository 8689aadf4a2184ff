"""When answers end: the share that a limit would cut, at every limit up to that of the run.

    uv run evaluate --models base stage2 stage3 --family smollm2-135m-bf16 --prompts results/held-out.jsonl \
        --limit 100 --max-new-tokens 512 --no-report --output-dir results/endings
    uv run python -m studies.endings results/endings/samples.jsonl --output artifacts/smollm2-135m/studies

Greedy answers of a shorter limit are prefixes of these, so that one run tells the share for all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from evaluation.records import Sample
from runs.atomic import write_text
from runs.config import StrictModel
from runs.errors import DataError
from runs.palette import SERIES
from runs.records import read_jsonl

NAME = "endings"
LIMITS = (64, 96, 128, 192, 256, 384, 512)
"""Limits of the table, in tokens."""


class Endings(StrictModel):
    """How long the answers of some checkpoints are."""

    prompts: int
    limit: int
    """Of the run, in tokens: what is longer was cut there."""
    ended: dict[str, list[int]]
    """Checkpoint → tokens of every answer that ended by itself, ascending."""

    def cut(self, model: str, limit: int) -> float:
        """The share of answers that a limit would cut: those of so many tokens or more, their end token not counted."""
        return 1.0 - sum(length < limit for length in self.ended[model]) / self.prompts


def endings(samples: Sequence[Sample]) -> Endings:
    """The lengths of one run's answers.

    Raises:
        DataError: no answer was cut, so that the limit is not known; or the checkpoints' answers differ in number.
    """
    cut = [sample.completion_tokens for sample in samples if sample.finish_reason == "length"]
    names = dict.fromkeys(sample.model for sample in samples)
    answers = {name: [sample for sample in samples if sample.model == name] for name in names}
    counts = {len(rows) for rows in answers.values()}
    if not cut or len(set(cut)) > 1 or len(counts) > 1:
        raise DataError(
            "These answers are not of one run with one limit.",
            why=f"Cut after {sorted(set(cut))} tokens; {sorted(counts)} answers a checkpoint.",
            mend="Name the samples.jsonl of one evaluation.",
        )
    return Endings(
        prompts=counts.pop(),
        limit=cut[0],
        ended={
            name: sorted(row.completion_tokens for row in rows if row.finish_reason == "stop")
            for name, rows in answers.items()
        },
    )


def draw(found: Endings, folder: Path) -> None:
    """The shares at every limit, as PNG and SVG."""
    from runs import drawing

    limits = range(found.limit + 1)

    def plot(axes: Any) -> None:
        for colour, name in zip(cycle(SERIES), found.ended, strict=False):
            shares = [100 * found.cut(name, limit) for limit in limits]
            axes.step(limits, shares, where="post", color=colour, label=drawing.literal(name))
        axes.set(xlabel="limit, tokens", ylabel="answers cut, %", xlim=(0, found.limit), ylim=(0, 100))
        axes.legend(loc="upper right", frameon=False)

    below = f"{found.prompts} prompts, greedy answers of at most {found.limit} tokens."
    folder.mkdir(parents=True, exist_ok=True)
    drawing.save(NAME, "What a limit cuts", below, 3.6, plot, folder, line=110)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    options = parser.parse_args()
    found = endings(read_jsonl(options.samples, Sample))
    draw(found, options.output)
    write_text(options.output / f"{NAME}.json", found.model_dump_json(indent=1) + "\n")
    for name in found.ended:
        shares = (f"{found.cut(name, limit):.0%} at {limit}" for limit in LIMITS if limit <= found.limit)
        print(f"{name}: {', '.join(shares)}")


if __name__ == "__main__":
    main()
