"""Multilayer fusion: several layers in one vector.

Source: Niizumi et al., "Composing General Audio Representation by Fusing Multilayer Features of a Pre-trained Model"
(EUSIPCO 2022, arXiv 2205.08138). Middle layers hold information that the embedding no longer has, such as pitch and
speaker. Each of their channels and frequencies is a separate value; only time is pooled.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

FUSED_FRAMES = 6
"""Time steps to which all layers are pooled: those of conv4 after its pool, 0.16 s each."""


def over_time(values: Tensor) -> Tensor:
    """Return the output of a layer as a sequence of 6 feature vectors.

    Args:
        values: (n, channels, time, frequency), time a multiple of 6; the maximum over neighbouring time steps is
            taken. Or (n, d), which is repeated for each time step.

    Returns:
        (n, 6, channels * frequency), or (n, 6, d).
    """
    if values.ndim == 2:
        return values.unsqueeze(1).expand(-1, FUSED_FRAMES, -1)
    step = values.shape[2] // FUSED_FRAMES
    pooled = F.max_pool2d(values, (step, 1)) if step > 1 else values
    return pooled.permute(0, 2, 1, 3).flatten(2)


def fuse(layers: Sequence[Tensor]) -> Tensor:
    """Concatenate layers and pool them over time: the mean plus the maximum, as in the paper.

    Args:
        layers: outputs of :func:`over_time`, each (n, 6, d).

    Returns:
        (n, sum of all d), of the layers' dtype.
    """
    joined = torch.cat(list(layers), dim=-1)
    return joined.mean(dim=1) + joined.amax(dim=1)
