"""Reading NumPy's arrays from a stream, block by block: nothing unpickled, nothing allocated on a header's word."""

from __future__ import annotations

from collections.abc import Iterator
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 23
_MAX_HEADER = 10_000


class NpyReader:
    """An array in a stream, such as an ``.npy`` file or an entry of an ``.npz`` file.

    Args:
        stream: positioned at the array's start.

    Attributes:
        shape: of the array.
        dtype: of its values.

    Raises:
        ValueError: no array, or one of Python objects or in column-major order.
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
        except (SyntaxError, TokenError):  # NumPy parses it as Python's literals
            raise ValueError("a damaged header") from None
        if dtype.hasobject:
            raise ValueError("an array of Python objects, which only pickle could read")
        if column_major and len(shape) > 1:
            raise ValueError("an array in column-major order; save it with numpy.ascontiguousarray")
        if min(shape, default=0) < 0 or not dtype.itemsize:
            raise ValueError(f"an array of shape {shape} and type {dtype}")
        self.shape: tuple[int, ...] = shape
        self.dtype: np.dtype[Any] = dtype

    def blocks(self, rows: int | None = None) -> Iterator[NDArray[Any]]:
        """The array in blocks along its first dimension.

        Args:
            rows: of a block; None chooses.

        Raises:
            ValueError: the stream ends before the array does, or a row is larger than a block.
        """
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

    def whole(self, max_bytes: int) -> NDArray[Any]:
        """The array at once.

        Raises:
            ValueError: it is larger than ``max_bytes``, or not all there.
        """
        size = self.dtype.itemsize * int(np.prod(self.shape, dtype=object))
        if size > max_bytes:
            raise ValueError(f"an array of {size} bytes, where {max_bytes} at most are expected")
        data = self._stream.read(size)
        if len(data) != size:
            raise ValueError(f"an array that ends after {len(data)} of {size} bytes")
        return np.frombuffer(data, self.dtype).reshape(self.shape)
