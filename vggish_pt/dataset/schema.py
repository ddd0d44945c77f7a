"""What goes into an output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vggish_pt.audio.clip import Clip

RESERVED = ("path", "window", "start", "end", "embedding", "segment_start", "segment_end")
"""Columns of every output, which none of a manifest's may be called."""


@dataclass(frozen=True)
class Rows:
    """Rows of one input.

    Attributes:
        path: the input.
        window: (n,) int32, index of each window; 0 where the row stands for the whole input.
        start: (n,) float64 seconds.
        end: (n,) float64 seconds.
        embedding: (n, ...) float32 or uint8.
        columns: what else is known of the input, by name; the same for each of its rows.
        duration: seconds of audio that the input held.
    """

    path: str
    window: NDArray[np.int32]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    embedding: NDArray[Any]
    columns: Mapping[str, Any] = field(default_factory=dict)
    duration: float = 0.0

    def __len__(self) -> int:
        return len(self.window)


@dataclass(frozen=True)
class Failure:
    """An input that is not in the output.

    Attributes:
        path: the input.
        reason: one line.
        type: name of the exception's class.
        item: the input itself; None where a name led to no input.
    """

    path: str
    reason: str
    type: str
    item: Clip | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Schema:
    """What the rows of an output are.

    Attributes:
        shape: of one row's embedding.
        dtype: "float32" or "uint8".
        metadata: what made the embeddings; JSON types.
        columns: a ``pyarrow.Schema`` of the columns beside the usual ones; None for none.
    """

    shape: tuple[int, ...]
    dtype: str
    metadata: dict[str, Any]
    columns: Any = None

    @property
    def size(self) -> int:
        """How many values a row's embedding has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def row_bytes(self) -> int:
        """How many bytes they take."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def extra(self) -> list[Any]:
        """The columns beside the usual ones, as ``pyarrow.Field``."""
        return [] if self.columns is None else list(self.columns)


class Writer(Protocol):
    """Writes a format's files into the folder that it was made for, under their final names."""

    def write(self, rows: Rows) -> None:
        """Adds rows of one input."""

    def complete(self) -> None:
        """Writes what is still missing and closes the files."""

    def close(self) -> None:
        """Closes the files, complete or not."""
