"""What a WAV file's header promises, and how to read one whose writer never learnt its length.

A program that writes WAV into a pipe cannot go back to fill in the length, so it leaves 0 or the largest number that
fits. libsndfile reads the latter to the end of the file, takes the former for no audio, and silently reads a file that
was cut short up to where it ends. All three are told apart here.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

# arecord writes 2 GiB, sox and espeak-ng a little less, ffmpeg 4 GiB - 1: at or above this a length is no promise.
_UNKNOWN_LENGTH = 0x7FFF_0000
_MAX_CHUNKS = 10_000


@dataclass(frozen=True)
class DataChunk:
    """The ``data`` chunk of a WAV file.

    Attributes:
        declared: its length in bytes according to the header.
        available: how many bytes the file really has from its start.
        length_offset: where in the file the declared length stands.
    """

    declared: int
    available: int
    length_offset: int

    @property
    def truncated(self) -> bool:
        """Whether the file ends before the audio that the header promises."""
        return self.available < self.declared < _UNKNOWN_LENGTH

    @property
    def zero_length(self) -> bool:
        """Whether the header says 0 although there is audio."""
        return self.declared == 0 and self.available > 0


def find_data(file: BinaryIO) -> DataChunk | None:
    """Finds the ``data`` chunk of a RIFF/WAVE file; None if there is none or it is no such file.

    Args:
        file: a seekable binary file; its position is restored.
    """
    position = file.tell()
    try:
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(0)
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        offset = 12
        for _ in range(_MAX_CHUNKS):
            file.seek(offset)
            header = file.read(8)
            if len(header) < 8:
                return None
            length = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                available = size - offset - 8
                if length == 0 and _is_chunk(file.read(8), available):
                    available = 0  # no audio, and other chunks behind it
                return DataChunk(length, available, offset + 4)
            offset += 8 + length + (length & 1)
        return None
    finally:
        file.seek(position)


def _is_chunk(header: bytes, available: int) -> bool:
    if len(header) < 8 or not all(32 <= byte < 127 for byte in header[:4]):
        return False
    return int.from_bytes(header[4:], "little") <= available - 8


class Overlay(io.RawIOBase):
    """A read-only file with some bytes replaced.

    Args:
        file: a seekable binary file.
        offset: where the replacement starts.
        replacement: the bytes.
    """

    def __init__(self, file: BinaryIO, offset: int, replacement: bytes) -> None:
        self._file = file
        self._offset = offset
        self._replacement = replacement

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As in :class:`io.IOBase`."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As in :class:`io.IOBase`."""
        return self._file.tell()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As in :class:`io.RawIOBase`."""
        start = self._file.tell()
        data = bytearray(self._file.read(len(buffer)))
        for index, byte in enumerate(self._replacement, self._offset - start):
            if 0 <= index < len(data):
                data[index] = byte
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the file underneath."""
        self._file.close()
        super().close()


def with_length(file: BinaryIO, chunk: DataChunk) -> Overlay:
    """The same file with the length of its ``data`` chunk as it really is (up to what the field holds)."""
    return Overlay(file, chunk.length_offset, struct.pack("<I", min(chunk.available, 0xFFFF_FFFF)))
