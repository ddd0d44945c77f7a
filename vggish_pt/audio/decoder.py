"""Opened audio stream, for decoders of every library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.structure import Loss

# Values (samples times channels) in one block, as float64 2 MiB.
BLOCK_VALUES = 1 << 18
MIN_BLOCK_FRAMES = 256


class UnreadableError(Exception):
    """The library does not know the format of a file, or the start of the file is damaged."""


Samples: TypeAlias = NDArray[np.float64]
"""(n, channels) float64 in [-1, 1]."""
Block = TypeVar("Block", bound="Samples | Loss")


@dataclass
class Decoder(Generic[Block]):
    """An opened audio file, or a stream in one.

    Attributes:
        sample_rate: hertz.
        channels: number of channels.
        frames: samples per channel that the header declares; None if it does not say.
        container: name of the file format.
        encoding: name of the sample format or codec.
        blocks: iterates over (n, channels) float64 blocks in [-1, 1]; a :class:`Loss` among them
            marks where decoding failed.
        close: releases the file.
        seek: seeks to exactly one sample, before the first block is read; None if that is impossible.
        slack: samples per channel by which ``frames`` may exceed what is decoded.
    """

    sample_rate: int
    channels: int
    frames: int | None
    container: str
    encoding: str
    blocks: Iterator[Block]
    close: Callable[[], None]
    seek: Callable[[int], None] | None = None
    slack: int = 0
