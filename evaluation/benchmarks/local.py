"""Local files as lm-eval data sets: what ``custom_dataset: !function evaluation.benchmarks.local.…`` calls.

Files are looked for under ``$CAI_DATA``, so that the YAML files hold no path of anyone's machine.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runs.errors import UserError
from runs.paths import data_root

if TYPE_CHECKING:
    from datasets import Dataset


def rows(file: str, labels: str | None = None, **_: Any) -> dict[str, Dataset]:
    """A JSON-lines file as the split ``validation``.

    Args:
        file: path below ``$CAI_DATA``.
        labels: path of a text file with one whole number a line, which becomes the column ``label``.
        _: what else lm-eval passes from the task's metadata.

    Raises:
        UserError: ``$CAI_DATA`` is not set, a file is missing, or the labels are not as many as the rows.
    """
    from datasets import Dataset

    found = [json.loads(line) for line in _lines(file)]
    if labels is not None:
        numbers = [int(line) for line in _lines(labels)]
        if len(numbers) != len(found):
            raise UserError(f"{labels} has {len(numbers)} labels for {len(found)} rows of {file}.")
        found = [{**row, "label": number} for row, number in zip(found, numbers, strict=True)]
    return {"validation": Dataset.from_list(found)}


def _lines(file: str) -> list[str]:
    root = data_root()
    if root is None:
        raise UserError(
            f"The benchmark file {file} is looked for under $CAI_DATA, which is not set.",
            mend="Set CAI_DATA to the folder that holds it, or leave --benchmarks-path out to take lm-eval's own data.",
        )
    path = root / file
    if not path.is_file():
        raise UserError(f"There is no benchmark file {path}.", mend="See docs/evaluation.md for what it holds.")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
