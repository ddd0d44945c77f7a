"""Clips, the inputs of the pipeline: files, segments of files or audio in memory, with columns of a manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

from vggish_pt.errors import SettingsError
from vggish_pt.utils.text import display_name
from vggish_pt.utils.text import path_text as path_text

if TYPE_CHECKING:
    from vggish_pt.audio.source import AudioLike


@runtime_checkable
class Opener(Protocol):
    """Opens audio that is not a local file. Worker processes receive it pickled and call :meth:`open` themselves."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Return the bytes of an audio file as a seekable file object.

        Raises:
            AudioError: the audio cannot be read.
        """


def source_name(source: object) -> str:
    """Return the name of a source in messages: its path or its file object's name, else "bytes" or "array"."""
    if isinstance(source, str | os.PathLike):
        return display_name(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return "bytes"
    if hasattr(source, "read"):
        return display_name(getattr(source, "name", None) or "file object")
    return "array"


class _NoSource:
    """Opener for a source of None: a missing value among a caller's sources fails like an input that cannot be read."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        raise SettingsError("cannot embed a NoneType; give a path, bytes, a binary file object, an array or a tensor")


@dataclass(frozen=True)
class Clip:
    """One input: a file, a segment of a file, or audio in memory.

    Attributes:
        path: name of the clip in outputs and messages: the file's path, its address, or ``shard.tar::member``.
        index: position among the inputs, from 0.
        source: what to read; None for the local file ``path``.
        start: seconds into the file at which the segment to embed begins; None for the file's beginning.
        end: seconds at which the segment ends; None for the file's end.
        columns: further columns of the manifest by name; they are written to the output.
        sample_rate: hertz, for a source that is an array or a tensor; else None.
    """

    path: str
    index: int = 0
    source: AudioLike | Opener | None = None
    start: float | None = None
    end: float | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    sample_rate: float | None = None

    @classmethod
    def from_source(cls, source: AudioLike, sample_rate: float | None = None, *, name: str | None = None) -> Clip:
        """Return a clip for one source of :meth:`vggish_pt.VGGish.embed`.

        Args:
            source: path, file object, bytes, array or tensor.
            sample_rate: hertz, for arrays and tensors.
            name: name in messages; None for the source's own name.
        """
        if isinstance(source, str | os.PathLike):
            return cls(os.fsdecode(source), sample_rate=sample_rate)
        return cls(
            name or source_name(source), source=_NoSource() if source is None else source, sample_rate=sample_rate
        )

    @property
    def key(self) -> bytes:
        """Identity of the clip, 16 bytes: a digest of its path, segment and columns, independent of its index."""
        identity = [path_text(self.path), self.start, self.end, dict(self.columns)]
        return hashlib.blake2b(json.dumps(identity, sort_keys=True, default=str).encode(), digest_size=16).digest()

    @property
    def name(self) -> str:
        """Name of the clip in messages: its path as one line of printable text."""
        return display_name(self.path)

    @property
    def audio_source(self) -> AudioLike | Opener:
        """Argument for :func:`vggish_pt.audio.open_audio`: ``source``, or the local file ``path``."""
        return self.path if self.source is None else self.source

    @property
    def has_opener(self) -> bool:
        """True if an :class:`Opener`, possibly of the user's code, opens the clip."""
        return isinstance(self.source, Opener) and not isinstance(self.source, os.PathLike)

    @property
    def nbytes(self) -> int:
        """Memory of the clip's source in bytes: the size of an array, or of an audio file given as bytes."""
        source = self.source
        return len(source) if isinstance(source, bytes | bytearray) else int(getattr(source, "nbytes", 0))

    def at(self, index: int) -> Clip:
        """Return the clip with another index and without its columns, as it is sent to workers."""
        return replace(self, index=index, columns={})
