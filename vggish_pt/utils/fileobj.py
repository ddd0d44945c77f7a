"""The frame of a read-only file of known size whose bytes come from somewhere else."""

from __future__ import annotations

import io
import os


class RawFile(io.RawIOBase):
    """Keeps the position; subclasses read from there on, in ``readinto``, and move it.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As in :class:`io.IOBase`."""
        offset += {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, offset)
        return self._position
