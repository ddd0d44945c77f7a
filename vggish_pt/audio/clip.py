"""What is to be embedded: a file or a part of one, wherever it lies, with what a manifest says about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, runtime_checkable

from vggish_pt.utils.text import path_text as path_text


@runtime_checkable
class Opener(Protocol):
    """Says how to open something that is no local file. It can be pickled, as workers are the ones who open."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The bytes of an audio file, as a file that can seek.

        Raises:
            AudioError: it cannot be had.
        """


@dataclass(frozen=True)
class Clip:
    """One input.

    Attributes:
        path: how outputs call it: the file's path, address, or ``shard.tar::member``.
        index: its place among the inputs.
        source: where to read it; None for the local file ``path``.
        start: seconds into the file at which the part to embed begins; None for the file's beginning.
        end: seconds at which it ends; None for the file's end.
        columns: what else a manifest says of it, by name; goes into the output.
    """

    path: str
    index: int = 0
    source: str | bytes | Opener | None = None
    start: float | None = None
    end: float | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        """16 bytes that tell this input from any other: of its path, its part and its columns, not of its place."""
        told = [path_text(self.path), self.start, self.end, dict(self.columns)]
        return hashlib.blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=16).digest()
