"""Prompt files: JSON lines, each checked, each fault named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inference.records import Message, Prompt
from runs.errors import UsageError

MAX_CHARACTERS = 32_000
"""Longest prompt that is read. A longer one is a mistake in the file far more often than a question."""


def load_prompts(path: Path) -> list[Prompt]:
    """Read a file of prompts.

    Each line is an object with ``prompt`` (a string) or ``messages`` (turns that end with the user's), and
    optionally ``category``, ``expected``, ``tags``, ``pair``, ``principle_ids``, ``reference``.

    Raises:
        UsageError: a missing file, or a line that is not UTF-8, not JSON, empty, too long, of unknown fields,
            or a repetition of an earlier prompt; file and line are named.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise UsageError(f"There is no prompts file {path}.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read.", why=str(error.strerror)) from error
    prompts: list[Prompt] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        prompt = _parse(line, f"{path}, line {number}", source=path.name)
        earlier = first_line.setdefault(prompt.id, number)
        if earlier != number:
            raise UsageError(
                f"{path}, line {number}: the same prompt as line {earlier}.",
                why="Upper case, white space and Unicode form do not tell prompts apart.",
                mend="Remove one of the two lines.",
            )
        prompts.append(prompt)
    if not prompts:
        raise UsageError(f"{path} holds no prompts.", mend='Write one object a line: {"prompt": "…"}')
    return prompts


def _parse(line: bytes, where: str, *, source: str) -> Prompt:
    row = _decode(line, where)
    text = row.pop("prompt", None)
    if (text is None) == ("messages" not in row):
        raise UsageError(f"{where}: give either 'prompt' or 'messages'.")
    if text is not None:
        if not isinstance(text, str):
            raise UsageError(f"{where}: 'prompt' must be a string.")
        row["messages"] = [Message(role="user", content=text)]
    try:
        prompt = Prompt.model_validate({**row, "source": source})
    except ValidationError as error:
        fault = error.errors()[0]
        dotted = ".".join(str(part) for part in fault["loc"]) or "the row"
        raise UsageError(f"{where}: {dotted}: {fault['msg']}.") from error
    if not all(message.content.strip() for message in prompt.messages):
        raise UsageError(f"{where}: the text is empty.")
    length = sum(len(message.content) for message in prompt.messages)
    if length > MAX_CHARACTERS:
        raise UsageError(f"{where}: the prompt has {length:,} characters; at most {MAX_CHARACTERS:,} are read.")
    return prompt


def _decode(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not valid UTF-8 (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not valid JSON.", why=f"{error.msg} at column {error.colno}.") from error
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected an object, found {type(row).__name__}.")
    return row
