"""Audio in: a path, file object, bytes, array or tensor → blocks of one channel at the source's own rate.

Integers are scaled as the reference does (int16 by 1/32768) and channels are averaged, both in float64. Nothing holds
more than a block of a file at a time.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.decode import BLOCK_VALUES, MIN_BLOCK_FRAMES, Decoder, open_file
from vggish_pt.errors import AudioError, AudioWarning, SettingsError
from vggish_pt.resample import Waveform
from vggish_pt.view import View, buffered

if TYPE_CHECKING:
    import torch

AudioLike: TypeAlias = Union[
    str, "os.PathLike[str]", bytes, bytearray, memoryview, BinaryIO, NDArray[Any], "torch.Tensor"
]
"""What can be embedded: a path, the bytes of an audio file, a binary file object, an array or a tensor."""

# Below the first, no frequency reaches the lowest mel band. Above the second lies no microphone, only a hostile header.
MIN_SAMPLE_RATE = int(2 * c.MEL_MIN_HZ)
MAX_SAMPLE_RATE = 3_072_000
MAX_CHANNELS = 1024

# Full scale is 1. Decoders overshoot it a little; integers that were cast to float without scaling, by far.
_WARN_LEVEL = 64.0
_MAX_LEVEL = 1e6

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_INTEGER_SCALES = {"int8": 1 << 7, "int16": 1 << 15, "int32": 1 << 31, "uint8": 1 << 7}


class Audio:
    """Opened audio: a context manager whose :meth:`blocks` gives the samples.

    Attributes:
        name: how errors call it.
        sample_rate: hertz.
        channels: how many, before they are averaged.
        frames: samples per channel that the source promises; None if it does not say.
        container: name of the file format, or "array".
        encoding: name of the codec, sample format or dtype.
        decoded: samples per channel that :meth:`blocks` has given so far.
    """

    def __init__(self, name: str, decoder: Decoder) -> None:
        self.name = name
        self._decoder = decoder
        self.sample_rate = decoder.sample_rate
        self.channels = decoder.channels
        self.frames = decoder.frames
        self.container = decoder.container
        self.encoding = decoder.encoding
        self.decoded = 0
        try:
            self._check_header()
        except AudioError:
            self.close()
            raise

    def _check_header(self) -> None:
        if not MIN_SAMPLE_RATE <= self.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioError(
                f"{self.name}: a sample rate of {self.sample_rate} Hz; it must be from {MIN_SAMPLE_RATE} Hz "
                f"(below, nothing reaches VGGish's lowest band) to {MAX_SAMPLE_RATE} Hz",
                self.name,
            )
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise AudioError(
                f"{self.name}: {self.channels} channels; there must be from 1 to {MAX_CHANNELS}", self.name
            )

    def blocks(self) -> Iterator[Waveform]:
        """Iterates over the samples, once.

        Yields:
            (n,) float64, the mean of the channels.

        Raises:
            AudioError: damaged, empty or non-finite audio.
        """
        warned = False
        for block in self._decoder.blocks:
            level = float(np.abs(block).max()) if block.size else 0.0
            if not level <= _MAX_LEVEL:
                self._refuse(block, level)
            if level > _WARN_LEVEL and not warned:
                warned = True
                warnings.warn(
                    f"{self.name}: samples reach {level:.6g}, but full scale is 1; integers cast to float must be "
                    "divided by their full scale (32768 for int16)",
                    AudioWarning,
                    stacklevel=2,
                )
            self.decoded += len(block)
            yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        if self.decoded == 0:
            raise AudioError(f"{self.name}: no samples in it; the audio is empty", self.name)

    def _refuse(self, block: NDArray[np.float64], level: float) -> None:
        finite = np.isfinite(block)
        if finite.all():
            raise AudioError(
                f"{self.name}: samples reach {level:.3g}, but full scale is 1; divide integers by their full scale",
                self.name,
            )
        frame, channel = (int(i) for i in np.argwhere(~finite)[0])
        position = self.decoded + frame
        raise AudioError(
            f"{self.name}: a sample that is {block[frame, channel]} at {position / self.sample_rate:.6f} s "
            f"(sample {position}, channel {channel}); audio must be finite",
            self.name,
        )

    def close(self) -> None:
        """Releases the source."""
        self._decoder.close()

    def __enter__(self) -> Audio:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_audio(
    source: AudioLike,
    sample_rate: float | None = None,
    *,
    name: str | None = None,
    allow_truncated: bool = False,
) -> Audio:
    """Opens audio of any kind.

    Args:
        source: a path, bytes of an audio file, a binary file object (read to its end if it can't seek; left open),
            or an array or tensor (T,) or (channels, T), floating point in [-1, 1] or integer PCM (int8, int16,
            int32, or uint8 centred on 128).
        sample_rate: hertz; needed for arrays and tensors, not allowed otherwise.
        name: how errors call it; None for the path, or "bytes", "array" and the like.
        allow_truncated: True gives what a truncated or damaged file still holds, with an :class:`AudioWarning`.

    Raises:
        AudioError: missing, unreadable, empty, damaged, or not audio.
        SettingsError: a sample rate that is missing, needless or no whole positive number; an array of
            another shape or type.
    """
    array = _array(source)
    if array is not None:
        return Audio(name or "array", _open_array(array, sample_rate, name or "array"))
    if not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) and not hasattr(source, "read"):
        raise SettingsError(
            f"cannot embed a {type(source).__name__}; give a path, bytes, a binary file object, an array or a tensor"
        )
    if sample_rate is not None:
        raise SettingsError("sample_rate is for arrays and tensors; a file says its own")
    if isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        label = name or display_name(source)
        file = _open_path(path, label)
        return _decoded(file, path, label, allow_truncated)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decoded(io.BytesIO(source), None, name or "bytes", allow_truncated)
    label = name or display_name(getattr(source, "name", None) or "file object")
    return _decoded(_seekable(source, label), None, label, allow_truncated)


def display_name(path: object) -> str:
    """A path as one line of printable text, whatever is in it: control characters and stray bytes are escaped."""
    text = os.fsdecode(path) if isinstance(path, bytes | os.PathLike) else str(path)
    return _UNPRINTABLE.sub(_escape, text) or "''"


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python passes on a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode()


def _decoded(file: BinaryIO, path: Path | None, name: str, allow_truncated: bool) -> Audio:
    try:
        return Audio(name, open_file(file, path, name, allow_truncated=allow_truncated))
    except BaseException as error:
        file.close()
        if isinstance(error, OSError) and not isinstance(error, AudioError):
            raise AudioError(f"{name}: cannot be read ({error.strerror or error})", name) from error
        raise


def _open_path(path: Path, name: str) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{name}: is a folder, not an audio file", name)
        if not stat.S_ISREG(mode):
            raise AudioError(f"{name}: is no regular file; save the audio to a file first, or pass a file object", name)
        return path.open("rb")
    except FileNotFoundError:
        hint = "; addresses are not fetched, download the file first" if "://" in name else ""
        raise AudioError(f"{name}: no such file{hint}", name) from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be opened ({getattr(error, 'strerror', None) or error})", name) from None


def _seekable(file: Any, name: str) -> BinaryIO:
    try:
        data = file.read(0)
        if not isinstance(data, bytes):
            raise SettingsError(f"{name}: the file object gives text; open it in binary mode ('rb')")
        if file.seekable():
            return buffered(View(file))
        spooled = tempfile.SpooledTemporaryFile(max_size=1 << 24)  # noqa: SIM115 (closed by the decoder)
        while chunk := file.read(1 << 20):
            spooled.write(chunk)
        spooled.seek(0)
        return spooled  # type: ignore[return-value]
    except (OSError, AttributeError, ValueError, TypeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise AudioError(f"{name}: the file object cannot be read ({error})", name) from error


def _array(source: Any) -> NDArray[Any] | None:
    if isinstance(source, np.ndarray):
        return np.asarray(source)
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported it
    if torch is not None and isinstance(source, torch.Tensor):
        narrow = source.is_floating_point() and source.element_size() <= 2  # NumPy has no bfloat16
        try:
            return np.asarray((source.float() if narrow else source).numpy(force=True))
        except (RuntimeError, TypeError) as error:  # sparse, quantised, without data
            raise SettingsError(f"cannot embed this tensor ({str(error).splitlines()[0]}); give a plain one") from None
    return None


def _open_array(array: NDArray[Any], sample_rate: float | None, name: str) -> Decoder:
    if sample_rate is None:
        raise SettingsError(f"{name}: an array needs its sample rate; pass sample_rate=, in hertz")
    try:
        rate = int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        raise SettingsError(f"sample_rate must be a number of hertz, not {sample_rate!r}") from None
    if rate != sample_rate or rate < 1:
        raise SettingsError(f"sample_rate must be a whole positive number of hertz, not {sample_rate!r}")
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2:
        raise SettingsError(f"{name}: an array must be (T,) or (channels, T), not {array.shape}")
    if array.shape[0] > array.shape[1] > 0 and array.shape[0] > 32:
        raise SettingsError(
            f"{name}: an array must be (channels, T), and {array.shape} looks like (T, channels); pass its transpose"
        )
    if array.shape[0] == 0:
        array = array.reshape(1, 0)
    if array.dtype.kind != "f" and array.dtype.name not in _INTEGER_SCALES:
        raise SettingsError(
            f"{name}: arrays must be floating point in [-1, 1], int8, int16, int32 or uint8, not {array.dtype}"
        )
    return Decoder(rate, len(array), array.shape[1], "array", array.dtype.name, _array_blocks(array), lambda: None)


def _array_blocks(array: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    size = max(MIN_BLOCK_FRAMES, BLOCK_VALUES // len(array))
    scale = _INTEGER_SCALES.get(array.dtype.name)
    for start in range(0, array.shape[1], size):
        block = array[:, start : start + size].T.astype(np.float64)
        if array.dtype.name == "uint8":
            block -= 128.0
        yield block if scale is None else block / scale
