"""The network's first convolution, which stays in float32 when the network is cast to a narrower type.

Its input is a log-mel spectrogram. In near silence that is -4.6 almost everywhere, and bfloat16, with its steps of
0.03 there, moves all of it the same way: embeddings of quiet windows then fell to a cosine of 0.998 with float32. With
this one layer in float32, two thousandths of the network's arithmetic, the lowest on recordings is above 0.9999.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Float32Conv2d(nn.Conv2d):
    """A convolution that ``.to(torch.bfloat16)`` and ``.half()`` leave in float32; other casts act as usual."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32Conv2d:
        def kept_wide(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            narrow = applied.is_floating_point() and applied.element_size() < 4 <= tensor.element_size()
            return tensor.to(applied.device, torch.float32) if narrow else applied

        super()._apply(kept_wide, recurse)  # type: ignore[no-untyped-call]
        return self
