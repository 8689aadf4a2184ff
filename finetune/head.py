"""The language-model head on a CPU.

TRL scores tokens through tiles of 4,096 tokens by 32,768 words, written for GPUs; its torch fallback scores ignored
positions as well and makes several copies of half a gigabyte a tile. On two CPU cores that took nine tenths of a
training step of SmolLM2-135M (docs/log.md). Here only positions with a label are scored, in one product.

This module imports torch and TRL; import it inside functions.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

SPECIAL = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
    "output_router_logits",
)
"""Settings of models that transform their logits or route to experts; those keep TRL's head, which knows them all."""

DIRECT = "forward_with_direct_head"
"""Name of the patched method, by which a second `install` knows the first."""


def install(model: PreTrainedModel) -> bool:
    """Score with `direct_head` on ``model`` where it applies: on a CPU, for plain logits.

    Call it after TRL's trainer was built, which patches ``forward`` in the same way.

    Returns:
        Whether it is installed.
    """
    settings = model.config.get_text_config()
    if model.device.type != "cpu" or any(getattr(settings, name, None) is not None for name in SPECIAL):
        return False
    tiled = model.forward
    if getattr(tiled, "__name__", "") == DIRECT:
        return True

    def forward(
        self: Any,
        *arguments: Any,
        fused_lm_head: bool = False,
        labels: torch.Tensor | None = None,
        shift_labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **named: Any,
    ) -> Any:
        if not fused_lm_head or labels is None or shift_labels is not None:
            given = {"labels": labels, "shift_labels": shift_labels, "num_items_in_batch": num_items_in_batch}
            given = {name: value for name, value in given.items() if value is not None}
            return tiled(*arguments, fused_lm_head=fused_lm_head, **given, **named)
        named["use_cache"] = False
        hidden = self.base_model(*arguments, **named).last_hidden_state[:, :-1]
        return direct_head(hidden, labels[:, 1:], self.get_output_embeddings(), num_items_in_batch)

    forward.__name__ = DIRECT
    model.forward = types.MethodType(forward, model)
    return True


def direct_head(
    hidden: torch.Tensor, labels: torch.Tensor, head: torch.nn.Module, count: torch.Tensor | int | None
) -> FusedCausalLMOutput:
    """What TRL's fused head returns, from one product over the labelled positions.

    Args:
        hidden: ``[rows, tokens, width]``, the states that predict ``labels``.
        labels: ``[rows, tokens]`` token ids, -100 where nothing is scored.
        head: the output projection.
        count: what the summed loss is divided by; None: the labelled positions.

    Returns:
        Per-token fields ``[rows, tokens]``, zero where nothing is scored; ``loss`` in nats.
    """
    mask = labels != -100
    logits = head(hidden[mask]).float()
    log_p = torch.log_softmax(logits, dim=-1)
    scored = log_p.gather(-1, labels[mask][:, None])[:, 0]
    with torch.no_grad():
        entropy = -(log_p.exp() * log_p).sum(dim=-1)
        top = logits.argmax(dim=-1) == labels[mask]
        mean = logits.mean(dim=-1)

    def spread(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    log_probs = spread(scored)
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / (mask.sum().clamp(min=1) if count is None else count),
        log_probs=log_probs,
        entropy=spread(entropy),
        mean_logits=spread(mean),
        is_top1=spread(top),
        label_mask=mask,
    )
