"""What decoders have in common: an opened file, and the length that it promises."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggish_pt.errors import AudioError, AudioWarning

# Values (samples times channels) in one block, as float64 2 MiB.
BLOCK_VALUES = 1 << 18
MIN_BLOCK_FRAMES = 256


@dataclass
class Decoder:
    """An opened audio file.

    Attributes:
        sample_rate: hertz.
        channels: how many.
        frames: samples per channel that the header promises; None if it does not say.
        container: name of the file format.
        encoding: name of the sample format or codec.
        blocks: iterates over (n, channels) float64 blocks in [-1, 1].
        close: releases the file.
        seek: goes to a sample exactly, before the first block is taken; None where that cannot be had.
    """

    sample_rate: int
    channels: int
    frames: int | None
    container: str
    encoding: str
    blocks: Iterator[NDArray[np.float64]]
    close: Callable[[], None]
    seek: Callable[[int], None] | None = None


@dataclass
class DeclaredLength:
    """Holds a file to the length that it promises.

    Attributes:
        name: how to call it in errors.
        allow_truncated: whether a shorter one is used, with a warning.
        frames: samples per channel that it promises; None if none.
    """

    name: str
    allow_truncated: bool
    frames: int | None = None

    def cut_short(self, detail: str = "it ends before its header says") -> None:
        """The file is known to end too early."""
        self._refuse(f"{self.name}: the file is truncated: {detail}")

    def damaged(self, decoded: int, sample_rate: int, reason: str) -> None:
        """Decoding broke off after so many samples."""
        message = (
            f"{self.name}: damaged or truncated: cannot be decoded beyond {decoded / sample_rate:.3f} s ({reason})"
        )
        if decoded == 0:
            raise AudioError(message, self.name)
        self._refuse(message)

    def _refuse(self, message: str) -> None:
        if not self.allow_truncated:
            advice = "get it again, or allow truncated files (allow_truncated=True, --allow-truncated)"
            raise AudioError(f"{message}; {advice}", self.name)
        warnings.warn(f"{message}; using what is there", AudioWarning, stacklevel=2)

    def check(self, decoded: int, sample_rate: int) -> None:
        """Decoding came to the end after so many samples."""
        if self.frames is not None and decoded < self.frames:
            self.cut_short(f"{decoded / sample_rate:.3f} s of {self.frames / sample_rate:.3f} s")
