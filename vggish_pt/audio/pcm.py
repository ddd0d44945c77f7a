"""Reading of raw PCM and WAV from pipes, which cannot seek and whose length is unknown.

Files are read by :mod:`vggish_pt.audio.sndfile`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.riff import UNKNOWN_LENGTH_32
from vggish_pt.errors import AudioError, SettingsError

ENCODINGS = {
    "u8": "|u1",
    "s8": "|i1",
    "s16le": "<i2",
    "s16be": ">i2",
    "s24le": "<i3",
    "s24be": ">i3",
    "s32le": "<i4",
    "s32be": ">i4",
    "f32le": "<f4",
    "f32be": ">f4",
    "f64le": "<f8",
    "f64be": ">f8",
}
"""FFmpeg's names of sample formats, and their NumPy types. NumPy has no type of 24 bits."""

_INTEGER, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_WAV_ENCODINGS = {
    (_INTEGER, 8): "u8",
    (_INTEGER, 16): "s16le",
    (_INTEGER, 24): "s24le",
    (_INTEGER, 32): "s32le",
    (_FLOAT, 32): "f32le",
    (_FLOAT, 64): "f64le",
}
# Broadcast WAVs have text before the samples, but less than this.
_MAX_HEADER = 1 << 22
_UNKNOWN_LENGTH_64 = 1 << 62


def check_encoding(encoding: str) -> str:
    """Return ``encoding`` if it is the name of a sample format.

    Raises:
        SettingsError: it is not.
    """
    if encoding not in ENCODINGS:
        raise SettingsError(f"encoding must be one of {', '.join(ENCODINGS)}, not {encoding!r}")
    return encoding


class Pcm:
    """Parser of interleaved samples: bytes → arrays.

    Args:
        channels: number of channels.
        encoding: one of :data:`ENCODINGS`.
        length: number of bytes with samples; later bytes are ignored. None if all bytes are samples.
    """

    def __init__(self, channels: int, encoding: str, length: int | None = None) -> None:
        self._channels = channels
        self._type = ENCODINGS[check_encoding(encoding)]
        self._frame = channels * int(self._type[2:])
        self._rest = b""
        self._missing = length

    def push(self, data: bytes) -> NDArray[Any]:
        """Add bytes, and return the samples that they complete.

        Returns:
            (channels, n), n from 0, of a type that :meth:`vggish_pt.VGGish.embed` takes.
        """
        if self._missing is not None:
            data = data[: self._missing]
            self._missing -= len(data)
        data = self._rest + data
        used = len(data) - len(data) % self._frame
        self._rest = data[used:]
        values = self._values(data[:used])
        return values.reshape(-1, self._channels).T

    def _values(self, data: bytes) -> NDArray[Any]:
        if self._type[2:] != "3":
            return np.frombuffer(data, self._type)
        # The upper three bytes of 32 bits, so that full scale is the same.
        triples = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(triples), 4), np.uint8)
        wide[:, 1:] = triples if self._type[0] == "<" else triples[:, ::-1]
        return wide.view("<i4")[:, 0]

    def end_problem(self) -> str | None:
        """Return the problem with the end of the stream, after the last :meth:`push`; None if there is none."""
        if self._missing:
            return f"the audio ends {self._missing} bytes before the length in its header"
        if self._rest:
            return f"the last {len(self._rest)} bytes are no whole sample and were left out"
        return None


@dataclass(frozen=True)
class WavHeader:
    """Header of a WAV.

    Attributes:
        sample_rate: hertz.
        channels: number of channels.
        encoding: one of :data:`ENCODINGS`.
        offset: position of the samples in bytes.
        length: size of the samples in bytes; None if the header does not give it, as that of a pipe.
    """

    sample_rate: int
    channels: int
    encoding: str
    offset: int
    length: int | None


def read_wav_header(data: bytes, name: str) -> WavHeader | None:
    """Read the header of a WAV (RIFF, RF64 or BW64).

    Args:
        data: the beginning of the WAV, as far as it has arrived.
        name: name of the WAV in errors.

    Returns:
        The header, or None if more bytes are needed.

    Raises:
        AudioError: the data are no WAV, or their samples are not plain numbers.
    """
    start = data[:4] + data[8:12]
    if not any((form + b"WAVE").startswith(start) for form in (b"RIFF", b"RF64", b"BW64")):
        raise AudioError(
            f"{name}: not a WAV; for raw samples give --sample-rate, --channels and --encoding, and other formats "
            "convert with: ffmpeg -i FILE -f wav -",
            name,
        )
    form: tuple[int, int, str] | None = None
    large: int | None = None  # the length, if it does not fit in 32 bits
    offset = 12
    while offset + 8 <= len(data):
        chunk, length = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "little")
        body = data[offset + 8 : offset + 8 + min(length, 64)]
        if chunk == b"data":
            if form is None:
                raise AudioError(f"{name}: a WAV without a sample format before the samples", name)
            open_ended = length == 0 or length >= UNKNOWN_LENGTH_32
            return WavHeader(*form, offset + 8, large if open_ended else length)
        if offset + 8 + length > _MAX_HEADER:
            raise AudioError(f"{name}: a WAV without samples in its first {_MAX_HEADER >> 20} MB", name)
        if len(body) < min(length, 64):
            break
        if chunk == b"fmt ":
            form = _format(body, name)
        elif chunk == b"ds64":
            size = int.from_bytes(body[8:16], "little")
            large = size if 0 < size < _UNKNOWN_LENGTH_64 else None
        offset += 8 + length + length % 2
    return None


def _format(body: bytes, name: str) -> tuple[int, int, str]:
    kind, channels = int.from_bytes(body[:2], "little"), int.from_bytes(body[2:4], "little")
    sample_rate, bits = int.from_bytes(body[4:8], "little"), int.from_bytes(body[14:16], "little")
    if kind == _EXTENSIBLE:
        kind = int.from_bytes(body[24:26], "little")
    encoding = _WAV_ENCODINGS.get((kind, bits))
    if encoding is None:
        raise AudioError(
            f"{name}: a WAV of format {kind} with {bits} bits; convert it with: ffmpeg -i FILE -c:a pcm_s16le -f wav -",
            name,
        )
    return sample_rate, channels, encoding
