"""Contrastive loss and learning rate of both stages of pretraining: find a clip's partner in the batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer


def nt_xent(projections: Tensor, temperature: float) -> tuple[Tensor, float]:
    """Compute NT-Xent (Chen et al., ICML 2020, arXiv 2002.05709).

    Args:
        projections: (2 * pairs, d), the second views after the first.
        temperature: divisor of the cosines.

    Returns:
        The loss, and the share of clips whose partner is the nearest clip of the batch.
    """
    z = F.normalize(projections.float(), dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    target = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    hits = (similarity.argmax(1) == target).float().mean().item()
    return F.cross_entropy(similarity, target), hits


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: linear warm-up over the first twentieth, then half a cosine down to 0."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def descend(optimizer: Optimizer, projections: Tensor, temperature: float, rate: float) -> tuple[float, float]:
    """Take one optimizer step.

    Args:
        optimizer: optimizer of the model that computed the projections.
        projections: see :func:`nt_xent`.
        temperature: see :func:`nt_xent`.
        rate: learning rate.

    Returns:
        The loss before the step, and the share of clips whose partner was the nearest clip of the batch.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, hits = nt_xent(projections, temperature)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item(), hits
