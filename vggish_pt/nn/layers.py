"""Layers whose output can be read: their names, their shapes, and fusions of several layers."""

from __future__ import annotations

import math

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.nn.config import VGGishConfig

LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2", "embedding", "fused")
"""``conv1`` to ``conv4``: after the block's max pool. ``fc1``, ``fc2``: after the ReLU. ``embedding``: the last layer.
``fused``: several layers in one vector, see :func:`fused_stages`."""

_MAP_SHAPES = {  # (channels, time, frequency)
    "conv1": (64, 48, 32),
    "conv2": (128, 24, 16),
    "conv3": (256, 12, 8),
    "conv4": (512, 6, 4),
    # Before their block's pool, for fusions only.
    "conv3_1": (256, 24, 16),
    "conv3_2": (256, 24, 16),
    "conv4_1": (512, 12, 8),
    "conv4_2": (512, 12, 8),
}
_FUSABLE = (*_MAP_SHAPES, "fc1", "fc2", "embedding")
_DEFAULT_FUSION = ("conv3_2", "conv4_2")


def check_layer(layer: str) -> str:
    """Return ``layer`` if it is the name of a layer.

    Args:
        layer: one of :data:`LAYERS`, or a fusion such as "fused:conv2+conv4+embedding".

    Raises:
        SettingsError: the network has no such layer.
    """
    if isinstance(layer, str) and (layer in LAYERS or (layer.startswith("fused:") and fused_stages(layer))):
        return layer
    raise SettingsError(f"layer must be one of {', '.join(LAYERS)}, or a fusion like fused:conv2+conv4, not {layer!r}")


def fused_stages(layer: str) -> tuple[str, ...]:
    """Return the layers that a fusion joins; an empty tuple if ``layer`` is not a fusion.

    Args:
        layer: "fused" for the last convolutions of blocks 3 and 4 before their pools, the fusion that Niizumi et al.
            chose for VGGish (EUSIPCO 2022, arXiv 2205.08138); or "fused:" and names joined by "+". Names are conv1 to
            conv4 (after the pool), conv3_1, conv3_2, conv4_1, conv4_2 (before the pool), fc1, fc2 and embedding.

    Raises:
        SettingsError: an unknown name, or a name given twice.
    """
    fusion, _, names = layer.partition(":")
    if fusion != "fused":
        return ()
    stages = tuple(names.split("+")) if names else _DEFAULT_FUSION
    unknown = [stage for stage in stages if stage not in _FUSABLE]
    if unknown or len(set(stages)) != len(stages) or layer == "fused:":
        raise SettingsError(f"a fusion joins different ones of {', '.join(_FUSABLE)} with '+', not {layer!r}")
    return stages


def layer_shape(layer: str, config: VGGishConfig) -> tuple[int, ...]:
    """Return the shape of a layer's output for one window.

    Args:
        layer: see :func:`check_layer`.
        config: configuration; it has the width of the fully connected layers.

    Returns:
        (channels, time, frequency) for conv1 to conv4, (d,) for the others.
    """
    if stages := fused_stages(check_layer(layer)):
        return (sum(fused_width(stage, config) for stage in stages),)
    if layer in _MAP_SHAPES:
        return _MAP_SHAPES[layer]
    return (c.EMBEDDING_SIZE if layer == "embedding" else config.fc_width,)


def fused_width(stage: str, config: VGGishConfig) -> int:
    """Return the number of values that a layer adds to a fusion: channels times frequencies, or its width."""
    if stage in _MAP_SHAPES:
        channels, _, frequencies = _MAP_SHAPES[stage]
        return channels * frequencies
    return math.prod(layer_shape(stage, config))
