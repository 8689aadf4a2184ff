r"""Anthropic's hh-rlhf transcripts (``\n\nHuman: …\n\nAssistant: …``) as messages, every turn kept.

Dropping later turns, or folding them into the first answer, is how a predecessor taught its model to
write both sides of the dialogue: 110 of its 110 answers held role markers.
"""

from __future__ import annotations

import re
from itertools import pairwise

from inference.records import Message, Messages, Role

_MARKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
_STRAY = re.compile(r"(?:^|\n)\s*(?:Human|Assistant)\s*:", re.IGNORECASE)


class RejectedRow(ValueError):
    """A row that cannot be used; ``reason`` is the name it is counted under."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def parse_transcript(text: str) -> Messages:
    """Read a transcript.

    Returns:
        Alternating user and assistant messages, beginning with the user, stripped of surrounding space.

    Raises:
        RejectedRow: ``does_not_start_with_human``, ``roles_do_not_alternate``, ``empty_turn``,
            ``role_marker_in_text`` or ``no_assistant_turn``.
    """
    marks = list(_MARKER.finditer(text))
    if not marks or text[: marks[0].start()].strip() or marks[0].group(1) != "Human":
        raise RejectedRow("does_not_start_with_human")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    messages = tuple(
        Message(role=_ROLES[mark.group(1)], content=text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    )
    if any(earlier.role == later.role for earlier, later in pairwise(messages)):
        raise RejectedRow("roles_do_not_alternate")
    if any(not message.content for message in messages):
        raise RejectedRow("empty_turn")
    if any(_STRAY.search(message.content) for message in messages):
        raise RejectedRow("role_marker_in_text")
    if len(messages) < 2:
        raise RejectedRow("no_assistant_turn")
    return messages
