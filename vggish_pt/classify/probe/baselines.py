"""Baseline features without a network: statistics over time of log-mel, MFCC and constant-Q spectra.

librosa computes them at 16 kHz, VGGish's rate, with its defaults for all settings that are not given here. Among common
settings, these come nearest to published accuracies on ESC-10; see benchmarks/README.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c

MFCC = 20
CQT_BINS = 80
CQT_MIN_HZ = 50.0
HOP = 256
_SHORTEST = 1 << 14  # samples; about the length of the longest filter of the CQT

Spectrum = NDArray[np.float32]
"""(bands, frames)."""


def log_mel(waveform: NDArray[np.float32]) -> Spectrum:
    """Compute VGGish's own log-mel: 64 bands from 125 to 7500 Hz, windows of 25 ms every 10 ms, log(magnitude + 0.01).

    Args:
        waveform: (T,) at 16 kHz.
    """
    import librosa

    magnitude = librosa.feature.melspectrogram(
        y=waveform,
        sr=c.SAMPLE_RATE,
        n_fft=c.FFT_LENGTH,
        win_length=c.FRAME_LENGTH,
        hop_length=c.FRAME_HOP,
        center=False,
        power=1,
        n_mels=c.MEL_BANDS,
        fmin=c.MEL_MIN_HZ,
        fmax=c.MEL_MAX_HZ,
        htk=True,
        norm=None,
    )
    spectrum: Spectrum = np.log(magnitude + c.LOG_OFFSET)
    return spectrum


def mfcc(waveform: NDArray[np.float32]) -> Spectrum:
    """Compute 20 cepstral coefficients of 128 mel bands in decibels, windows of 1024 samples every 256.

    Args:
        waveform: (T,) at 16 kHz.
    """
    import librosa

    coefficients: Spectrum = librosa.feature.mfcc(y=waveform, sr=c.SAMPLE_RATE, n_mfcc=MFCC, n_fft=1024, hop_length=HOP)
    return coefficients


def cqt(waveform: NDArray[np.float32]) -> Spectrum:
    """Compute 80 constant-Q bands in decibels, 12 to the octave, from 50 Hz to 4.8 kHz, every 256 samples.

    Args:
        waveform: (T,) at 16 kHz.
    """
    import librosa

    magnitude = np.abs(librosa.cqt(waveform, sr=c.SAMPLE_RATE, hop_length=HOP, fmin=CQT_MIN_HZ, n_bins=CQT_BINS))
    decibels: Spectrum = librosa.amplitude_to_db(magnitude)
    return decibels


BASELINES: dict[str, Callable[[NDArray[np.float32]], Spectrum]] = {"log-mel": log_mel, "mfcc": mfcc, "cqt": cqt}
"""Baseline features by name."""


def clip_statistics(waveform: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Compute the mean of each band over time, followed by the (population) standard deviation of each band.

    Args:
        waveform: (T,) at 16 kHz, T from 1; a short one is padded with zeros to about a second.
        name: one of :data:`BASELINES`.

    Returns:
        (d,) float32; d is 128 for log-mel, 40 for MFCC, 160 for CQT.
    """
    short = _SHORTEST - len(waveform)
    padded = np.pad(waveform, (0, short)) if short > 0 else waveform
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # librosa warns of windows longer than a decimated signal
        spectrum = BASELINES[name](padded)
    return np.concatenate([spectrum.mean(axis=1), spectrum.std(axis=1)]).astype(np.float32)
