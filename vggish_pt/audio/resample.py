"""Resampling to 16 kHz, block by block, with the same result as in one call.

Resamplers are not interchangeable. Between two good ones, VGGish embeddings differ in the second digit, because filters
differ near the edge of the pass band and the log-mel front end is sensitive to it. So outputs record the resampler.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.utils.optional import require

Waveform = NDArray[np.float64]
"""(T,) float64 samples of one channel."""

ResamplerName = Literal["soxr", "resampy", "torchaudio"]
"""``"soxr"`` (HQ): fast and the default. ``"resampy"`` (kaiser_best): the reference's. ``"torchaudio"``: its
``functional.resample``, as in torchaudio's port of VGGish."""

# The largest filter bank that torchaudio may build (it grows with the product of the rates over their common divisor).
_MAX_TORCHAUDIO_TAPS = 1 << 25

# Reach of soxr's HQ filter in samples of the lower rate: an output sample depends on no input sample further away. At a
# distance above 97, the response to an impulse is below 1e-7.
_SOXR_REACH = 100


def check_resampler(name: str) -> ResamplerName:
    """Return ``name`` if it is the name of a resampler.

    Raises:
        SettingsError: it is not.
    """
    if name not in get_args(ResamplerName):
        raise SettingsError(f"resampler must be 'soxr', 'resampy' or 'torchaudio', not {name!r}")
    return name  # type: ignore[return-value]


def require_resampler(name: ResamplerName) -> None:
    """Check that the library of a resampler can be imported.

    Raises:
        MissingDependencyError: it is not installed, or cannot be loaded.
    """
    if name != "soxr":
        require(name, f'resampler="{name}"')


class Resampler(Protocol):
    """Converter of a stream of samples at one rate to a stream at 16 kHz.

    No library can save the state of its stream. Therefore a resampler stores the end of its input, from which another
    one can resume.
    """

    def push(self, samples: Waveform) -> Waveform:
        """Add samples, and return the samples at 16 kHz that they complete; there may be none."""

    def flush(self) -> Waveform:
        """End the stream, and return its last samples."""

    def recent(self) -> Waveform:
        """Return a copy of the last input samples, as many as :meth:`resume` needs."""

    def resume(self, taken: int, given: int, recent: Waveform) -> None:
        """Continue the stream of another resampler; this one must be new.

        Args:
            taken: number of input samples of the other resampler.
            given: number of samples that it had returned.
            recent: result of its :meth:`recent`.

        Raises:
            SettingsError: the arguments do not fit together.
        """


def make_resampler(sample_rate: int, name: ResamplerName = "soxr", block: int = 1 << 16) -> Resampler:
    """Create a resampler from ``sample_rate`` to 16 kHz for one stream.

    Args:
        sample_rate: hertz; 16 kHz needs no library, and the samples are returned unchanged.
        name: name of the library; see :data:`ResamplerName`.
        block: number of samples that resampy and torchaudio, which resample whole signals only, process at a time.
            Small blocks return samples sooner, and take more time.

    Raises:
        MissingDependencyError: the library is not installed, or cannot be loaded.
        SettingsError: the library cannot convert from this rate.
    """
    if sample_rate == c.SAMPLE_RATE:
        return _Identity()
    if check_resampler(name) == "soxr":
        return _Soxr(sample_rate)
    if name == "resampy":
        return _resampy(sample_rate, block)
    return _torchaudio(sample_rate, block)


def _ratio(sample_rate: int) -> tuple[int, int]:
    """Return the ratio of input to output samples in lowest terms."""
    divisor = math.gcd(sample_rate, c.SAMPLE_RATE)
    return sample_rate // divisor, c.SAMPLE_RATE // divisor


def _misfit() -> SettingsError:
    return SettingsError("the stream's state does not fit together; it is damaged, or of another rate or resampler")


class _Identity:
    def push(self, samples: Waveform) -> Waveform:
        return samples

    def flush(self) -> Waveform:
        return np.zeros(0)

    def recent(self) -> Waveform:
        return np.zeros(0)

    def resume(self, taken: int, given: int, recent: Waveform) -> None:
        if taken != given or len(recent):
            raise _misfit()


