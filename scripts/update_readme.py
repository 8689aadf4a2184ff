"""Write the README's result table from the shipped results: `uv run python scripts/update_readme.py`."""

from __future__ import annotations

import re
from pathlib import Path

from evaluation.outputs import Table, contrast_tables, lengths, score_table
from evaluation.records import Results

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "artifacts" / "smollm2-135m" / "evaluation" / "results.json"
BLOCK = re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.DOTALL)


def markdown(table: Table) -> str:
    """A Markdown table, first column left, the others right."""
    lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def tables(results: Results) -> str:
    """What stands between the README's markers."""
    prompts, tokens = results.n_samples["prompts"], results.config["sampling"]["max_new_tokens"]
    parts = [
        f"{prompts} prompts, greedy decoding, at most {tokens} tokens.\n"
        "Means on a scale of 0 to 100 with 95 % intervals; higher is better.\n",
        markdown(score_table(results)),
        f"{lengths(results)}\n",
        "Paired differences in points; p-values are adjusted over all of them (Holm). Undecided is not equal.\n",
        *(f"**{table.title}**\n\n{markdown(table)}" for table in contrast_tables(results)),
    ]
    return "\n".join(parts)


def updated(readme: str, results: Results) -> str:
    """``readme`` with its result block written anew."""
    return BLOCK.sub(lambda found: found.group(1) + tables(results) + found.group(2), readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(), Results.model_validate_json(SHIPPED.read_bytes())))
