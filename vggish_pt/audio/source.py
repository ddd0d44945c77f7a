"""Reading of audio: a path, file object, bytes, array or tensor → blocks of one channel at the source's own rate.

Integers are scaled as in the reference (int16 by 1/32768) and channels are averaged, both in float64. Only one block of
a file is in memory at a time.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.clip import Opener, source_name
from vggish_pt.audio.decoder import BLOCK_VALUES, MIN_BLOCK_FRAMES, Decoder, Samples
from vggish_pt.audio.file import open_file
from vggish_pt.audio.raw import RawFormat, open_raw
from vggish_pt.audio.resample import Waveform
from vggish_pt.audio.samples import (
    LevelCheck,
    as_array,
    channels_first,
    check_format,
    mono,
    scaled,
    warn_of_mistakes,
    whole_rate,
)
from vggish_pt.audio.segment import Segment
from vggish_pt.audio.view import View, buffered
from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.utils.text import display_name as display_name

if TYPE_CHECKING:
    import torch

AudioLike: TypeAlias = Union[
    str, "os.PathLike[str]", bytes, bytearray, memoryview, BinaryIO, NDArray[Any], "torch.Tensor", Mapping[str, Any]
]
"""Source of audio: a path, the bytes of an audio file, a binary file object, an array, a tensor, or a row
of the library ``datasets``."""


class _FileOptions(NamedTuple):
    """Settings of a file that do not matter for arrays."""

    allow_truncated: bool
    track: int
    raw: RawFormat | None
    seconds: float | None


class Audio:
    """Opened audio, or a part of it: a context manager whose :meth:`blocks` yields the samples.

    Attributes:
        name: name of the source in errors.
        sample_rate: hertz.
        channels: number of channels, before they are averaged.
        frames: samples per channel of the whole source according to its header; None if it does not give them.
        container: name of the file format, or "array".
        encoding: name of the codec, sample format or dtype.
        decoded: samples per channel that :meth:`blocks` has yielded so far.
    """

    def __init__(self, name: str, decoder: Decoder[Samples], part: Segment | None = None) -> None:
        self.name = name
        self._decoder = decoder
        self.sample_rate = decoder.sample_rate
        self.channels = decoder.channels
        self.frames = decoder.frames
        self.container = decoder.container
        self.encoding = decoder.encoding
        self.decoded = 0
        self._part = part or Segment()
        try:
            check_format(name, self.sample_rate, self.channels)
        except AudioError:
            self.close()
            raise

    def blocks(self) -> Iterator[Waveform]:
        """Yield the samples; this is possible once.

        Yields:
            (n,) float64, the mean of the channels.

        Raises:
            AudioError: damaged, empty or non-finite audio, or a part that begins after its end.
        """
        level = LevelCheck(self.name, self.sample_rate)
        for position, block in self._part.blocks(self._decoder, self.name):
            level.check(block, position)
            self.decoded += len(block)
            yield mono(block)
        if self.decoded == 0:
            raise AudioError(f"{self.name}: no samples in it; the audio is empty", self.name)

    def close(self) -> None:
        """Release the source."""
        self._decoder.close()

    def __enter__(self) -> Audio:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_audio(
    source: AudioLike | Opener,
    sample_rate: float | None = None,
    *,
    name: str | None = None,
    allow_truncated: bool = False,
    start: float | None = None,
    end: float | None = None,
    track: int = 0,
    raw: RawFormat | None = None,
) -> Audio:
    """Open audio of any kind, or a part of it.

    The samples of a part are ``x[round(start * rate):round(end * rate)]`` for the samples ``x`` of the whole. If the
    format allows it, samples before the part are skipped without decoding. Samples after it are never read.

    Args:
        source: a path, bytes of an audio file, a binary file object (read to its end if it can't seek; left open),
            or an array or tensor (T,) or (channels, T), floating point in [-1, 1] or integer PCM (int8, int16,
            int32, or uint8 centred on 128). A row of
            the library ``datasets`` is read as its ``array`` and ``sampling_rate``, its ``bytes``, or its ``path``.
            An :class:`~vggish_pt.audio.clip.Opener` is opened, and closed at the end.
        sample_rate: hertz; required for arrays and tensors, not allowed for other sources.
        name: name of the source in errors; None for the path, or "bytes", "array" and the like.
        allow_truncated: True reads the readable samples of a truncated or damaged file, with an :class:`AudioWarning`.
        start: start of the part in seconds; None for the beginning.
        end: end of the part in seconds; None for the end. If the source ends earlier, the part ends there, with an
            :class:`AudioWarning` if more than 0.1 s is missing.
        track: number of the audio track of a video, from 0.
        raw: format of the samples of a file without a header; None for files with a header.

    Raises:
        AudioError: the source is missing, unreadable, empty, damaged, or not audio. A part after the end of the source
            is an error when its blocks are read.
        SettingsError: a sample rate that is missing, not allowed or not a positive whole number; an array of
            another shape or type; a part that begins before 0 or ends before it begins.
    """
    part = Segment(start, end)
    options = _FileOptions(allow_truncated, track, raw, part.end)
    if isinstance(source, Mapping):
        source, sample_rate, name = _from_row(source, sample_rate, name)
    array = as_array(source)
    if array is not None:
        return Audio(name or "array", _open_array(array, sample_rate, name or "array"), part)
    if isinstance(source, Opener) and not hasattr(source, "read") and not isinstance(source, os.PathLike):
        if sample_rate is not None:
            raise SettingsError("sample_rate is for arrays and tensors; a file has its own, so leave it out")
        return _open_opener(source, name or "file", options, part)
    if not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) and not hasattr(source, "read"):
        raise SettingsError(
            f"cannot embed a {type(source).__name__}; give a path, bytes, a binary file object, an array or a tensor"
        )
    if sample_rate is not None:
        raise SettingsError("sample_rate is for arrays and tensors; a file has its own, so leave it out")
    label = name or source_name(source)
    if isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        return _decoded(_open_path(path, label), path, label, options, part)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decoded(io.BytesIO(source), None, label, options, part)
    return _decoded(_seekable(source, label), None, label, options, part)


def _from_row(row: Mapping[str, Any], sample_rate: float | None, name: str | None) -> tuple[Any, Any, str | None]:
    """Return the audio in a row of the library ``datasets``, its sample rate if it is an array, and its name."""
    path = row.get("path")
    name = name or (display_name(path) if isinstance(path, str) and path else None)
    if row.get("array") is not None:
        rate = row.get("sampling_rate", sample_rate)
        if sample_rate is not None and rate != sample_rate:
            raise SettingsError(f"{name or 'array'}: sample_rate is {sample_rate}, but the row says {rate}")
        return np.asarray(row["array"]), rate, name
    if row.get("bytes") is not None:
        return row["bytes"], sample_rate, name
    if isinstance(path, str | os.PathLike):
        return path, sample_rate, name
    raise SettingsError(
        "cannot embed this mapping: no row of datasets with an 'array', 'bytes' or a 'path'; give a path, bytes, "
        "a binary file object, an array or a tensor"
    )


def _open_opener(opener: Opener, name: str, options: _FileOptions, part: Segment) -> Audio:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(opener.open())
        except OSError as error:
            raise AudioError(f"{name}: cannot be opened ({error.strerror or error})", name) from error
        decoder = _decoded_file(file, None, name, options)
        close, held = decoder.close, stack.pop_all()

        def close_both() -> None:
            with held:
                close()

        decoder.close = close_both
        return Audio(name, decoder, part)


def _decoded(file: BinaryIO, path: Path | None, name: str, options: _FileOptions, part: Segment) -> Audio:
    return Audio(name, _decoded_file(file, path, name, options), part)


def _decoded_file(file: BinaryIO, path: Path | None, name: str, options: _FileOptions) -> Decoder[Samples]:
    try:
        if options.raw is not None:
            return open_raw(file, options.raw, name)
        allowed, track, seconds = options.allow_truncated, options.track, options.seconds
        return open_file(file, path, name, allow_truncated=allowed, track=track, seconds=seconds)
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


def _open_array(array: NDArray[Any], sample_rate: float | None, name: str) -> Decoder[Samples]:
    if sample_rate is None:
        raise SettingsError(f"{name}: an array needs its sample rate; pass sample_rate=, in hertz")
    rate = whole_rate(sample_rate)
    array = channels_first(array, name)
    warn_of_mistakes(array, rate, name)
    return Decoder(rate, len(array), array.shape[1], "array", array.dtype.name, _array_blocks(array), lambda: None)


def _array_blocks(array: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    size = max(MIN_BLOCK_FRAMES, BLOCK_VALUES // len(array))
    for start in range(0, array.shape[1], size):
        yield scaled(array[:, start : start + size])
