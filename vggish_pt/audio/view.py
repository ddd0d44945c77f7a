"""Views of a file: selected byte ranges, joined with bytes that replace others, as a file for a decoder."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, BinaryIO, TypeAlias

from vggish_pt.utils.fileobj import ReadOnlyFile

_BUFFER_BYTES = 1 << 16
_CACHE_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 16

Part: TypeAlias = "tuple[int, int] | bytes"
"""A range of a file, from the first byte to the one after the last, or bytes that stand in its place."""


@contextmanager
def from_start(file: BinaryIO) -> Iterator[int]:
    """Place a file at its start for the duration of a block, and restore its position afterwards.

    Args:
        file: a seekable binary file.

    Yields:
        The size of the file in bytes.
    """
    position = file.tell()
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        yield size
    finally:
        file.seek(position)


def _read_at(file: BinaryIO, position: int, size: int) -> bytes:
    try:
        file.seek(position)
        data = file.read(size)
    except Exception as error:  # zlib.error, say, from a member of an archive
        raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error
    if len(data) > size:
        raise OSError(f"read({size}) gave {len(data)} bytes")
    return data


class Scanner:
    """Random access to the bytes of a file, for parsers of its structure. Holds a few hundred kilobytes at a time.

    Args:
        file: a seekable binary file.

    Attributes:
        size: bytes in the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._start = 0
        self._data = b""

    def read(self, position: int, count: int) -> bytes:
        """Return ``count`` bytes from ``position``, or fewer at the end of the file.

        Raises:
            OSError: the file cannot be read.
        """
        offset = position - self._start
        if offset < 0 or offset + count > len(self._data):
            if position >= self.size or count <= 0:
                return b""
            chunks: list[bytes] = []
            missing = max(count, min(_CACHE_BYTES, self.size - position))
            while missing > 0 and (chunk := _read_at(self._file, position, missing)):
                chunks.append(chunk)
                position += len(chunk)
                missing -= len(chunk)
            self._data = b"".join(chunks)
            self._start, offset = position - len(self._data), 0
        return self._data[offset : offset + count]

    def blocks(self, start: int, end: int, overlap: int) -> Iterator[tuple[int, bytes]]:
        """Iterate over a range of the file in order.

        Args:
            start: first byte.
            end: the byte after the last.
            overlap: bytes of each block that the next one repeats.

        Yields:
            The position of each block and its bytes.
        """
        while start < end:
            data = self.read(start, min(_BLOCK_BYTES, end - start))
            if not data:
                return
            yield start, data
            if start + len(data) >= end:
                return
            start += max(1, len(data) - overlap)


class View(ReadOnlyFile):
    """View of selected parts of a file, as a decoder should see it.

    Args:
        file: a seekable binary file; closing the view leaves it open.
        parts: byte ranges of the file, and bytes that stand between them; None for the file from its present position.

    Attributes:
        padded_length: size in bytes that the view reports, with zeros after the real end; None for the real size.
        furthest: the position after the last byte that was read.
        plain: True if the view shows the whole file unchanged.
    """

    def __init__(self, file: BinaryIO, parts: Sequence[Part] | None = None) -> None:
        self._file = file
        start = file.tell()
        end = file.seek(0, os.SEEK_END)
        self._parts: list[Part] = [(start, max(start, end))] if parts is None else list(parts)
        self._starts = [0, *accumulate(map(_length, self._parts))]
        super().__init__(self._starts[-1])
        self.plain = self._parts == [(0, end)]
        self.padded_length: int | None = None
        self.furthest = 0

    @property
    def size(self) -> int:
        """Size of the view in bytes, zeros at its end included."""
        return self._size if self.padded_length is None else self.padded_length

    def read_at(self, position: int, size: int) -> bytes:
        """Return at most ``size`` bytes from ``position`` on.

        Raises:
            OSError: the file cannot be read.
        """
        data = self._read(position, size)
        self.furthest = max(self.furthest, position + len(data))
        if self.padded_length is not None and position + len(data) >= self._size:
            data += bytes(max(0, min(size, self.padded_length - position) - len(data)))
        return data

    def _read(self, position: int, size: int) -> bytes:
        data = b""
        while len(data) < size and position < self._size:
            index = bisect_right(self._starts, position) - 1
            part, offset = self._parts[index], position - self._starts[index]
            if isinstance(part, bytes):
                chunk = part[offset : offset + size - len(data)]
            else:
                wanted = min(size - len(data), part[1] - part[0] - offset)
                chunk = _read_at(self._file, part[0] + offset, wanted)
                if len(chunk) < wanted:
                    return data + chunk
            data += chunk
            position += len(chunk)
        return data


def _length(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part[1] - part[0]


class QuietView(View):
    """A view for callbacks from C, which cannot raise: an error is stored, and looks like the end of the file.

    Attributes:
        error: the first error that reading raised; None if there was none.
    """

    error: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer and return their number, 0 after an error."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.error = self.error or error
            return 0


def buffered(view: View) -> BinaryIO:
    """Return the view with a buffer. Closing it leaves the underlying file open."""
    return io.BufferedReader(view, _BUFFER_BYTES)
