"""Files of answers that were made elsewhere: JSON lines or CSV with ``prompt``, ``response`` and perhaps ``model``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from inference.records import FinishReason, Message, Messages, Sampling, prompt_id
from runs.config import StrictModel
from runs.errors import UsageError

ONLY_MODEL = "model"
"""What the answers' model is called where the file does not say."""
_SETTINGS = tuple(name for name in Sampling.model_fields if name != "seed")


class ResponseRow(StrictModel):
    """A line of a responses file."""

    prompt: str | None = None
    """One user turn; or give `messages`."""
    messages: Messages | None = None
    response: str | None
    """The answer; null (in CSV: an empty cell) where the model gave none, which counts as missing."""
    model: str = ONLY_MODEL
    sample: int = 0
    finish_reason: FinishReason = "stop"
    """``length`` where the answer was cut: evaluators then know that the end is missing."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seed: int = 0
    category: str | None = None
    expected: str | None = None
    """For prompts that the prompts file does not know."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """How it was generated: temperature, top_p, max_new_tokens, repetition_penalty, system …"""

    @property
    def asked(self) -> Messages:
        """The conversation that was answered."""
        return self.messages or (Message(role="user", content=self.prompt or ""),)


def read_responses(path: Path) -> list[ResponseRow]:
    """Read JSON lines, or CSV with a head (by the suffix ``.csv``).

    Columns or keys: ``prompt`` (or ``messages``), ``response``, and optionally those of `ResponseRow`; in CSV the
    settings are columns of their own (``temperature`` …).

    Raises:
        UsageError: the file is missing, a row is faulty, or two rows answer one prompt; file and line are named.
    """
    if not path.is_file():
        raise UsageError(f"There is no responses file {path}.")
    rows: list[ResponseRow] = []
    first_line: dict[tuple[str, str, int], int] = {}
    try:
        for number, fields in _csv_rows(path) if path.suffix == ".csv" else _json_rows(path):
            row = _parse(fields, f"{path}, line {number}")
            key = (row.model, prompt_id(row.asked), row.sample)
            earlier = first_line.setdefault(key, number)
            if earlier != number:
                raise UsageError(
                    f"{path}, line {number}: {row.model} answers the same prompt as on line {earlier}.",
                    mend="Number several answers to one prompt with the field 'sample': 0, 1, 2 …",
                )
            rows.append(row)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not valid UTF-8.", why=f"Byte {error.start}.") from error
    if not rows:
        raise UsageError(f"{path} holds no responses.", mend='One object a line: {"prompt": "…", "response": "…"}')
    return rows


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except json.JSONDecodeError as error:
                raise UsageError(f"{path}, line {number}: not valid JSON.", why=error.msg) from error
            if not isinstance(fields, dict):
                raise UsageError(f"{path}, line {number}: expected an object, found {type(fields).__name__}.")
            yield number, fields


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(2**24)
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle)
        for fields in reader:
            if None in fields:
                raise UsageError(f"{path}, line {reader.line_num}: more cells than columns.")
            # A cell cannot tell an empty answer from none: it counts as none, and is listed as missing.
            given: dict[str, Any] = {key: value for key, value in fields.items() if value}
            for key in _SETTINGS:
                if key in given:
                    given[key] = _number(given[key])
            yield reader.line_num, {"response": None, **given}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _parse(fields: dict[str, Any], where: str) -> ResponseRow:
    settings = {key: fields.pop(key) for key in _SETTINGS if key in fields}
    if settings and isinstance(fields.setdefault("settings", {}), dict):
        fields["settings"] |= settings
    try:
        row = ResponseRow.model_validate(fields)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UsageError(f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}.") from error
    if (row.prompt is None) == (row.messages is None):
        raise UsageError(f"{where}: give either 'prompt' or 'messages'.")
    if not row.asked[-1].content.strip():
        raise UsageError(f"{where}: the prompt is empty.")
    return row
