"""Which prompts are held out: by the hash of the first user turn alone.

Every stage that trains, and the data that it trains on, draws this line, so that no prompt is on both sides. Held-out
sets are nested: what is held out at a small fraction is also held out at a larger one.
"""

from __future__ import annotations

from typing import Literal

from inference.records import Messages, prompt_id

Split = Literal["train", "holdout"]


def in_holdout(prompt: str, fraction: float) -> bool:
    """Whether the prompt with this id (a sha256) is on the held-out side."""
    return int(prompt[:16], 16) < fraction * 2**64


def first_turn_id(messages: Messages) -> str:
    """`prompt_id` of the first user turn: what the split goes by."""
    first = next(message for message in messages if message.role == "user")
    return prompt_id((first,))


def split_of(messages: Messages, fraction: float) -> Split:
    """The side of a conversation or a prompt that has a user turn."""
    return "holdout" if in_holdout(first_turn_id(messages), fraction) else "train"
