"""AdamW with one schedule and a rate per part of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optax

from safety_classifier.config import TrainSection


def part_of(name: str) -> str:
    """The part of the model that an array belongs to: ``wide``, ``encoder`` or ``head``."""
    if name.startswith("wide"):
        return "wide"
    return "encoder" if name.startswith("encoder") else "head"


def make_optimiser(
    config: TrainSection, names: Sequence[str], ranks: Sequence[int], steps: int
) -> optax.GradientTransformation:
    """Clipping, AdamW (Loshchilov & Hutter 2019), linear warm-up and cosine to zero.

    Args:
        config: rates and decays.
        names: dotted path of each trained array, in the order of the flat list.
        ranks: number of axes of each; decay applies to matrices only.
        steps: updates of the whole run.
    """
    warmup = max(1, round(config.warmup_ratio * steps))

    def branch(peak: float, decay: float) -> optax.GradientTransformation:
        schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1))
        mask = [rank > 1 for rank in ranks]
        return optax.adamw(schedule, b2=config.adam_b2, weight_decay=decay, mask=_masked(mask, names))

    transform: optax.GradientTransformation = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.multi_transform(
            {
                "encoder": branch(config.learning_rate, config.weight_decay),
                "head": branch(config.head_learning_rate, config.weight_decay),
                "wide": branch(config.wide_learning_rate, config.wide_weight_decay),
            },
            [part_of(name) for name in names],
        ),
    )
    if config.accumulate > 1:
        multi = optax.MultiSteps(transform, config.accumulate)
        return optax.GradientTransformation(multi.init, multi.update)
    return transform


def _masked(mask: Sequence[bool], names: Sequence[str]) -> Any:
    """A decay mask for the arrays of one branch: `optax.multi_transform` hides the others behind placeholders."""

    def decide(parameters: Any) -> Any:
        return [
            parameter if isinstance(parameter, optax.MaskedNode) else flag
            for parameter, flag, _ in zip(parameters, mask, names, strict=True)
        ]

    return decide
