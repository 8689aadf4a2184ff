"""TRL's RewardTrainer with this project's hooks, and rewards of token ids.

This module imports torch and TRL; import it inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedModel
from trl.trainer.reward_trainer import RewardTrainer

from evaluation.statistics.mean import mean_interval
from finetune.trainers import Hooks


def scores(model: Any, texts: Sequence[list[int]], fill: int, batch_size: int) -> list[float]:
    """The reward of each text, in the order given.

    Args:
        model: a sequence classifier with one output.
        texts: token ids.
        fill: what ``model`` takes for padding.
        batch_size: texts in one forward pass, of like length together.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    found = [0.0] * len(texts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        rows = [torch.tensor(texts[index]) for index in chosen]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill).to(device)
        seen = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
        with torch.no_grad():
            rewards = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, 0].float().tolist()
        for index, reward in zip(chosen, rewards, strict=True):
            found[index] = reward
    return found


def pairwise_accuracy(chosen: Sequence[float], rejected: Sequence[float], prompts: Sequence[str]) -> dict[str, Any]:
    """Share of pairs whose chosen answer has the higher reward; a tie counts one half.

    The interval is Wilson's where every pair has a prompt of its own, else Student's t over prompts, whose pairs are
    not independent (`evaluation.statistics.mean`).

    Args:
        chosen: ``[pairs]`` rewards.
        rejected: ``[pairs]`` rewards.
        prompts: ``[pairs]`` prompt ids.
    """
    right = [
        1.0 if left > other else 0.5 if left == other else 0.0 for left, other in zip(chosen, rejected, strict=True)
    ]
    mean = mean_interval(right, clusters=list(prompts))
    return {
        "pairwise_accuracy": mean.mean,
        "pairwise_accuracy_low": mean.low,
        "pairwise_accuracy_high": mean.high,
        "pairwise_accuracy_method": f"{mean.method}, {mean.confidence:.0%}",
        "pairs": len(right),
        "prompts": len(set(prompts)),
    }


class Reward(Hooks, RewardTrainer):  # type: ignore[misc]
    """TRL's RewardTrainer on ``chosen_ids`` and ``rejected_ids``."""

    prompts: Sequence[str] = ()
    """The prompt's id of each held-out pair, in the order in which they are evaluated."""
    _rewards: tuple[torch.Tensor, ...] = ()
    """``[chosen, then rejected]`` of each held-out batch of the latest evaluation."""

    def _weight(self, inputs: dict[str, Any]) -> int:
        return len(inputs["input_ids"]) // 2

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's; held-out rewards are kept."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)  # type: ignore[no-untyped-call]
        if not cast(PreTrainedModel, self.model).training:
            self._rewards = (*self._rewards, outputs.logits[:, 0].detach().float().cpu())
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *rest: Any, **named: Any) -> Any:
        """As `Hooks.evaluation_loop`."""
        self._rewards = ()
        return super().evaluation_loop(*rest, **named)

    def measured(self) -> dict[str, float]:
        """The accuracy with its interval."""
        return {name: value for name, value in self._accuracy().items() if isinstance(value, float)}

    def final(self) -> dict[str, Any]:
        """How the interval was made, and from how many pairs."""
        found = {name: value for name, value in self._accuracy().items() if not isinstance(value, float)}
        return {f"eval_{name}": value for name, value in found.items()}

    def _accuracy(self) -> dict[str, Any]:
        if not self._rewards:
            return {}
        sides = zip(*(batch.chunk(2) for batch in self._rewards), strict=True)
        chosen, rejected = (torch.cat(side).tolist() for side in sides)
        return pairwise_accuracy(chosen, rejected, self.prompts)
