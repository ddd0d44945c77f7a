"""Samples in memory: checks of arrays and values, and scaling."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.errors import AudioError, AudioWarning, SettingsError

# Below the first rate, no frequency reaches the lowest mel band. No microphone has a rate above the second, but a
# hostile header may.
MIN_SAMPLE_RATE = int(2 * c.MEL_MIN_HZ)
MAX_SAMPLE_RATE = 3_072_000
MAX_CHANNELS = 1024

# Full scale is 1. Decoders exceed it a little; integers that were cast to float without scaling exceed it by far.
_WARN_LEVEL = 64.0
_MAX_LEVEL = 1e6

# The peak of 16-bit samples that were divided by 32,768 twice.
_TWICE_DIVIDED = 1 / 32768
_MANY_CHANNELS = 8
_CANCELLED = 1e-3  # of the loudest channel
_CHECK_SAMPLES = 1 << 16

_INTEGER_SCALES = {"int8": 1 << 7, "int16": 1 << 15, "int32": 1 << 31, "uint8": 1 << 7}


def check_format(name: str, sample_rate: int, channels: int) -> None:
    """Check that a sample rate and a number of channels are allowed.

    Raises:
        AudioError: one is not allowed; the message contains ``name``.
    """
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{name}: a sample rate of {sample_rate} Hz; it must be from {MIN_SAMPLE_RATE} Hz "
            f"(below, nothing reaches VGGish's lowest band) to {MAX_SAMPLE_RATE} Hz",
            name,
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: {channels} channels; there must be from 1 to {MAX_CHANNELS}", name)


def whole_rate(sample_rate: float) -> int:
    """Return a sample rate as an integer.

    Raises:
        SettingsError: the rate is not a positive whole number.
    """
    try:
        rate = int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        raise SettingsError(f"sample_rate must be a number of hertz, not {sample_rate!r}") from None
    if rate != sample_rate or rate < 1:
        raise SettingsError(f"sample_rate must be a whole positive number of hertz, not {sample_rate!r}")
    return rate


def as_array(source: Any) -> NDArray[Any] | None:
    """Return an array unchanged, a tensor as an array, and None for other sources.

    A tensor keeps its precision if NumPy has it; bfloat16 and float16 become float32.

    Raises:
        SettingsError: the values of a tensor cannot be read (sparse, quantised, without data).
    """
    if isinstance(source, np.ndarray):
        return np.asarray(source)
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported it
    if torch is not None and isinstance(source, torch.Tensor):
        narrow = source.is_floating_point() and source.element_size() <= 2  # NumPy has no bfloat16
        try:
            return np.asarray((source.float() if narrow else source).numpy(force=True))
        except (RuntimeError, TypeError) as error:
            raise SettingsError(f"cannot embed this tensor ({str(error).splitlines()[0]}); give a plain one") from None
    return None


def channels_first(array: NDArray[Any], name: str, *, trusted: bool = False) -> NDArray[Any]:
    """Return audio samples as an array (channels, T).

    Args:
        array: (T,) or (channels, T), floating point in [-1, 1], int8, int16, int32, or uint8 centred on 128.
        name: name of the array in errors.
        trusted: False refuses a shape that looks like (T, channels).

    Raises:
        SettingsError: another shape or type.
    """
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2:
        raise SettingsError(f"{name}: an array must be (T,) or (channels, T), not {array.shape}")
    if not trusted and array.shape[0] > array.shape[1] > 0 and array.shape[0] > 32:
        raise SettingsError(
            f"{name}: an array must be (channels, T), and {array.shape} looks like (T, channels); pass its transpose"
        )
    if array.shape[0] == 0:
        array = array.reshape(1, 0)
    if array.dtype.kind != "f" and array.dtype.name not in _INTEGER_SCALES:
        raise SettingsError(
            f"{name}: arrays must be floating point in [-1, 1], int8, int16, int32 or uint8, not {array.dtype}"
        )
    return array


def scaled(array: NDArray[Any]) -> NDArray[np.float64]:
    """Scale as the reference does: int16 by 1/32768, other integers likewise; floating point is not scaled.

    Args:
        array: (channels, T), of a type that :func:`channels_first` accepts.

    Returns:
        (T, channels) float64, a copy.
    """
    block = array.T.astype(np.float64)
    if array.dtype.name == "uint8":
        block -= 128.0
    scale = _INTEGER_SCALES.get(array.dtype.name)
    return block if scale is None else block / scale


def warn_of_mistakes(array: NDArray[Any], sample_rate: int, name: str) -> None:
    """Warn of an array that is probably not what the caller meant.

    Args:
        array: (channels, T), of a type that :func:`channels_first` accepts.
        sample_rate: hertz.
        name: name of the array in warnings.
    """
    if not array.size:
        return
    peak = max(float(array.max()), -float(array.min()))
    channels, length = array.shape
    if array.dtype.name == "int32" and 0 < peak <= _INTEGER_SCALES["int16"]:
        _warn(f"{name}: int32 samples that reach only {peak:.0f} look like values of int16; pass them as int16")
    elif array.dtype.kind == "f" and 0 < peak <= _TWICE_DIVIDED:
        _warn(f"{name}: samples that reach only {peak:.2g} look divided by their full scale twice")
    if channels > _MANY_CHANNELS and length >= sample_rate / 2:
        _warn(f"{name}: {channels} channels are averaged; if they are {channels} clips, pass a list of them")
    elif 1 < channels <= _MANY_CHANNELS and peak > 0 and array.dtype.kind == "f":
        sums = _peak_of_mean(array)
        if sums < _CANCELLED * peak:
            _warn(f"{name}: the channels cancel each other when they are averaged; pass one of them alone")


def _peak_of_mean(array: NDArray[Any]) -> float:
    return max(
        float(np.abs(array[:, at : at + _CHECK_SAMPLES].astype(np.float64).mean(axis=0)).max())
        for at in range(0, array.shape[1], _CHECK_SAMPLES)
    )


def _warn(message: str) -> None:
    warnings.warn(message, AudioWarning, stacklevel=4)


class LevelCheck:
    """Check of levels: it refuses samples that are not audio, and warns once of samples that were probably not scaled.

    Args:
        name: name of the source in errors.
        sample_rate: hertz.
    """

    def __init__(self, name: str, sample_rate: int) -> None:
        self._name = name
        self._sample_rate = sample_rate
        self._warned = False

    def check(self, block: NDArray[np.float64], position: int) -> None:
        """Check a block.

        Args:
            block: (T, channels).
            position: number of samples per channel before the block.

        Raises:
            AudioError: non-finite samples (the message has their position), or a level far beyond full scale.
        """
        level = float(np.maximum(block.max(), -block.min())) if block.size else 0.0
        if not level <= _MAX_LEVEL:
            self._refuse(block, level, position)
        if level > _WARN_LEVEL and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._name}: samples reach {level:.6g}, but full scale is 1; integers cast to float must be "
                "divided by their full scale (32768 for int16)",
                AudioWarning,
                stacklevel=3,
            )

    def _refuse(self, block: NDArray[np.float64], level: float, position: int) -> None:
        finite = np.isfinite(block)
        if finite.all():
            raise AudioError(
                f"{self._name}: samples reach {level:.3g}, but full scale is 1; divide integers by their full scale",
                self._name,
            )
        frame, channel = (int(i) for i in np.argwhere(~finite)[0])
        position += frame
        raise AudioError(
            f"{self._name}: a sample that is {block[frame, channel]} at {position / self._sample_rate:.6f} s "
            f"(sample {position}, channel {channel}); audio must be finite",
            self._name,
        )


def mono(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the mean of the channels: (T, channels) → (T,)."""
    if block.shape[1] == 1:
        return block[:, 0]
    mean: NDArray[np.float64] = block[:, 0].copy()  # NumPy's mean along so short an axis takes ten times as long
    for channel in range(1, block.shape[1]):
        mean += block[:, channel]
    mean /= block.shape[1]
    return mean
