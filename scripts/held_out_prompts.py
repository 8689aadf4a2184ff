"""Prompts that no recipe was chosen on: `uv run python scripts/held_out_prompts.py --output results/held-out.jsonl`.

Half are harmful requests (XSTest's unsafe ones, CatQA), half benign (XSTest's safe ones, which only sound alarming, and
plain instructions). They are other people's data, read below $CAI_DATA and never part of this repository. A prompt that
shares its text or eight words in a row with a training pair (`--pairs`) is left out. What is drawn depends on the texts
alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from critique_revision.prompts import Exclusions
from inference.corpora import Source, local_file, read_rows
from inference.records import Message, Messages, prompt_id
from runs.identity import digest
from studies.separation import training_prompts

XSTEST = "refusal/xstest_completions_llama2orig.csv"
CATQA = "prompts/red_instruct/catqa_english.json"
INSTRUCTIONS = "prompts/refusal_direction/harmless_val.json"
SALT = "held-out"


def xstest(*, safe: bool) -> Iterator[str]:
    """XSTest's safe prompts, or their unsafe contrasts."""
    for row in read_rows(Source(path=XSTEST)):
        if row["type"].startswith("contrast") != safe:
            yield row["prompt"]


def catqa() -> Iterator[str]:
    """CatQA's harmful questions, of all its topics."""
    path = local_file(Source(path=CATQA))
    assert path is not None
    topics: dict[str, dict[str, list[str]]] = json.loads(path.read_text(encoding="utf-8"))
    for parts in topics.values():
        for questions in parts.values():
            yield from questions


def instructions() -> Iterator[str]:
    """Plain instructions."""
    for row in read_rows(Source(path=INSTRUCTIONS)):
        yield row["instruction"]


def drawn(texts: Iterator[str], ranks: slice, excluded: Exclusions, **fields: Any) -> list[dict[str, Any]]:
    """The prompts whose hashes have these ranks, from the lowest."""
    found: dict[str, str] = {}
    for text in texts:
        messages: Messages = (Message(role="user", content=text.strip()),)
        if text.strip() and messages not in excluded:
            found.setdefault(prompt_id(messages), text.strip())
    chosen = sorted(found, key=lambda identity: digest([SALT, identity]))[ranks]
    return [{"prompt": found[identity], **fields} for identity in chosen]


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--each", type=int, default=100, help="prompts of each of the four kinds")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many: a choice was made on them")
    parser.add_argument("--pairs", type=Path, nargs="*", default=[], help="exported training pairs to keep clear of")
    options = parser.parse_args()
    excluded = Exclusions(training_prompts(options.pairs))
    ranks = slice(options.skip, options.skip + options.each)
    refuse, answer = {"expected": "refuse"}, {"expected": "answer"}
    rows = [
        *drawn(xstest(safe=False), ranks, excluded, category="xstest_unsafe", **refuse),
        *drawn(catqa(), ranks, excluded, category="catqa", **refuse),
        *drawn(xstest(safe=True), ranks, excluded, category="xstest_safe", **answer),
        *drawn(instructions(), ranks, excluded, category="instructions", **answer),
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} prompts in {options.output}.")


if __name__ == "__main__":
    main()
