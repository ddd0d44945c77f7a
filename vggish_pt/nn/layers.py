"""Where the network can be read: names, shapes and fusions of layers."""

from __future__ import annotations

import math

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.nn.config import VGGishConfig

LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2", "embedding", "fused")
"""``conv1`` to ``conv4``: after the block's pool. ``fc1``, ``fc2``: after the ReLU. ``embedding``: the network's end.
``fused``: several layers in one vector, see :func:`fused_stages`."""

_MAP_SHAPES = {
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
    """Returns ``layer`` if the network can be read there.

    Args:
        layer: one of :data:`LAYERS`, or a fusion by name, as in "fused:conv2+conv4+embedding".

    Raises:
        SettingsError: there is no such layer.
    """
    if isinstance(layer, str) and (layer in LAYERS or (layer.startswith("fused:") and fused_stages(layer))):
        return layer
    raise SettingsError(f"layer must be one of {', '.join(LAYERS)}, or a fusion like fused:conv2+conv4, not {layer!r}")


def fused_stages(layer: str) -> tuple[str, ...]:
    """The stages of the network that a fusion takes; none if ``layer`` is no fusion.

    Args:
        layer: "fused" for the last convolutions of blocks 3 and 4 before their pools, the fusion that Niizumi et al.
            chose for VGGish (EUSIPCO 2022, arXiv 2205.08138); or "fused:" and names joined by "+", of: conv1 to conv4
            (after the pool), conv3_1, conv3_2, conv4_1, conv4_2 (before it), fc1, fc2, embedding.

    Raises:
        SettingsError: a name that is none of these, or that is there twice.
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
    """The shape of one window at a layer.

    Args:
        layer: see :func:`check_layer`.
        config: gives the width of the fully connected layers.

    Returns:
        (channels, time, frequency) for conv1 to conv4, (d,) for the others.
    """
    if stages := fused_stages(check_layer(layer)):
        return (sum(fused_width(stage, config) for stage in stages),)
    if layer in _MAP_SHAPES:
        return _MAP_SHAPES[layer]
    return (c.EMBEDDING_SIZE if layer == "embedding" else config.fc_width,)


def fused_width(stage: str, config: VGGishConfig) -> int:
    """How many numbers a stage gives to a fusion: channels times frequencies, or its width."""
    if stage in _MAP_SHAPES:
        channels, _, frequencies = _MAP_SHAPES[stage]
        return channels * frequencies
    return math.prod(layer_shape(stage, config))
