"""The inputs of a data set, each once and in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio import display_name
from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.inputs.files import Spelling
from vggish_pt.dataset.inputs.table import ClipRow, ClipTable, StoredClip
from vggish_pt.errors import AudioError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class OnDisk:
    """Files by their own paths."""

    def source(self, kept: ClipRow) -> None:
        """None: the path is enough."""


class Clips:
    """The inputs of a data set, as :func:`vggish_pt.dataset.inputs.find_clips` finds them.

    It can be iterated as often as needed, and gives an :class:`~vggish_pt.audio.clip.Clip` at a time.

    Attributes:
        failures: each thing named that leads to no input, and the error that says why.
        skipped: how many files were met in a search whose ending is not one of audio.
        duplicates: how often an input was met again; each is kept once.
        columns: names and types of the columns that items carry, a ``pyarrow.Schema``.
        segments: whether items may be parts of files.
    """

    def __init__(self) -> None:
        self.failures: list[tuple[str, AudioError]] = []
        self.skipped = 0
        self.duplicates = 0
        self.segments = False
        self.store = ClipTable()
        self._repeats: NDArray[np.int64] = np.zeros(0, np.int64)
        self._total = 0

    @property
    def columns(self) -> pa.Schema:
        """See the class."""
        return self.store.columns

    def __len__(self) -> int:
        return self._total - len(self._repeats)

    def __iter__(self) -> Iterator[Clip]:
        repeats = iter(self._repeats.tolist())
        skip, index = next(repeats, -1), 0
        for number, row in enumerate(self.store.rows()):
            if number == skip:
                skip = next(repeats, -1)
                continue
            yield _item(index, row)
            index += 1

    @property
    def notes(self) -> list[str]:
        """What a user should hear of files that were left out on purpose."""
        told = [
            (self.skipped, "files passed over, as their endings are not audio"),
            (self.duplicates, "files named more than once; each is done once"),
        ]
        return [f"{count} {what}" for count, what in told if count]

    def fail(self, name: str, reason: str) -> None:
        """Notes something named that leads to no input."""
        label = display_name(name)
        self.failures.append((name, AudioError(f"{label}: {reason}", label)))

    def finish(self) -> Clips:
        """Settles types and finds duplicates inputs, once all have been added.

        Raises:
            SettingsError: columns of one name and different types.
        """
        self.store.settle()
        self._find_repeats()
        return self

    def _find_repeats(self) -> None:
        """Two rows are the same input if their keys are, or if they are one file, spelled in two ways."""
        keys, files, spelling = bytearray(), bytearray(), Spelling()
        for number, row in enumerate(self.store.rows()):
            item = _item(0, row)
            keys += item.key
            if isinstance(row.place, OnDisk):
                files += keys[len(files) : 16 * number]  # those before it are told by their keys
                told = "\0".join(spelling.identity(item.path)).encode("utf-8", "surrogateescape")
                files += hashlib.blake2b(told, digest_size=16).digest()
        self._total = len(keys) // 16
        again = _again(keys)
        if files:
            again |= _again(files + keys[len(files) :])
        self._repeats = np.flatnonzero(again)
        self.duplicates = len(self._repeats)


def _item(index: int, row: StoredClip) -> Clip:
    return Clip(row.kept.path, index, row.place.source(row.kept), row.start, row.end, row.columns)


def _again(keys: bytearray) -> NDArray[np.bool_]:
    """Which keys of 16 bytes stood before already."""
    halves = np.frombuffer(keys, np.uint64)[::2]
    order = np.argsort(halves, kind="stable")
    alike = halves[order[1:]] == halves[order[:-1]]
    again = np.zeros(len(halves), bool)
    seen: set[bytes] = set()  # few: only those of which half a key is that of another
    for number in np.union1d(order[1:][alike], order[:-1][alike]).tolist():
        key = bytes(keys[16 * number : 16 * number + 16])
        again[number] = key in seen
        seen.add(key)
    return again
