"""Settings of the embedding, checked when they are made. This module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vggish_pt import constants as c
from vggish_pt.audio.resample import ResamplerName, check_resampler
from vggish_pt.errors import SettingsError
from vggish_pt.nn.layers import check_layer
from vggish_pt.nn.windows import Pad, check_pad, hop_frames

Postprocess = Literal["pca", "uint8"]
"""``"pca"``: whitened and clipped to [-2, 2]. ``"uint8"``: the same, quantised to 8 bits as the reference does."""

Precision = Literal["fp32", "tf32", "bf16"]
"""Precision of the network's arithmetic; see :func:`vggish_pt.inference.set_precision`."""

MAX_BATCH_SIZE = 1 << 16


@dataclass(frozen=True)
class EmbedSettings:
    """Settings of the embedding. All but the batch size determine the numbers.

    Attributes:
        hop: seconds from the start of one window to the next, a multiple of 0.01.
        pad: "short", "drop" or "tail"; see :data:`vggish_pt.nn.Pad`.
        batch_size: windows per batch of the network; None for 256.
        layer: layer whose output is returned; see :data:`vggish_pt.nn.LAYERS`.
        postprocess: None, "pca" or "uint8"; for the embedding layer only.
        resampler: "soxr", "resampy" or "torchaudio".
        allow_truncated: True embeds what can be read of a truncated or damaged file, with a warning.

    Raises:
        SettingsError: a value outside its range.
    """

    hop: float = c.DEFAULT_HOP_SECONDS
    pad: Pad = "short"
    batch_size: int | None = None
    layer: str = "embedding"
    postprocess: Postprocess | None = None
    resampler: ResamplerName = "soxr"
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        hop_frames(self.hop)
        check_pad(self.pad)
        check_layer(self.layer)
        check_resampler(self.resampler)
        size = self.batch_size
        whole = isinstance(size, int) and not isinstance(size, bool)
        if size is not None and not (whole and 1 <= size <= MAX_BATCH_SIZE):
            raise SettingsError(f"batch_size must be a whole number from 1 to {MAX_BATCH_SIZE}, or None, not {size!r}")
        if self.postprocess not in (None, *get_args(Postprocess)):
            raise SettingsError(f"postprocess must be None, 'pca' or 'uint8', not {self.postprocess!r}")
        if self.postprocess is not None and self.layer != "embedding":
            raise SettingsError(
                f"postprocess is for the embedding layer, not for {self.layer!r}; leave out one of them"
            )


def check_precision(precision: str) -> None:
    """Check the name of a precision.

    Raises:
        SettingsError: the precision is unknown.
    """
    if precision not in (known := get_args(Precision)):
        raise SettingsError(f"precision must be one of {', '.join(known)}, not {precision!r}")


def check_workers(workers: int) -> None:
    """Check a number of workers.

    Raises:
        SettingsError: the number is not a whole number from 0 to 256.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= 256:
        raise SettingsError(f"workers must be a whole number from 0 to 256, not {workers!r}")
