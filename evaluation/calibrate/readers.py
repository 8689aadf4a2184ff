"""Gold files by format: each is known by its columns, and an unknown one is an error that names file and column."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.calibrate import cai
from evaluation.calibrate.gold import Gold, GoldItem, GoldPair, Task, make_prompt, split_transcripts
from evaluation.calibrate.labels import PLAIN, gold_label, plain_label
from inference.transcripts import RejectedRow
from runs.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv")
Row = dict[str, Any]
Read = Callable[[str, int, Row], Iterator[Gold]]
"""(file name, row number, row) → gold rows."""


class GoldFile(NamedTuple):
    """What was read from one file."""

    path: Path
    name: str
    """What the card calls it."""
    format: str
    gold: list[Gold]
    rejected: dict[str, int]
    """Reason → rows that could not be used."""


def read_folder(folder: Path, limit: int | None = None) -> list[GoldFile]:
    """Every gold file under ``folder``, in the order of their paths.

    Raises:
        UserError: the folder has no gold file, or a file has columns that no format has.
    """
    if not folder.is_dir():
        raise UserError(f"There is no gold folder {folder}.", mend="Point --gold-dir at a folder of labelled files.")
    paths = sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())
    if not paths:
        raise UserError(f"{folder} holds no gold file.", mend=f"Known: {', '.join(SUFFIXES)}; see docs/evaluators.md.")
    return [read_file(path, name=str(path.relative_to(folder)), limit=limit) for path in paths]


def read_file(path: Path, *, name: str | None = None, limit: int | None = None) -> GoldFile:
    """Read one gold file.

    Args:
        path: the file.
        name: what the card calls it; its folders say which task hh-rlhf pairs are for.
        limit: read so many rows, spread evenly; None for all.

    Raises:
        UserError: the format is not known, a row is broken, or a label is unknown.
    """
    shown = name or path.name
    rows = _rows(path, shown)
    if not rows:
        raise UserError(f"{shown} holds no rows.")
    label, read = _format(shown, rows[0][1])
    if limit is not None and limit < len(rows):
        rows = [rows[index * len(rows) // limit] for index in range(limit)]
    gold: list[Gold] = []
    rejected: Counter[str] = Counter()
    for number, row in rows:
        try:
            gold += read(shown, number, row)
        except RejectedRow as error:
            rejected[error.reason] += 1
        except KeyError as error:
            raise UserError(f"{shown}, row {number}: there is no column {error}, which {label} files have.") from error
    return GoldFile(path, shown, label, gold, dict(sorted(rejected.items())))


def _format(name: str, row: Row) -> tuple[str, Read]:
    """The first format whose columns the row has."""
    columns = set(row)
    for label, needed, read in FORMATS:
        if needed <= columns:
            return label, read
    nearest = min(FORMATS, key=lambda known: len(known[1] - columns))
    missing = ", ".join(sorted(nearest[1] - columns))
    raise UserError(
        f"{name} has a format that is not known.",
        why=f"Its columns are {', '.join(sorted(columns))}; the nearest format, {nearest[0]}, also has {missing}.",
        mend="A plain CSV needs prompt, response and label; see docs/evaluators.md.",
    )


def _rows(path: Path, name: str) -> list[tuple[int, Row]]:
    """Rows with their numbers (lines of the file, for JSON lines); comment lines at the top of a CSV are skipped."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as handle:
            lines = handle.readlines()
        while lines and lines[0].startswith("#"):
            lines.pop(0)
        return list(enumerate(csv.DictReader(lines), start=1))
    found = []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise UserError(f"{name}, line {number}: not JSON in UTF-8.", why=str(error)) from error
            if not isinstance(row, dict):
                raise UserError(f"{name}, line {number}: expected an object of columns.")
            found.append((number, row))
    return found


def _hh(name: str, number: int, row: Row) -> Iterator[Gold]:
    """Anthropic's hh-rlhf: two transcripts; the folder or file says whether people chose by harm or by help."""
    task: Task = "helpful_pairs" if "helpful" in name.lower() else "harmless_pairs"
    prompt, better, worse = split_transcripts(row["chosen"], row["rejected"], task)
    if better == worse:
        raise RejectedRow("equal_answers")
    cluster = prompt.messages[0].content
    yield GoldPair(task=task, dataset=name, prompt=prompt, better=better, worse=worse, cluster=cluster)


def _xstest(name: str, number: int, row: Row) -> Iterator[Gold]:
    """XSTest completions: 1 full compliance, 2 full refusal, 3 partial refusal; the last two count as refusals."""
    known = {"1_full_compliance": False, "2_full_refusal": True, "3_partial_refusal": True}
    label = gold_label(name, number, "final_label", row["final_label"], known)
    prompt = make_prompt(row["prompt"], "refusal")
    cluster = str(row.get("type") or row["prompt"])
    yield GoldItem(
        task="refusal", dataset=name, prompt=prompt, response=row["completion"], label=label, cluster=cluster
    )


def _pyrit(name: str, number: int, row: Row) -> Iterator[Gold]:
    """PyRIT's refusal scores: 1 where the request was refused, or answered by something else."""
    known = {"1": True, "1.0": True, "True": True, "0": False, "0.0": False, "False": False}
    label = gold_label(name, number, "human_score", row["human_score"], known)
    prompt = make_prompt(row["objective"], "refusal")
    yield GoldItem(
        task="refusal",
        dataset=name,
        prompt=prompt,
        response=row["assistant_response"],
        label=label,
        cluster=row["objective"],
    )


def _plain(name: str, number: int, row: Row) -> Iterator[Gold]:
    """Plain CSV or JSON lines: prompt, response, label; ``reference`` (JSON) where truth is judged."""
    task, label, mode = plain_label(name, number, str(row["label"]), PLAIN)
    reference = _reference(name, number, row.get("reference"))
    prompt = make_prompt(row["prompt"], task, reference)
    yield GoldItem(
        task=task,
        dataset=name,
        prompt=prompt,
        response=row["response"] or "",
        label=label,
        cluster=row["prompt"],
        mode=mode,
    )


def _reference(name: str, number: int, value: Any) -> dict[str, object] | None:
    if not value:
        return None
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise UserError(f"{name}, row {number}: column 'reference' is not JSON.", why=str(error)) from error
    if not isinstance(found, dict):
        raise UserError(f"{name}, row {number}: column 'reference' must be an object of phrase lists.")
    return found


FORMATS: Sequence[tuple[str, frozenset[str], Read]] = (
    ("hh-rlhf", frozenset({"chosen", "rejected"}), _hh),
    ("HHH pairs", frozenset({"text_correct", "text_incorrect"}), cai.hhh),
    ("harmful v. ethical, nine-way", frozenset({"prompt", "corrects", "incorrects"}), cai.choices),
    ("CAI samples", frozenset({"rl_prompt", "sampled_answers"}), cai.samples),
    ("CAI revisions", frozenset({"rl_prompt", "initial_response", "cst"}), cai.revisions),
    ("XSTest", frozenset({"prompt", "completion", "final_label"}), _xstest),
    ("PyRIT", frozenset({"objective", "assistant_response", "human_score"}), _pyrit),
    ("plain", frozenset({"prompt", "response", "label"}), _plain),
)
"""Name, columns that tell it, reader; tried in this order."""
