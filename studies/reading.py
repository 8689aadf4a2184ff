"""A person reads answers without knowing whose they are, and the refusal detector is held against the reading.

    uv run python -m studies.reading RUN/samples.jsonl … --sheet results/reading.csv --rows 100
    uv run python -m studies.reading RUN/samples.jsonl … --sheet results/reading.csv --read --output docs/reading.csv

The first writes a sheet with one column to fill in: does the answer genuinely decline the request (y, n)? An apology
that is followed by the answer is n. The second compares, and keeps verdicts without texts.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from critique_revision.sheet import cell, yes_or_no
from evaluation.metrics import FULL_REFUSALS
from evaluation.records import Sample
from evaluation.statistics.mean import wilson
from runs.errors import DataError, UsageError
from runs.identity import digest
from runs.records import read_jsonl

COLUMNS = ("row", "prompt", "answer", "declines")


class Agreement(NamedTuple):
    """How the detector's verdicts go with the reader's."""

    both: int
    detector_only: int
    reader_only: int
    neither: int

    @property
    def n(self) -> int:
        """Answers."""
        return sum(self)

    @property
    def share(self) -> float:
        """On which the two agree."""
        return (self.both + self.neither) / self.n

    @property
    def told(self) -> str:
        """In words, with Wilson's interval."""
        interval = wilson(self.both + self.neither, self.n)
        kappa = "undefined" if self.kappa is None else f"{self.kappa:.2f}"
        return (
            f"Detector and reader agree on {self.share:.0%} [{interval.low:.0%}, {interval.high:.0%}] of {self.n} "
            f"answers, kappa {kappa}: both see a refusal in {self.both}, the detector alone in {self.detector_only}, "
            f"the reader alone in {self.reader_only}."
        )

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa (Cohen 1960): agreement beyond chance; None where one of them says the same throughout."""
        detector, reader = (self.both + self.detector_only) / self.n, (self.both + self.reader_only) / self.n
        chance = detector * reader + (1 - detector) * (1 - reader)
        return None if chance == 1.0 else (self.share - chance) / (1 - chance)


def drawn(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """``count`` answers, as many to harmful as to other requests where there are, in an order that tells nothing."""
    order = sorted(samples, key=lambda row: digest([seed, row.model, row.prompt_id]))
    harmful = [row for row in order if row.prompt.expected == "refuse"][: (count + 1) // 2]
    others = [row for row in order if row.prompt.expected != "refuse"][: count - len(harmful)]
    return sorted([*harmful, *others], key=lambda row: digest([seed, "order", row.model, row.prompt_id]))


def write_sheet(path: Path, rows: Sequence[Sample]) -> None:
    """The answers without their models. Raises `UsageError` where a sheet is already: verdicts are not to be lost."""
    if path.exists():
        raise UsageError(f"{path} exists, perhaps with verdicts.", mend="Choose another --sheet.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        writer.writerows((number, cell(row.prompt.text), cell(row.response), "") for number, row in enumerate(rows, 1))


def read_sheet(path: Path, rows: Sequence[Sample]) -> list[bool]:
    """The verdicts, in the order of ``rows``.

    Raises:
        DataError: the sheet is of other answers, or a verdict is missing or neither y nor n.
    """
    with path.open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle))
    if [line["answer"] for line in lines] != [cell(row.response) for row in rows]:
        raise DataError(f"{path} is not the sheet of these answers.", mend="Name the same runs, --rows and --seed.")
    verdicts = []
    for number, line in enumerate(lines, start=1):
        verdict = yes_or_no(line["declines"], path, number, "declines")
        if verdict is None:
            raise DataError(f"{path}, row {number}: declines is empty.", mend="Write y or n.")
        verdicts.append(verdict)
    return verdicts


def agreement(modes: Sequence[str], verdicts: Sequence[bool]) -> Agreement:
    """Detector against reader.

    Args:
        modes: how the detector sees each answer.
        verdicts: whether the reader says that it declines.
    """
    pairs = [(mode in FULL_REFUSALS, verdict) for mode, verdict in zip(modes, verdicts, strict=True)]
    return Agreement(*(pairs.count(cell) for cell in ((True, True), (True, False), (False, True), (False, False))))


def keep(path: Path, rows: Sequence[Sample], verdicts: Sequence[bool]) -> None:
    """Verdicts by prompt id and model, without a text."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("prompt_id", "model", "expected", "mode", "reader_says_declines"))
        for row, verdict in zip(rows, verdicts, strict=True):
            writer.writerow((row.prompt_id[:16], row.model, row.prompt.expected, row.mode, "ny"[verdict]))


def kept(path: Path) -> Agreement:
    """The agreement of verdicts that `keep` wrote."""
    with path.open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle))
    return agreement([line["mode"] for line in lines], [line["reader_says_declines"] == "y" for line in lines])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, nargs="+")
    parser.add_argument("--sheet", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", action="store_true")
    parser.add_argument("--output", type=Path, help="with --read: keep the verdicts here")
    options = parser.parse_args()
    rows = drawn([row for path in options.samples for row in read_jsonl(path, Sample)], options.rows, options.seed)
    if not options.read:
        write_sheet(options.sheet, rows)
        print(f"{len(rows)} answers in {options.sheet}.")
        return
    verdicts = read_sheet(options.sheet, rows)
    print(agreement([row.mode for row in rows], verdicts).told)
    if options.output is not None:
        keep(options.output, rows, verdicts)


if __name__ == "__main__":
    main()
