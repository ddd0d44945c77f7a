"""Several layers in one vector: multilayer fusion.

After Niizumi et al., "Composing General Audio Representation by Fusing Multilayer Features of a Pre-trained Model"
(EUSIPCO 2022, arXiv 2205.08138). Middle layers know things that the embedding has thrown away, such as pitch and who
speaks; kept apart by frequency and joined, they serve far more tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

FUSED_FRAMES = 6
"""Time steps that all layers are brought to: those of the last block after its pool, 0.16 s each."""


def over_time(values: Tensor) -> Tensor:
    """The output of a layer as features over time.

    Args:
        values: (n, channels, time, frequency), time a multiple of 6: the maximum is taken over neighbouring times, and
            frequencies are kept apart; or (n, d), which holds for all times.

    Returns:
        (n, 6, channels * frequency), or (n, 6, d).
    """
    if values.ndim == 2:
        return values.unsqueeze(1).expand(-1, FUSED_FRAMES, -1)
    step = values.shape[2] // FUSED_FRAMES
    pooled = F.max_pool2d(values, (step, 1)) if step > 1 else values
    return pooled.permute(0, 2, 1, 3).flatten(2)


def fuse(layers: Sequence[Tensor]) -> Tensor:
    """Joins layers, and pools them over the window's time: the mean plus the maximum, as in the paper.

    Args:
        layers: each (n, 6, d), as :func:`over_time` gives them.

    Returns:
        (n, sum of all d).
    """
    joined = torch.cat(list(layers), dim=-1)
    return joined.mean(dim=1) + joined.amax(dim=1)
