"""Audio of any kind → waveform: one channel at 16 kHz.

Waveforms are float64 on the CPU: with float32 samples, log-mel values of quiet bands next to loud ones would change by
up to 1e-4.
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
    """Yield the waveform of opened audio in chunks.

    Args:
        audio: result of :func:`vggish_pt.audio.open_audio`; it is read to its end.
        resampler: library that resamples; see :data:`vggish_pt.audio.resample.ResamplerName`.

    Yields:
        (T,) float64 at 16 kHz; never empty.

    Raises:
        AudioError: damaged, empty or non-finite audio.
    """
    stream = make_resampler(audio.sample_rate, resampler)
    given = False
    for block in audio.blocks():
        chunk = stream.push(block)
        if len(chunk):
            given = True
            yield chunk
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
    """Return audio of any kind as a waveform for :class:`~vggish_pt.nn.frontend.LogMel`.

    Args:
        source: a path, bytes, a file object, an array or a tensor; see :func:`vggish_pt.audio.open_audio`.
        sample_rate: hertz, for arrays and tensors.
        resampler: "soxr", "resampy" or "torchaudio".
        allow_truncated: True reads the readable samples of a truncated or damaged file, with a warning.

    Returns:
        (T,) float64 tensor at 16 kHz, the mean of the channels.

    Raises:
        AudioError: audio that is missing, empty, damaged or non-finite.
        SettingsError: a setting that is not allowed.
    """
    import torch

    with open_audio(source, sample_rate, allow_truncated=allow_truncated) as audio:
        return torch.from_numpy(np.concatenate(list(waveform_chunks(audio, resampler))))
