"""Base class of read-only, seekable file objects."""

from __future__ import annotations

import io
import os
from typing import Any

_MAX_POSITION = 1 << 62


class ReadOnlyFile(io.RawIOBase):
    """Read-only file object that keeps the position; subclasses implement :meth:`read_at`.

    Args:
        size: bytes in the file.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._size

    def read_at(self, position: int, size: int) -> bytes | bytearray:
        """Return at most ``size`` bytes from ``position`` on; none at the end of the file."""
        raise NotImplementedError

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, as :meth:`io.IOBase.seek`; a target before the file's start means the start."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = min(max(0, base + offset), _MAX_POSITION)  # decoders of damaged files seek anywhere
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, as :meth:`io.RawIOBase.readinto`."""
        data = self.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
