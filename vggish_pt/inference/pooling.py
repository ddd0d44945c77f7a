"""Pooling: the values of a clip's windows, of any layer, to one vector for the clip."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.errors import AudioError, SettingsError, VGGishError
from vggish_pt.inference.embeddings import Embeddings, raise_if_error
from vggish_pt.nn.config import VGGishConfig
from vggish_pt.nn.layers import layer_shape

Pooling = Literal["mean", "max", "mean+std"]
"""``"mean"`` or ``"max"`` over windows; ``"mean+std"``: the mean, followed by the population standard deviation."""


def check_pooling(pooling: str) -> Pooling:
    """Return ``pooling`` if it is the name of a pooling.

    Raises:
        SettingsError: it is not one.
    """
    if pooling not in get_args(Pooling):
        raise SettingsError(f"pooling must be 'mean', 'max' or 'mean+std', not {pooling!r}")
    return pooling  # type: ignore[return-value]


def layer_size(layer: str, config: VGGishConfig) -> int:
    """Return the length of the vectors of :func:`window_vectors`."""
    return layer_shape(layer, config)[0]


def window_vectors(values: Tensor) -> Tensor:
    """Return one vector for each window.

    Args:
        values: (n, d), which is not changed; or, of a convolutional layer, (n, channels, time, frequency), whose mean
            over time and frequency is taken.

    Returns:
        (n, d) or (n, channels), float32.
    """
    values = values.float()
    return values.mean(dim=(2, 3)) if values.ndim == 4 else values


def pool_windows(values: Tensor, pooling: Pooling = "mean") -> Tensor:
    """Return one vector for a clip.

    Args:
        values: (n, d) or (n, channels, time, frequency), n from 1; see :func:`window_vectors`.
        pooling: see :data:`Pooling`.

    Returns:
        (d,) float32, for "mean+std" (2 * d,).
    """
    vectors = window_vectors(values)
    if pooling == "max":
        return vectors.amax(dim=0)
    mean = vectors.mean(dim=0)
    return torch.cat([mean, vectors.std(dim=0, correction=0)]) if pooling == "mean+std" else mean


def clip_vector(result: Embeddings | VGGishError, pooling: Pooling = "mean") -> NDArray[np.float32]:
    """Return one vector for a result of :meth:`vggish_pt.VGGish.embed_iter`.

    Args:
        result: the embeddings of a clip, or its error.
        pooling: see :data:`Pooling`.

    Returns:
        (d,) float32, for "mean+std" (2 * d,).

    Raises:
        VGGishError: ``result``, if it is an error.
        AudioError: the clip has no window, because it is short and ``pad`` is "drop".
    """
    result = raise_if_error(result)
    if len(result) == 0:
        name = result.source
        raise AudioError(f"{name}: shorter than a window of {c.EXAMPLE_SECONDS} s; use pad='short'", name)
    vector: NDArray[np.float32] = pool_windows(result.values, pooling).numpy()
    return vector
