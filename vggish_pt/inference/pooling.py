"""Windows → one vector for the clip, whatever layer they were read at."""

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
"""``"mean"``, ``"max"``: over windows. ``"mean+std"``: the mean, then the (population) standard deviation."""


def check_pooling(pooling: str) -> Pooling:
    """Returns ``pooling`` if there is such a one.

    Raises:
        SettingsError: there is not.
    """
    if pooling not in get_args(Pooling):
        raise SettingsError(f"pooling must be 'mean', 'max' or 'mean+std', not {pooling!r}")
    return pooling  # type: ignore[return-value]


def layer_size(layer: str, config: VGGishConfig) -> int:
    """How many numbers :func:`window_vectors` gives for a window."""
    return layer_shape(layer, config)[0]


def window_vectors(values: Tensor) -> Tensor:
    """A vector for each window.

    Args:
        values: (n, d), returned as they are; or, of a convolutional layer, (n, channels, time, frequency), of which
            the mean over time and frequency is taken.

    Returns:
        (n, d) or (n, channels), float32.
    """
    values = values.float()
    return values.mean(dim=(2, 3)) if values.ndim == 4 else values


def pool_windows(values: Tensor, pooling: Pooling = "mean") -> Tensor:
    """One vector for a clip.

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
    """One vector for what :meth:`vggish_pt.VGGish.embed_iter` gives for a source.

    Args:
        result: the embeddings, or the error in their place.
        pooling: see :data:`Pooling`.

    Returns:
        (d,) float32, for "mean+std" (2 * d,).

    Raises:
        VGGishError: the error.
        AudioError: embeddings of no window, which ``pad="drop"`` leaves of a short clip.
    """
    result = raise_if_error(result)
    if len(result) == 0:
        name = result.source
        raise AudioError(f"{name}: shorter than a window of {c.EXAMPLE_SECONDS} s; use pad='short'", name)
    vector: NDArray[np.float32] = pool_windows(result.values, pooling).numpy()
    return vector
