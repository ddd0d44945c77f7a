"""A file as a decoder is to see it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

_BUFFER_BYTES = 1 << 16
_MAX_POSITION = 1 << 62


@contextmanager
def from_start(file: BinaryIO) -> Iterator[int]:
    """A file at its start, for a block, which gets its size in bytes; afterwards it stands where it stood.

    Args:
        file: a seekable binary file.
    """
    position = file.tell()
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        yield size
    finally:
        file.seek(position)


class View(io.RawIOBase):
    """Reads a file of someone else's: from its present position on, possibly with a few bytes replaced.

    Args:
        file: a seekable binary file; closing the view leaves it open.
        offset: where bytes are replaced.
        replacement: the bytes.

    Attributes:
        padded_length: None, or how long the file is to look; behind its real end come zeros.
    """

    def __init__(self, file: BinaryIO, offset: int = 0, replacement: bytes = b"") -> None:
        self.padded_length: int | None = None
        self._file = file
        self._start = file.tell()
        self._length = max(0, file.seek(0, os.SEEK_END) - self._start)
        self._position = 0
        self._offset = offset
        self._replacement = replacement

    @property
    def plain(self) -> bool:
        """Whether it shows the file just as it is."""
        return self._start == 0 and not self._replacement and self.padded_length is None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As in :class:`io.IOBase`."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += self._length if self.padded_length is None else self.padded_length
        self._position = min(max(0, offset), _MAX_POSITION)  # decoders of damaged files seek anywhere
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As in :class:`io.RawIOBase`."""
        data = self._read(len(buffer))
        start = self._position
        for index, byte in enumerate(self._replacement, self._offset - start):
            if 0 <= index < len(data):
                data[index] = byte
        if self.padded_length is not None:
            data += bytes(min(len(buffer), max(0, self.padded_length - start)) - len(data))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, size: int) -> bytearray:
        if self._position >= self._length:
            return bytearray()
        try:
            self._file.seek(self._start + self._position)
            data = bytearray(self._file.read(size))
        except Exception as error:  # zlib.error, say, from a member of an archive
            raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error
        if len(data) > size:
            raise OSError(f"read({size}) gave {len(data)} bytes")
        return data


class QuietView(View):
    """A view for callbacks from C, which cannot raise: an error is kept, and looks like the file's end.

    Attributes:
        error: what reading raised first; None if nothing.
    """

    error: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        """As in :class:`io.RawIOBase`."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.error = self.error or error
            return 0


def buffered(view: View) -> BinaryIO:
    """The view with a buffer; closing it leaves the file underneath open."""
    return io.BufferedReader(view, _BUFFER_BYTES)
