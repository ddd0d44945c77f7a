"""Resampling to 16 kHz, piece by piece, with the result of doing it in one go.

Resamplers are not interchangeable: between two good ones, VGGish embeddings differ in the second digit, because the
log-mel front end hears what is left near the edge of the pass band. So the choice is named, and recorded with outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.optional import require

Waveform = NDArray[np.float64]
"""(T,) float64 samples of one channel."""

ResamplerName = Literal["soxr", "resampy", "torchaudio"]
"""``"soxr"`` (HQ): fast and the default. ``"resampy"`` (kaiser_best): the reference's. ``"torchaudio"``: its
``functional.resample``, as the torchaudio port of VGGish has it."""

# The largest filter bank that torchaudio may build (it grows with the product of the rates over their common divisor).
_MAX_TORCHAUDIO_TAPS = 1 << 25


def check_resampler(name: str) -> ResamplerName:
    """Returns ``name`` if there is such a resampler.

    Raises:
        SettingsError: there is not.
    """
    if name not in get_args(ResamplerName):
        raise SettingsError(f"resampler must be 'soxr', 'resampy' or 'torchaudio', not {name!r}")
    return name  # type: ignore[return-value]


def require_resampler(name: ResamplerName) -> None:
    """Makes sure that the library behind a resampler is there.

    Raises:
        MissingDependencyError: it is not installed, or cannot be loaded.
    """
    if name != "soxr":
        require(name, f'resampler="{name}"')


class Resampler(Protocol):
    """Turns a stream of samples at one rate into a stream at 16 kHz."""

    def push(self, samples: Waveform) -> Waveform:
        """Takes the next samples, returns those at 16 kHz that they settle; may be none."""

    def flush(self) -> Waveform:
        """Ends the stream, returns the rest."""


def make_resampler(sample_rate: int, name: ResamplerName = "soxr") -> Resampler:
    """A resampler from ``sample_rate`` to 16 kHz for one stream.

    Args:
        sample_rate: hertz.
        name: which library; see :data:`ResamplerName`. At 16 kHz none is needed and the samples pass unchanged.

    Raises:
        MissingDependencyError: the library is not installed, or cannot be loaded.
        SettingsError: the library cannot convert from this rate.
    """
    if sample_rate == c.SAMPLE_RATE:
        return _Identity()
    if check_resampler(name) == "soxr":
        return _Soxr(sample_rate)
    if name == "resampy":
        return _resampy(sample_rate)
    return _torchaudio(sample_rate)


class _Identity:
    def push(self, samples: Waveform) -> Waveform:
        return samples

    def flush(self) -> Waveform:
        return np.zeros(0)


class _Soxr:
    def __init__(self, sample_rate: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(sample_rate, c.SAMPLE_RATE, 1, dtype="float64", quality="HQ")

    def push(self, samples: Waveform) -> Waveform:
        resampled: Waveform = self._stream.resample_chunk(samples)
        return resampled

    def flush(self) -> Waveform:
        rest: Waveform = self._stream.resample_chunk(np.zeros(0), last=True)
        return rest


class _Blockwise:
    """Streams a resampler that only does whole signals.

    The rates' ratio repeats every ``period`` input samples, and an output sample depends on no input further away
    than ``reach``. So a block that starts at a multiple of the period, with that much context on both sides, gives the
    very samples of the whole signal.
    """

    def __init__(self, sample_rate: int, reach: int, resample: Callable[[Waveform], Waveform]) -> None:
        divisor = math.gcd(sample_rate, c.SAMPLE_RATE)
        self._period, self._out_period = sample_rate // divisor, c.SAMPLE_RATE // divisor
        self._context = -(-reach // self._period) * self._period
        self._block = max(1, (1 << 16) // self._period) * self._period
        self._resample = resample
        self._pending = np.zeros(0)
        self._left = 0  # how many of the pending samples are context on the left

    def push(self, samples: Waveform) -> Waveform:
        self._pending = np.concatenate([self._pending, samples])
        outputs = []
        while len(self._pending) >= self._left + self._block + self._context:
            end = self._left + self._block
            outputs.append(self._cut(self._resample(self._pending[: end + self._context]), self._block))
            keep = max(0, end - self._context)
            self._pending, self._left = self._pending[keep:], end - keep
        return np.concatenate(outputs) if outputs else np.zeros(0)

    def flush(self) -> Waveform:
        rest = self._cut(self._resample(self._pending), None) if len(self._pending) > self._left else np.zeros(0)
        self._pending, self._left = np.zeros(0), 0
        return rest

    def _cut(self, resampled: Waveform, block: int | None) -> Waveform:
        first = self._left // self._period * self._out_period
        last = None if block is None else first + block // self._period * self._out_period
        return resampled[first:last]


def _resampy(sample_rate: int) -> Resampler:
    resampy = require("resampy", 'resampler="resampy"')

    def resample(samples: Waveform) -> Waveform:
        if len(samples) * c.SAMPLE_RATE < sample_rate:
            return np.zeros(0)  # resampy refuses signals that give no sample
        resampled: Waveform = resampy.resample(samples, sample_rate, c.SAMPLE_RATE, filter="kaiser_best")
        return resampled

    # kaiser_best has 64 zero crossings on each side, at the lower of the two rates; one sample for interpolation.
    return _Blockwise(sample_rate, math.ceil(64 * max(1.0, sample_rate / c.SAMPLE_RATE)) + 1, resample)


def _torchaudio(sample_rate: int) -> Resampler:
    functional = require("torchaudio", 'resampler="torchaudio"').functional
    import torch

    divisor = math.gcd(sample_rate, c.SAMPLE_RATE)
    if sample_rate // divisor * (c.SAMPLE_RATE // divisor) > _MAX_TORCHAUDIO_TAPS:
        raise SettingsError(
            f'resampler="torchaudio" would need gigabytes of filters from {sample_rate} Hz, as the rate shares no '
            'large divisor with 16000; use resampler="soxr"'
        )

    def resample(samples: Waveform) -> Waveform:
        resampled = functional.resample(torch.from_numpy(np.ascontiguousarray(samples)), sample_rate, c.SAMPLE_RATE)
        array: Waveform = resampled.numpy()
        return array

    # lowpass_filter_width=6 zero crossings at 0.99 of the lower rate; the filter bank reaches one period further.
    reach = math.ceil(6 / 0.99 * max(1.0, sample_rate / c.SAMPLE_RATE)) + 1 + sample_rate // divisor
    return _Blockwise(sample_rate, reach, resample)
