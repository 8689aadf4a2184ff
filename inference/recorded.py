r"""Answers that are on file: a stronger model's, which then teach without a network.

Two layouts are read. ``columns``: one row per answer, the prompt (a string, or messages) and the response in columns.
``constitution_pair``: the files of answers under opposite constitutions, two rows ``{prompt, response}`` for each
prompt, where a prompt reads ``System: …\n\nAssistant Constitution:\n1. …\n\nHuman: …\n\nAssistant:``; the answer under
the good constitution is taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from inference.corpora import Source, read_rows, source_digest
from inference.records import Message, Messages, prompt_id
from inference.transcripts import RejectedRow, parse_transcript
from runs.config import StrictModel
from runs.errors import UserError, unknown_name

VERSION = "1"
"""Raised when the reading of a file changes which answers it gives."""

Layout = Literal["columns", "constitution_pair"]

VALUE = "value"
"""The column that holds an entry of a JSON object (`inference.corpora.read_rows`)."""

_BAD = re.compile(r"uncensored|vague and ambiguous")
"""What the bad constitutions of the pairs of constitutions ask for."""


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


class Recorded(StrictModel):
    """Answers of one model on file; a role plays it by the section's name."""

    source: Annotated[tuple[Source, ...], BeforeValidator(_several), Field(min_length=1)]
    """The file or dataset, or several: of two answers to one prompt, the first counts."""
    kind: Layout = "columns"
    """``columns``: a prompt and a response in each row. ``constitution_pair``: two rows for each prompt."""
    prompt: str = "prompt"
    """``columns``: the column of the prompt, a string or a list of messages."""
    response: str = "response"
    """``columns``: the column of the answer."""
    model: str
    """Who wrote the answers, for records and cards."""
    licence: str = "unknown"
    """Of the answers, for the dataset card."""

    @property
    def identity(self) -> dict[str, str]:
        """Whose answers, read how, and the digest of every file.

        Raises:
            UserError: a file is missing.
        """
        files = {f"file-{number}": source_digest(source) for number, source in enumerate(self.source, start=1)}
        columns = f"{self.prompt}, {self.response}" if self.kind == "columns" else VALUE
        return {"engine": f"recorded-{VERSION}", "model": self.model, "kind": self.kind, "columns": columns, **files}


@dataclass
class Answers:
    """What was read from a `Recorded`."""

    texts: dict[str, str] = field(default_factory=dict)
    """Prompt id → answer."""
    counts: Counter[str] = field(default_factory=Counter)
    """``rows``, and the rows that were left out, by reason."""


def read_answers(recorded: Recorded) -> Answers:
    """Every answer on file, by prompt.

    Raises:
        UserError: a file is missing or unreadable, has no such column, or holds no answer.
    """
    found = Answers()
    for source in recorded.source:
        for row in read_rows(source):
            found.counts["rows"] += 1
            try:
                messages, response = _exchange(recorded, source, row)
                if not response.strip():
                    raise RejectedRow("empty")
                identity = prompt_id(messages)
                if identity in found.texts:
                    raise RejectedRow("duplicate")
            except RejectedRow as rejected:
                found.counts[rejected.reason] += 1
                continue
            found.texts[identity] = response.strip()
    if not found.texts:
        raise UserError(
            f"No answer of {recorded.model} was found in {', '.join(source.name for source in recorded.source)}.",
            why=f"Rows by what became of them: {dict(found.counts)}.",
            mend="Check 'kind', 'prompt' and 'response' of the section under 'recorded'.",
        )
    return found


def _exchange(recorded: Recorded, source: Source, row: dict[str, Any]) -> tuple[Messages, str]:
    if recorded.kind == "constitution_pair":
        return constitution_exchange(row.get(VALUE))
    for column in (recorded.prompt, recorded.response):
        if column not in row:
            raise unknown_name(f"column of {source.name}", column, [str(name) for name in row])
    response = row[recorded.response]
    if not isinstance(response, str):
        raise RejectedRow("no_text")
    return as_messages(row[recorded.prompt]), response


def as_messages(prompt: object) -> Messages:
    """A prompt column's value, a string or messages that end with the user's.

    Raises:
        RejectedRow: ``empty`` or ``not_messages``.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise RejectedRow("empty")
        return (Message(role="user", content=prompt.strip()),)
    try:
        messages = tuple(Message.model_validate(turn) for turn in _turns(prompt))
    except ValidationError as error:
        raise RejectedRow("not_messages") from error
    if not messages or messages[-1].role != "user":
        raise RejectedRow("not_messages")
    if not all(message.content.strip() for message in messages):
        raise RejectedRow("empty")
    return messages


def _turns(prompt: object) -> Iterator[object]:
    if not hasattr(prompt, "__iter__"):  # parquet gives arrays, JSON lists
        raise RejectedRow("not_messages")
    yield from prompt


def constitution_exchange(rows: object) -> tuple[Messages, str]:
    """The human turns of a pair of constitutions, and the answer under the good one.

    Raises:
        RejectedRow: ``not_one_of_each``: it is not one answer under each constitution; or as `parse_transcript`.
    """
    good = [row for row in rows if _is_good(row)] if isinstance(rows, list) and len(rows) == 2 else []
    if len(good) != 1:
        raise RejectedRow("not_one_of_each")
    _, marker, dialogue = good[0]["prompt"].partition("\n\nHuman:")
    turns = parse_transcript(f"{marker}{dialogue.rstrip().removesuffix('Assistant:')}\n\nAssistant: .")
    return turns[:-1], good[0]["response"]


def _is_good(row: object) -> bool:
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("prompt", "response")):
        raise RejectedRow("not_one_of_each")
    return _BAD.search(row["prompt"].partition("\n\nHuman:")[0]) is None
