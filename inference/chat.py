"""The one chat format: messages become text and token ids here, for generation and training alike.

The tokenizer's own template decides. Models without a system role (Gemma v1) get the system text folded
into the first user turn. There is at most one beginning-of-sequence token, and it is the first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from inference.records import Message, Messages
from runs.errors import UserError
from runs.identity import text_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "xyzzy"
"""A word that no template contains: it marks where content stands in a rendered conversation."""


def render(messages: Messages, tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool) -> str:
    """The conversation as the model sees it.

    Args:
        messages: turns; a leading system message is folded into the first user turn where the template has
            no system role.
        tokenizer: carries the chat template.
        add_generation_prompt: whether the opening of an assistant turn follows.

    Raises:
        UserError: the template refuses the conversation (roles that do not alternate, say).
    """
    if messages and messages[0].role == "system" and not _has_system_role(tokenizer):
        messages = fold_system(messages)
    return _apply(messages, tokenizer, add_generation_prompt)


def fold_system(messages: Messages) -> Messages:
    """Put the leading system text before the first user turn's own text, with an empty line between.

    Raises:
        UserError: no user turn follows the system text.
    """
    system, *rest = messages
    if not rest or rest[0].role != "user":
        raise UserError("A system text needs a user turn after it: this model has no system role.")
    first = Message(role="user", content=f"{system.content}\n\n{rest[0].content}")
    return (first, *rest[1:])


def encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of rendered text: the special tokens in it are read as such, and no second BOS is added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and _adds_bos(tokenizer) and ids[:1] != [bos]:
        ids = [bos, *ids]
    check_bos(ids, tokenizer)
    return ids


def check_bos(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a doubled BOS: it shifts the model off its training distribution and costs accuracy silently.

    Raises:
        UserError: the first two ids are both BOS.
    """
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        raise UserError(
            f"The prompt begins with two {tokenizer.bos_token} tokens.",
            why="The chat template writes one and the text or the tokenizer adds another.",
            mend="Remove the BOS token from the text; the template adds it.",
        )


def prompt_ids(messages: Messages, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a conversation that waits for the assistant's turn."""
    return encode(render(messages, tokenizer, add_generation_prompt=True), tokenizer)


def training_ids(messages: Messages, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids of a whole conversation and the mask of what to train on.

    Returns:
        ``(ids, mask)`` of equal length; ``mask`` is 1 on the tokens of every assistant turn and on the
        end-of-turn token that closes it, and 0 elsewhere.

    Raises:
        UserError: the template renders a conversation differently as it grows, so that turns cannot be found.
    """
    if messages and messages[0].role == "system" and not _has_system_role(tokenizer):
        messages = fold_system(messages)
    text = _apply(messages, tokenizer, False)
    spans = [_turn_span(messages, index, text, tokenizer) for index, m in enumerate(messages) if m.role == "assistant"]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"]
    mask = [0] * len(ids)
    stops = stop_ids(tokenizer)
    for start, end in spans:
        for position, (left, right) in enumerate(encoded["offset_mapping"]):
            if start <= left < end and right > left:
                mask[position] = 1
                if ids[position] in stops:
                    break  # what the template writes after the end of turn (a newline) is not the model's to say
    bos = tokenizer.bos_token_id
    if bos is not None and _adds_bos(tokenizer) and ids[:1] != [bos]:
        ids, mask = [bos, *ids], [0, *mask]
    check_bos(ids, tokenizer)
    return ids, mask


def completion_ids(prompt: Messages, answer: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of the assistant's turn with its end, so that they continue `prompt_ids` of ``prompt``.

    Raises:
        UserError: the tokenizer merges across the border, so that the prompt is not a prefix of the whole.
    """
    ids, mask = training_ids((*prompt, Message(role="assistant", content=answer)), tokenizer)
    before = prompt_ids(prompt, tokenizer)
    if ids[: len(before)] != before:
        raise UserError("The tokenizer merges the end of the prompt with the start of the answer.")
    end = max((position for position, trained in enumerate(mask) if trained), default=len(before) - 1)
    return ids[len(before) : end + 1]


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end the assistant's turn: the one the template writes after it, and the tokenizer's EOS."""
    return _stop_ids(tokenizer)


def chat_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of the template and of how a probe conversation is tokenised with it."""
    probe = (Message(role="user", content="What is 2 + 2?"), Message(role="assistant", content="Four."))
    ids, mask = training_ids(probe, tokenizer)
    return text_digest(f"{tokenizer.chat_template}|{ids}|{mask}|{sorted(stop_ids(tokenizer))}")


def _apply(messages: Messages, tokenizer: PreTrainedTokenizerBase, add_generation_prompt: bool) -> str:
    turns: list[dict[str, str]] = [{"role": m.role, "content": m.content} for m in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        roles = ", ".join(m.role for m in messages)
        raise UserError(
            "The model's chat template refuses this conversation.", why=f"{error} (roles: {roles})"
        ) from error
    return str(text)


def _turn_span(messages: Messages, index: int, text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Where the assistant turn ``messages[index]`` stands in ``text``: from its content to the template's close."""
    before = _apply(messages[:index], tokenizer, True)
    through = _apply(messages[: index + 1], tokenizer, False)
    if not text.startswith(before) or not text.startswith(through):
        raise UserError(
            "The chat template renders earlier turns differently once later ones follow.",
            why="Assistant turns cannot be located, so nothing can be trained on them.",
        )
    return len(before), len(through)


@lru_cache(maxsize=32)
def _has_system_role(tokenizer: PreTrainedTokenizerBase) -> bool:
    probe = (Message(role="system", content=_PROBE), Message(role="user", content="a"))
    try:
        return _PROBE in _apply(probe, tokenizer, True)
    except UserError:
        return False


@lru_cache(maxsize=32)
def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself opens plain text with BOS (Gemma, Llama): then a conversation must as well."""
    ids: Any = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


@lru_cache(maxsize=32)
def _stop_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    probe = (Message(role="user", content="a"), Message(role="assistant", content=_PROBE))
    tail = _apply(probe, tokenizer, False).split(_PROBE, 1)[1]
    stops = {tokenizer.eos_token_id}
    after = tokenizer(tail, add_special_tokens=False)["input_ids"]
    if after and after[0] in set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder):
        stops.add(after[0])
    return frozenset(stop for stop in stops if stop is not None)
