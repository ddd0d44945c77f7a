"""Reader of NumPy arrays in a stream, block by block.

``numpy.load`` reads a whole array into memory, as large as its header says. Here nothing is unpickled, and no more
than a block is allocated before its bytes were read.
"""

from __future__ import annotations

from collections.abc import Iterator
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 23
_MAX_HEADER = 10_000


class NpyReader:
    """Array in a stream, such as an ``.npy`` file or an entry of an ``.npz`` file.

    Args:
        stream: binary stream at the array's start.

    Attributes:
        shape: shape of the array.
        dtype: type of its values.

    Raises:
        ValueError: the stream holds no array, or one of Python objects.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        version = np.lib.format.read_magic(stream)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"unknown version {version[0]}.{version[1]} of the format")
        try:
            shape, column_major, dtype = readers[version](stream, max_header_size=_MAX_HEADER)
        except (SyntaxError, TokenError):  # NumPy parses headers as Python literals
            raise ValueError("a damaged header") from None
        if dtype.hasobject:
            raise ValueError("an array of Python objects, which only pickle could read")
        if min(shape, default=0) < 0 or not dtype.itemsize:
            raise ValueError(f"an array of shape {shape} and type {dtype}")
        self.shape: tuple[int, ...] = shape
        self.dtype: np.dtype[Any] = dtype
        self._column_major = column_major and len(shape) > 1

    def blocks(self, rows: int | None = None) -> Iterator[NDArray[Any]]:
        """Yield the array in blocks along its first dimension.

        Args:
            rows: rows in a block; None for blocks of 8 MiB.

        Raises:
            ValueError: the stream ends before the array does, a row is larger than 8 MiB, or the array is in
                column-major order.
        """
        self._check_order()
        count, *rest = self.shape
        row_bytes = self.dtype.itemsize * int(np.prod(rest, dtype=object))
        if row_bytes > _BLOCK_BYTES:
            raise ValueError(f"a row of {row_bytes} bytes, which is no embedding")
        rows = rows or max(1, _BLOCK_BYTES // max(1, row_bytes))
        for first in range(0, count, rows):
            taken = min(rows, count - first)
            data = self._stream.read(taken * row_bytes)
            if len(data) != taken * row_bytes:
                raise ValueError(f"an array of {count} rows that ends in row {first + len(data) // row_bytes}")
            yield np.frombuffer(data, self.dtype).reshape(taken, *rest)

    def whole(self, max_bytes: int, *, column_major: bool = False) -> NDArray[Any]:
        """Return the whole array.

        Args:
            max_bytes: limit on its size.
            column_major: True accepts an array in column-major order.

        Raises:
            ValueError: the array is larger than ``max_bytes``, the stream ends before it does, or the array is in
                column-major order.
        """
        if not column_major:
            self._check_order()
        size = self.dtype.itemsize * int(np.prod(self.shape, dtype=object))
        if size > max_bytes:
            raise ValueError(f"an array of {size} bytes, where {max_bytes} at most are expected")
        data = self._stream.read(size)
        if len(data) != size:
            raise ValueError(f"an array that ends after {len(data)} of {size} bytes")
        return np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self._column_major else "C")

    def _check_order(self) -> None:
        if self._column_major:
            raise ValueError("an array in column-major order; save it with numpy.ascontiguousarray")
