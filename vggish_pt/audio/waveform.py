"""Audio of any kind → waveform: one channel at 16 kHz.

In float64 on the host: with float32 samples, the log-mel of quiet bands beside loud ones would move by up to 1e-4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from vggish_pt.audio import Audio, AudioLike, open_audio
from vggish_pt.audio.resample import ResamplerName, Waveform, make_resampler

if TYPE_CHECKING:
    from torch import Tensor


def waveform_chunks(audio: Audio, resampler: ResamplerName = "soxr") -> Iterator[Waveform]:
    """The waveform of opened audio, piece by piece.

    Args:
        audio: as :func:`vggish_pt.audio.open_audio` gives it; read to its end.
        resampler: which library resamples; see :data:`vggish_pt.audio.resample.ResamplerName`.

    Yields:
        (T,) float64 at 16 kHz; never empty.

    Raises:
        AudioError: damaged, empty or non-finite audio.
    """
    stream = make_resampler(audio.sample_rate, resampler)
    given = False
    for block in audio.blocks():
        piece = stream.push(block)
        if len(piece):
            given = True
            yield piece
    rest = stream.flush()
    if len(rest):
        yield rest
    elif not given:
        yield np.zeros(1)  # a sample or two at a high rate is still a clip


def load_waveform(
    source: AudioLike,
    sample_rate: float | None = None,
    *,
    resampler: ResamplerName = "soxr",
    allow_truncated: bool = False,
) -> Tensor:
    """Audio of any kind as a waveform for :class:`~vggish_pt.nn.frontend.LogMel`.

    Args:
        source: a path, bytes, a file object, an array or a tensor; see :func:`vggish_pt.audio.open_audio`.
        sample_rate: hertz, for arrays and tensors.
        resampler: "soxr", "resampy" or "torchaudio".
        allow_truncated: True takes what a truncated or damaged file still holds, with a warning.

    Returns:
        (T,) float64 tensor at 16 kHz, the mean of the channels.

    Raises:
        AudioError: audio that is missing, empty, damaged or non-finite.
        SettingsError: a setting outside what it may be.
    """
    import torch

    with open_audio(source, sample_rate, allow_truncated=allow_truncated) as audio:
        return torch.from_numpy(np.concatenate(list(waveform_chunks(audio, resampler))))
