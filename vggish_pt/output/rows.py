"""What goes into an output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Rows of one input.

    Attributes:
        path: the input.
        window: (n,) int32, index of each window; 0 where the row stands for the whole input.
        start: (n,) float64 seconds.
        end: (n,) float64 seconds.
        embedding: (n, ...) float32 or uint8.
    """

    path: str
    window: NDArray[np.int32]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    embedding: NDArray[Any]

    def __len__(self) -> int:
        return len(self.window)

    def __getitem__(self, part: slice) -> Rows:
        return Rows(self.path, self.window[part], self.start[part], self.end[part], self.embedding[part])


@dataclass(frozen=True)
class Failure:
    """An input that is not in the output.

    Attributes:
        path: the input.
        reason: one line.
        type: name of the exception's class.
    """

    path: str
    reason: str
    type: str


@dataclass(frozen=True)
class Layout:
    """What the rows of an output are.

    Attributes:
        shape: of one row's embedding.
        dtype: "float32" or "uint8".
        metadata: what made the embeddings; JSON types.
    """

    shape: tuple[int, ...]
    dtype: str
    metadata: dict[str, Any]

    @property
    def size(self) -> int:
        """How many values a row's embedding has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def row_bytes(self) -> int:
        """How many bytes they take."""
        return self.size * np.dtype(self.dtype).itemsize


class Writer(Protocol):
    """Writes a format's files into the folder that it was made for, under their final names."""

    def write(self, rows: Rows) -> None:
        """Adds rows of one input."""

    def complete(self) -> None:
        """Writes what is still missing and closes the files."""

    def close(self) -> None:
        """Closes the files, complete or not."""
