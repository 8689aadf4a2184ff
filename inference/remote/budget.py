"""What a server has cost, and the line that it must not pass.

Before a request is sent, the most that it can cost is set aside; with the reply, what it did cost takes the place of
that. So the sum of what is spent and what is set aside never passes the limit, with any number of requests in flight.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from inference.records import Messages
from inference.remote.faults import Reason, ServerStopped
from inference.remote.server import Server

TEMPLATE_TOKENS = 256
"""Room for what a chat template adds: a default system text, and the marks of its turns."""
TURN_TOKENS = 8


def most_prompt_tokens(messages: Messages) -> int:
    """A bound on a prompt's tokens without its tokenizer: byte-level vocabularies need at most a token a byte."""
    return TEMPLATE_TOKENS + sum(len(turn.content.encode()) + TURN_TOKENS for turn in messages)


class Budget:
    """The account of one server in one run.

    Args:
        server: carries prices and the limit.
        name: what the run calls the server.
        spent: dollars that earlier processes of the run spent.
    """

    def __init__(self, server: Server, name: str, spent: float = 0.0) -> None:
        self._server, self._name = server, name
        self.spent, self._reserved, self.in_flight = spent, 0.0, 0
        self.tokens: Counter[str] = Counter()
        self.faults: Counter[Reason] = Counter()

    def reserve(self, messages: Messages, max_new_tokens: int) -> float:
        """Set aside the most that a request can cost, in dollars.

        Raises:
            ServerStopped: that would pass the limit.
        """
        prices, limit = self._server.prices, self._server.limit_usd
        worst = prices.cost(most_prompt_tokens(messages), max_new_tokens) if prices else 0.0
        if limit is not None and self.spent + self._reserved + worst > limit:
            raise ServerStopped(
                f"The spending limit of ${limit:g} for server '{self._name}' would be passed.",
                why=f"${self.spent:.6f} is spent, ${self._reserved:.6f} is set aside for requests in flight, and the "
                f"next one can cost up to ${worst:.6f}.",
                mend="What was answered is kept. Raise 'limit_usd' and run the same command again.",
            )
        self._reserved += worst
        self.in_flight += 1
        return worst

    def _release(self, reserved: float) -> None:
        self.in_flight -= 1
        # Nothing is set aside for nothing: sums of fractions would leave a trace.
        self._reserved = self._reserved - reserved if self.in_flight else 0.0

    def settle(self, reserved: float, prompt_tokens: int, completion_tokens: int) -> float:
        """Book a reply; gives its cost in dollars."""
        prices = self._server.prices
        cost = prices.cost(prompt_tokens, completion_tokens) if prices else 0.0
        self._release(reserved)
        self.spent += cost
        self.tokens.update(requests=1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        return cost

    def fail(self, reserved: float, reason: Reason, *, billed: bool) -> float:
        """Book an attempt without an answer; what may have been charged counts in full. Gives that, in dollars."""
        self._release(reserved)
        cost = reserved if billed else 0.0
        self.spent += cost
        self.faults[reason] += 1
        return cost

    def abandon(self, reserved: float) -> None:
        """Book a request whose answer nobody waits for any more: the server may charge for all of it."""
        self._release(reserved)
        self.spent += reserved

    def summary(self) -> dict[str, Any]:
        """Requests, tokens and faults of this process, and the dollars of the whole run."""
        return {
            "requests": self.tokens["requests"],
            "prompt_tokens": self.tokens["prompt_tokens"],
            "completion_tokens": self.tokens["completion_tokens"],
            "spent_usd": round(self.spent, 6) if self._server.prices else None,
            "faults": dict(sorted(self.faults.items())),
        }
