"""Resampling to 16 kHz, piece by piece, with the result of doing it in one go.

Resamplers are not interchangeable: between two good ones, VGGish embeddings differ in the second digit, because the
log-mel front end hears what is left near the edge of the pass band. So the choice is named, and recorded with outputs.
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
``functional.resample``, as the torchaudio port of VGGish has it."""

# The largest filter bank that torchaudio may build (it grows with the product of the rates over their common divisor).
_MAX_TORCHAUDIO_TAPS = 1 << 25

# How far a sample that soxr's HQ gives may lie from those it depends on, in samples of the lower rate: beyond 97, an
# impulse is heard no more (at 1e-7).
_SOXR_REACH = 100


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
    """Turns a stream of samples at one rate into a stream at 16 kHz.

    No library can save the state of its stream. So a resampler knows the end of its input, from which another one can
    go on.
    """

    def push(self, samples: Waveform) -> Waveform:
        """Takes the next samples, returns those at 16 kHz that they settle; may be none."""

    def flush(self) -> Waveform:
        """Ends the stream, returns the rest."""

    def recent(self) -> Waveform:
        """The last samples that came in, as many as :meth:`resume` needs; a copy."""

    def resume(self, taken: int, given: int, recent: Waveform) -> None:
        """Puts a fresh resampler where another one was.

        Args:
            taken: how many samples that one had taken.
            given: how many it had given.
            recent: its :meth:`recent`.

        Raises:
            SettingsError: the three cannot belong together.
        """


def make_resampler(sample_rate: int, name: ResamplerName = "soxr", block: int = 1 << 16) -> Resampler:
    """A resampler from ``sample_rate`` to 16 kHz for one stream.

    Args:
        sample_rate: hertz.
        name: which library; see :data:`ResamplerName`. At 16 kHz none is needed and the samples pass unchanged.
        block: how many samples at a time a library gets that does whole signals only (resampy, torchaudio): small
            blocks give their samples sooner, and cost more.

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
    """So many samples in give so many out, in the smallest whole numbers."""
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
    """soxr's own stream, and as much of the end of its input as settles what it has not given yet.

    A new stream that is fed from a multiple of the ratio's period on gives the same samples, but for its filter's reach
    at the beginning and for rounding (soxr's HQ computes in float32).
    """

    def __init__(self, sample_rate: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(sample_rate, c.SAMPLE_RATE, 1, dtype="float64", quality="HQ")
        self._period, self._out_period = _ratio(sample_rate)
        self._reach = math.ceil(_SOXR_REACH * max(1.0, sample_rate / c.SAMPLE_RATE))
        self._recent: deque[Waveform] = deque()
        self._start = 0  # where in the input the recent samples start
        self._taken = 0
        self._given = 0
        self._ready = np.zeros(0)  # given by the new stream, but not yet by the resampler
        self._passed = 0  # to be given by the new stream once more

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
        """Where the input starts that settles the samples not given yet, with twice the filter's reach before it."""
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
    """Streams a resampler that only does whole signals.

    The rates' ratio repeats every ``period`` input samples, and an output sample depends on no input further away
    than ``reach``. So a block that starts at a multiple of the period, with that much context on both sides, gives the
    very samples of the whole signal.
    """

    def __init__(self, sample_rate: int, block: int, reach: int, resample: Callable[[Waveform], Waveform]) -> None:
        self._period, self._out_period = _ratio(sample_rate)
        self._context = -(-reach // self._period) * self._period
        self._block = max(1, block // self._period) * self._period
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