class _Soxr:
    """Stream of soxr, with the end of its input, from which the next samples can be computed again.

    A new stream whose input starts at a multiple of the ratio's period returns the same samples, except within the
    filter's reach of its start, and up to rounding (soxr's HQ computes in float32).
    """

    def __init__(self, sample_rate: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(sample_rate, c.SAMPLE_RATE, 1, dtype="float64", quality="HQ")
        self._period, self._out_period = _ratio(sample_rate)
        self._reach = math.ceil(_SOXR_REACH * max(1.0, sample_rate / c.SAMPLE_RATE))
        self._recent: deque[Waveform] = deque()
        self._start = 0  # position of the recent samples in the input
        self._taken = 0
        self._given = 0
        self._ready = np.zeros(0)  # samples of a resumed stream that were not returned yet
        self._passed = 0  # number of samples that a resumed stream returns a second time

    def push(self, samples: Waveform) -> Waveform:
        resampled = self._give(self._stream.resample_chunk(samples))
        self._keep(samples)
        return resampled

    def flush(self) -> Waveform:
        return self._give(self._stream.resample_chunk(np.zeros(0), last=True))

    def _give(self, resampled: Waveform) -> Waveform:
        passed = min(self._passed, len(resampled))
        self._passed -= passed
        resampled = np.concatenate([self._ready, resampled[passed:]])
        self._ready = np.zeros(0)
        self._given += len(resampled)
        return resampled

    def _keep(self, samples: Waveform) -> None:
        first = self._needed()
        while self._recent and self._start + len(self._recent[0]) <= first:
            self._start += len(self._recent.popleft())
        if not self._recent:
            self._start = max(first, self._taken)
        if len(new := samples[max(0, first - self._taken) :]):
            self._recent.append(new.copy())
        self._taken += len(samples)

    def _needed(self) -> int:
        """Return the position from which input is needed for the next samples, less twice the filter's reach."""
        position = self._given * self._period // self._out_period - 2 * self._reach
        return max(0, position // self._period * self._period)

    def recent(self) -> Waveform:
        return np.concatenate([np.zeros(0), *self._recent])[self._needed() - self._start :]

    def resume(self, taken: int, given: int, recent: Waveform) -> None:
        start = taken - len(recent)
        self._given = given
        if start != self._needed() or given * self._period > taken * self._out_period:
            raise _misfit()
        resampled = self._stream.resample_chunk(recent)
        passed = given - start // self._period * self._out_period
        self._passed, self._ready = max(0, passed - len(resampled)), resampled[passed:]
        self._recent, self._start, self._taken = deque([recent.copy()]), start, taken


class _Blockwise:
    """Stream of blocks for a library that resamples whole signals only.

    The rates' ratio repeats every ``period`` input samples, and an output sample depends on no input further away
    than ``reach``. So a block that starts at a multiple of the period, with that much context on both sides, gives
    exactly the samples of the whole signal.
    """

    def __init__(self, sample_rate: int, block: int, reach: int, resample: Callable[[Waveform], Waveform]) -> None:
        self._period, self._out_period = _ratio(sample_rate)
        self._context = -(-reach // self._period) * self._period
        self._block = max(1, block // self._period) * self._period
        self._resample = resample
        self._pending = np.zeros(0)
        self._left = 0  # number of pending samples that are context on the left

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

    def recent(self) -> Waveform:
        return self._pending.copy()

    def resume(self, taken: int, given: int, recent: Waveform) -> None:
        blocks, rest = divmod(given * self._period, self._block * self._out_period)
        self._left = min(blocks * self._block, self._context)
        if rest or taken - len(recent) != blocks * self._block - self._left:
            raise _misfit()
        self._pending = recent.copy()

    def _cut(self, resampled: Waveform, block: int | None) -> Waveform:
        first = self._left // self._period * self._out_period
        last = None if block is None else first + block // self._period * self._out_period
        return resampled[first:last]


def _resampy(sample_rate: int, block: int) -> Resampler:
    resampy = require("resampy", 'resampler="resampy"')

    def resample(samples: Waveform) -> Waveform:
        if len(samples) * c.SAMPLE_RATE < sample_rate:
            return np.zeros(0)  # resampy refuses signals that give no sample
        resampled: Waveform = resampy.resample(samples, sample_rate, c.SAMPLE_RATE, filter="kaiser_best")
        return resampled

    # kaiser_best has 64 zero crossings on each side, at the lower of the two rates; one sample for interpolation.
    reach = math.ceil(64 * max(1.0, sample_rate / c.SAMPLE_RATE)) + 1
    return _Blockwise(sample_rate, block, reach, resample)


def _torchaudio(sample_rate: int, block: int) -> Resampler:
    functional = require("torchaudio", 'resampler="torchaudio"').functional
    import torch

    period, out_period = _ratio(sample_rate)
    if period * out_period > _MAX_TORCHAUDIO_TAPS:
        raise SettingsError(
            f'resampler="torchaudio" would need gigabytes of filters from {sample_rate} Hz, as the rate shares no '
            'large divisor with 16000; use resampler="soxr"'
        )

    def resample(samples: Waveform) -> Waveform:
        resampled = functional.resample(torch.from_numpy(np.ascontiguousarray(samples)), sample_rate, c.SAMPLE_RATE)
        array: Waveform = resampled.numpy()
        return array

    # lowpass_filter_width=6 zero crossings at 0.99 of the lower rate; the filter bank reaches one period further.
    reach = math.ceil(6 / 0.99 * max(1.0, sample_rate / c.SAMPLE_RATE)) + 1 + period
    return _Blockwise(sample_rate, block, reach, resample)
