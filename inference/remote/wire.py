"""Requests and replies in OpenAI's chat-completions schema, and the dialects in which servers differ from it."""

from __future__ import annotations

import json
from typing import Any

from inference.records import FinishReason, Messages, Sampling
from inference.remote.faults import Fault, error_fault
from inference.remote.journal import Reply
from inference.remote.server import Server
from runs.config import StrictModel
from runs.errors import UsageError

TOP = 20
"""Log-probabilities that are asked for: as many as OpenAI gives."""

_FINISH: dict[str, FinishReason] = {"stop": "stop", "eos": "stop", "length": "length"}


def check_sampling(server: Server, sampling: Sampling) -> None:
    """Refuse what the server would drop in silence.

    Raises:
        UsageError: a repetition penalty for OpenAI's own dialect, which has none.
    """
    if server.dialect == "openai" and sampling.repetition_penalty != 1.0:
        raise UsageError(
            f"{server.model} takes no repetition penalty.",
            why="OpenAI's own dialect has no such field.",
            mend="Set repetition_penalty: 1.0 for the role, or the server's dialect: vllm if it knows the field.",
        )


def chat_body(server: Server, messages: Messages, sampling: Sampling, seed: int) -> dict[str, Any]:
    """The body of a request for one answer. A greedy request carries no seed."""
    body: dict[str, Any] = {
        "model": server.model,
        "messages": [turn.model_dump() for turn in messages],
        "temperature": sampling.temperature,
        "max_completion_tokens" if server.dialect == "openai" else "max_tokens": sampling.max_new_tokens,
        **server.extra_body,
    }
    if sampling.temperature > 0:
        body |= {"top_p": sampling.top_p, "seed": seed}
    if server.dialect == "vllm" and sampling.repetition_penalty != 1.0:
        body["repetition_penalty"] = sampling.repetition_penalty
    if server.dialect == "transformers" and (sampling.temperature > 0 or sampling.repetition_penalty != 1.0):
        # It leaves do_sample as the model has it, so that a temperature alone may change nothing.
        settings = {"do_sample": sampling.temperature > 0, "repetition_penalty": sampling.repetition_penalty}
        body["generation_config"] = json.dumps(settings, sort_keys=True)
    return body


def label_body(server: Server, messages: Messages) -> dict[str, Any]:
    """The body of a request for the log-probabilities of the answer's first token."""
    return {
        **chat_body(server, messages, Sampling(max_new_tokens=1), 0),
        "logprobs": True,
        "top_logprobs": TOP,
    }


def stream_fields(server: Server) -> dict[str, Any]:
    """What turns a request into a streamed one that ends with its token counts."""
    if server.dialect == "transformers":  # it counts without being asked
        return {"stream": True}
    return {"stream": True, "stream_options": {"include_usage": True}}


def read_reply(payload: Any, journal_key: str, *, labels: bool, api_key: str | None) -> Reply:
    """The answer in a reply's JSON.

    Raises:
        Fault: it holds an error, no answer, a withheld one, no token counts, or no log-probabilities though
            ``labels`` asked for them.
    """
    if not isinstance(payload, dict):
        raise Fault("malformed", detail="the reply is not a JSON object")
    if payload.get("error"):
        raise error_fault(payload["error"], api_key)
    choice = _first_choice(payload)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    finish = read_finish(choice.get("finish_reason"))
    if not isinstance(text, str):
        raise Fault("no_answer", 200, "the message has no text")
    prompt_tokens, completion_tokens = read_usage(payload.get("usage"))
    return Reply(
        key=journal_key,
        text=text.strip(),
        finish_reason=finish,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        top=_top(choice) if labels else None,
    )


def _first_choice(payload: dict[str, Any]) -> dict[str, Any]:
    choices = payload.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Fault("malformed", detail="the reply has no choices")
    return choices[0]


def read_finish(reason: Any) -> FinishReason:
    """How an answer ended. Raises `Fault` unless the model ended it or the limit cut it."""
    if reason in _FINISH:
        return _FINISH[reason]
    if reason == "content_filter":
        raise Fault("content_filter", 200, "the answer was withheld")
    if reason == "error":
        raise Fault("server_error", 200, "the answer ended in an error")
    raise Fault("no_answer", 200, f"finish_reason {reason!r}"[:100])


def read_usage(usage: Any) -> tuple[int, int]:
    """Prompt and completion tokens. Raises `Fault` where the server does not say."""
    if not isinstance(usage, dict):
        raise Fault("no_usage", 200)
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int) or min(prompt, completion) < 0:
        raise Fault("no_usage", 200)
    return prompt, completion


def _top(choice: dict[str, Any]) -> dict[str, float]:
    """The first token's candidates and their log-probabilities."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    listed = first.get("top_logprobs") if isinstance(first, dict) else None
    if not isinstance(listed, list) or not listed:
        raise Fault("no_logprobs", 200)
    return {str(row["token"]): float(row["logprob"]) for row in listed if isinstance(row, dict)}


class Piece(StrictModel):
    """One event of a stream."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: tuple[int, int] | None = None


def read_event(line: str, api_key: str | None) -> Piece | None:
    """One line of a stream of server-sent events; None for lines that carry nothing.

    Raises:
        Fault: the line is not JSON, or holds an error.
    """
    if not line.startswith("data:"):
        return None
    data = line.removeprefix("data:").strip()
    if not data or data == "[DONE]":
        return None
    try:
        event = json.loads(data)
    except ValueError:
        raise Fault("malformed", 200, "an event of the stream is not JSON") from None
    if not isinstance(event, dict):
        raise Fault("malformed", 200, "an event of the stream is not an object")
    if event.get("error"):
        raise error_fault(event["error"], api_key)
    usage = read_usage(event["usage"]) if event.get("usage") else None
    choices = event.get("choices") or []
    if not choices:
        return Piece(usage=usage)
    delta = choices[0].get("delta") or {}
    finish = choices[0].get("finish_reason")
    return Piece(
        text=str(delta.get("content") or ""),
        finish_reason=read_finish(finish) if finish is not None else None,
        usage=usage,
    )
