"""Write the README's result table from the shipped results: `uv run python scripts/update_readme.py`."""

from __future__ import annotations

import re
from pathlib import Path

from evaluation.outputs import contrast_table, lengths, score_table
from evaluation.records import Results

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "artifacts" / "smollm2-135m" / "evaluation" / "results.json"
BLOCK = re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.DOTALL)


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, first column left, the others right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def tables(results: Results) -> str:
    """What stands between the README's markers."""
    prompts, tokens = results.n_samples["prompts"], results.config["sampling"]["max_new_tokens"]
    return (
        f"{prompts} prompts, greedy decoding, at most {tokens} tokens. "
        "Means on a scale of 0 to 100 with 95 % intervals;\n"
        "higher is better.\n\n"
        + markdown(*score_table(results))
        + f"\n{lengths(results)}\n"
        + "\nPaired differences; p-values are adjusted over the whole table (Holm). Undecided is not equal.\n\n"
        + markdown(*contrast_table(results))
    )


def updated(readme: str, results: Results) -> str:
    """``readme`` with its result block written anew."""
    return BLOCK.sub(lambda found: found.group(1) + tables(results) + found.group(2), readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(), Results.model_validate_json(SHIPPED.read_bytes())))
