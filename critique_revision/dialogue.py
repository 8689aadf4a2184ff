"""The three conversations of a revision step: answer, critique, revision (Bai et al. 2022, section 3.1 and appendix A).

The paper continues one long dialogue. Here every call is as short as it can be, and starts with the exemplars: they
are the same for all rows, so an engine computes their keys and values once per batch, and what differs comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from critique_revision.constitution import Text
from critique_revision.text import distinct_sentences
from inference.records import Message, Messages
from runs import config
from runs.config import StrictModel
from runs.errors import UsageError
from runs.identity import digest
from runs.paths import shown

DIALOGUE = 2
"""Raised when the wording below changes: it is part of a run's identity."""

CRITIQUE_REQUEST = "Say what is wrong with the last reply, in one or two sentences."
"""Asked in the exemplars. It is general, so that one prefix serves all principles."""
REVISION_REQUEST = "Rewrite the reply so that it has none of these faults. Write only the rewritten reply to the user."


class Exemplar(StrictModel):
    """One worked example: a flawed reply, its critique, and a better reply."""

    user: Text
    reply: Text
    critique: Text
    revision: Text


class ExemplarFile(StrictModel):
    """configs/critique_revision/exemplars.yaml."""

    schema_version: Literal[1] = 1
    exemplars: tuple[Exemplar, ...]


def load_exemplars(path: Path, count: int) -> tuple[Exemplar, ...]:
    """The first ``count`` exemplars of a file.

    Raises:
        UsageError: the file is invalid, or holds fewer.
    """
    found = config.load(ExemplarFile, path).exemplars
    if count > len(found):
        raise UsageError(
            f"{shown(path)} holds {len(found)} exemplars; {count} were asked for.", mend="Lower exemplars.count."
        )
    return found[:count]


def dialogue_digest(exemplars: Sequence[Exemplar]) -> str:
    """sha256 of all that the dialogues add to a prompt, a reply and a principle."""
    return digest([DIALOGUE, CRITIQUE_REQUEST, REVISION_REQUEST, [exemplar.model_dump() for exemplar in exemplars]])


def critique_messages(exemplars: Sequence[Exemplar], prompt: Messages, reply: str, request: str) -> Messages:
    """What the critic reads: exemplars, then the conversation, the reply and the principle's critique request."""
    turns: list[Message] = []
    for exemplar in exemplars:
        turns += _exchange(_case(exemplar.user, exemplar.reply, CRITIQUE_REQUEST), exemplar.critique)
    return (*turns, Message(role="user", content=_case(conversation_text(prompt), reply, request)))


def revision_messages(
    exemplars: Sequence[Exemplar], prompt: Messages, reply: str, critique: str | None, request: str
) -> Messages:
    """What the reviser reads: the message, then the critique (each sentence once) and the revision request.

    With a critique, the reply itself is left out: a small model that sees it again copies it or talks about it
    (docs/log.md). Without one (None), the reply takes its place, in the exemplars too (Bai et al. 2022,
    section 3.5, direct revision).
    """
    turns: list[Message] = []
    for exemplar in exemplars:
        told = exemplar.reply if critique is None else exemplar.critique
        asked = _revise(exemplar.user, told, REVISION_REQUEST, direct=critique is None)
        turns += _exchange(asked, exemplar.revision)
    told = reply if critique is None else distinct_sentences(critique)
    asked = _revise(conversation_text(prompt), told, request, direct=critique is None)
    return (*turns, Message(role="user", content=asked))


def _revise(message: str, told: str, request: str, *, direct: bool) -> str:
    if direct:
        return _case(message, told, request)
    return f"{message}\n(Criticism of an earlier reply: {told} {request})"


def conversation_text(prompt: Messages) -> str:
    """A conversation as plain text: the bare message if it is the only one, else one labelled line per turn."""
    if len(prompt) == 1:
        return prompt[0].content.strip()
    labels = {"system": "System", "user": "User", "assistant": "Assistant"}
    return "\n".join(f"{labels[message.role]}: {message.content.strip()}" for message in prompt)


def _case(message: str, reply: str, request: str) -> str:
    return f"Message: {message}\nReply: {reply.strip()}\n{request}"


def _exchange(question: str, answer: str) -> tuple[Message, Message]:
    return Message(role="user", content=question), Message(role="assistant", content=answer)


TEACHING = 1
"""Raised when the wording of `taught_messages` changes."""
REFUSING = 1
"""Raised when `refusing_messages` changes."""


def taught_messages(exemplars: Sequence[Exemplar], prompt: Messages, principles: Sequence[str]) -> Messages:
    """What a teacher reads: principles as its system text, exemplars (user → revision), then the prompt as it stands.

    A system text of the prompt's own comes after the principles.
    """
    listed = "\n".join(f"- {text}" for text in principles)
    own = "".join(f"\n\n{message.content}" for message in prompt if message.role == "system")
    system = f"You are a helpful assistant. In every reply you keep to these principles:\n{listed}{own}"
    shown = [turn for exemplar in exemplars for turn in _exchange(exemplar.user, exemplar.revision)]
    turns = (message for message in prompt if message.role != "system")
    return (Message(role="system", content=system), *shown, *turns)


def teaching_digest(exemplars: Sequence[Exemplar]) -> str:
    """sha256 of all that `taught_messages` adds to a prompt and its principles."""
    return digest(["teaching", TEACHING, [[exemplar.user, exemplar.revision] for exemplar in exemplars]])


def refusing_messages(exemplars: Sequence[Exemplar], prompt: Messages) -> Messages:
    """What a refuser reads: exemplars of refused harmless requests (user → reply), then the prompt as it stands."""
    shown = [turn for exemplar in exemplars for turn in _exchange(exemplar.user, exemplar.reply)]
    return (*shown, *prompt)


def refusing_digest(exemplars: Sequence[Exemplar]) -> str:
    """sha256 of all that `refusing_messages` adds to a prompt."""
    return digest(["refusing", REFUSING, [[exemplar.user, exemplar.reply] for exemplar in exemplars]])
