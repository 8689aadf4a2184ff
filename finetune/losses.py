"""Preference losses that TRL's DPOTrainer does not offer, as pure functions of log-probabilities.

This module imports torch; import it inside functions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def soft_sigmoid(logits: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """DPO's loss for a label that is a probability: −p · log σ(βΔ) − (1−p) · log σ(−βΔ).

    Rafailov et al. 2023, equation 7, is the case p = 1. In general it is the cross-entropy between the labeller's
    Bernoulli(p) and the policy's Bernoulli(σ(βΔ)) (conservative DPO, Mitchell 2023, with an ε = 1−p for each pair). Its
    gradient by βΔ is σ(βΔ) − p: it vanishes where the policy is as sure as the labeller, and p = 1/2 pulls βΔ to 0.

    Args:
        logits: ``[pairs]``, βΔ: β times the chosen answer's log-ratio less the rejected one's, in nats.
        probability: ``[pairs]``, how probable it is that the chosen answer is the better one, in [0, 1].

    Returns:
        ``[pairs]``, in nats; ln 2 where the logit is 0, whatever the label.
    """
    return -probability * F.logsigmoid(logits) - (1 - probability) * F.logsigmoid(-logits)


def log1mexp(values: torch.Tensor) -> torch.Tensor:
    """Logarithm of 1 − e^x for x < 0, exact at both ends (Mächler 2012, equation 7)."""
    near = values > -math.log(2)
    # Each branch sees only values that it can take, so that neither puts a nan into the other's gradient.
    small = torch.log(-torch.expm1(torch.where(near, values, torch.full_like(values, -1.0))))
    large = torch.log1p(-torch.exp(torch.where(near, torch.full_like(values, -1.0), values)))
    return torch.where(near, small, large)


def log_odds_ratio(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Log of odds(chosen) / odds(rejected), with odds(y) = P(y) / (1 − P(y)) (Hong et al. 2024, ORPO, equation 4).

    Args:
        chosen: ``[pairs]``, mean log-probability per token of the chosen answers, in nats, below 0.
        rejected: the same of the rejected answers.
    """
    return (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))


def orpo(nll: torch.Tensor, log_odds: torch.Tensor, weight: float) -> torch.Tensor:
    """ORPO: NLL of the chosen answer − λ · mean log σ(log odds ratio) (Hong et al. 2024, equations 6 and 7).

    Args:
        nll: scalar, in nats a token.
        log_odds: ``[pairs]``.
        weight: λ.

    Returns:
        Scalar.
    """
    return nll - weight * F.logsigmoid(log_odds).mean()
