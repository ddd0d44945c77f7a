"""Views of files for decoders."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from vggish_pt.utils.fileobj import ReadOnlyFile

_BUFFER_BYTES = 1 << 16


@contextmanager
def from_start(file: BinaryIO) -> Iterator[int]:
    """Move a file to its start for the block, yield its size in bytes, and restore its position afterwards.

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


class View(ReadOnlyFile):
    """View of an open file from its present position on, with a few bytes replaced if wanted.

    Args:
        file: a seekable binary file; closing the view leaves it open.
        offset: position in the view of the bytes to replace.
        replacement: the bytes to show there.

    Attributes:
        padded_length: size in bytes that the view reports, with zeros behind the file's real end; None for the real
            size.
    """

    def __init__(self, file: BinaryIO, offset: int = 0, replacement: bytes = b"") -> None:
        self._file = file
        self._start = file.tell()
        super().__init__(max(0, file.seek(0, os.SEEK_END) - self._start))
        self.padded_length: int | None = None
        self._offset = offset
        self._replacement = replacement

    @property
    def size(self) -> int:
        """Size of the view in bytes, zeros at its end included."""
        return self._size if self.padded_length is None else self.padded_length

    @property
    def plain(self) -> bool:
        """True if the view shows the file unchanged."""
        return self._start == 0 and not self._replacement and self.padded_length is None

    def read_at(self, position: int, size: int) -> bytearray:
        """Return at most ``size`` bytes from ``position`` on.

        Raises:
            OSError: the file cannot be read.
        """
        data = self._read(position, size)
        for index, byte in enumerate(self._replacement, self._offset - position):
            if 0 <= index < len(data):
                data[index] = byte
        if self.padded_length is not None:
            data += bytes(min(size, max(0, self.padded_length - position)) - len(data))
        return data

    def _read(self, position: int, size: int) -> bytearray:
        if position >= self._size:
            return bytearray()
        try:
            self._file.seek(self._start + position)
            data = bytearray(self._file.read(size))
        except Exception as error:  # zlib.error, for example, from a member of an archive
            raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error
        if len(data) > size:
            raise OSError(f"read({size}) gave {len(data)} bytes")
        return data


class QuietView(View):
    """View for callbacks from C, which cannot raise: an error is stored and looks like the end of the file.

    Attributes:
        error: the first error of reading; None if there was none.
    """

    error: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return 0 after an error."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.error = self.error or error
            return 0


def buffered(view: View) -> BinaryIO:
    """Return the view with a read buffer; closing it leaves the underlying file open."""
    return io.BufferedReader(view, _BUFFER_BYTES)
