"""How far the policy has moved from its reference: mean per-token KL on held-out answers.

This module imports torch and TRL; import it inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from trl.trainer.utils import use_adapter

REFERENCE = "ref"
"""TRL's name for the frozen copy of the adapter that training starts from."""
POSITIONS = 128
"""Positions whose full distributions are in memory at once."""


def token_kl(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(policy ‖ reference) at each position, Σ_v p(v) · (log p(v) − log q(v)), from full logits.

    Args:
        policy: ``[positions, vocabulary]`` logits.
        reference: the same shape.

    Returns:
        ``[positions]``, in nats; at least 0 up to rounding, and 0 for equal logits.
    """
    log_p, log_q = torch.log_softmax(policy.float(), -1), torch.log_softmax(reference.float(), -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def measure(model: PeftModel, rows: Sequence[dict[str, Any]], prompt: str, answer: str) -> dict[str, float]:
    """Means over all answer tokens of ``rows``, in nats a token.

    The expectation over the next token is exact; the prefixes are the given answers, not the policy's own. One row
    at a time, so that padding and batch size have no part in it.

    Args:
        model: the policy is its active adapter; the reference is its adapter "ref", or no adapter where there is none.
        rows: token ids.
        prompt: column with the prompt's ids.
        answer: column with the answer's ids.

    Returns:
        ``kl``, KL(policy ‖ reference); ``chosen_logp``, the policy's log-probability of the answers.
    """
    device = next(model.parameters()).device
    total, likelihood, count = 0.0, 0.0, 0
    with torch.no_grad():
        for row in rows:
            start, length = len(row[prompt]), len(row[answer])
            inputs = {
                "input_ids": torch.tensor([row[prompt] + row[answer]], device=device),
                "logits_to_keep": torch.arange(start - 1, start - 1 + length, device=device),
                "use_cache": False,
            }
            policy = model(**inputs).logits[0]
            with use_adapter(model, REFERENCE if REFERENCE in model.peft_config else None):
                reference = model(**inputs).logits[0]
            for left, right in zip(policy.split(POSITIONS), reference.split(POSITIONS), strict=True):
                total += float(token_kl(left, right).sum())
            target = torch.tensor(row[answer], device=device)
            likelihood -= float(torch.nn.functional.cross_entropy(policy.float(), target, reduction="sum"))
            count += length
    return {"kl": total / count, "chosen_logp": likelihood / count}
