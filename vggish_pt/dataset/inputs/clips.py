"""Inputs of a data set, each once and in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.inputs.files import Spelling
from vggish_pt.dataset.inputs.locations import LocalFiles
from vggish_pt.dataset.inputs.table import ClipTable
from vggish_pt.errors import AudioError
from vggish_pt.utils.text import display_name

if TYPE_CHECKING:
    import pyarrow as pa


class Clips:
    """Inputs of a data set, as :func:`vggish_pt.dataset.find_clips` finds them.

    Iterating yields one :class:`~vggish_pt.audio.Clip` at a time, and can be repeated.

    Attributes:
        failures: each name that leads to no input, with the error that gives the reason.
        skipped: number of files that a search found and left out, because their endings are not those of audio.
        duplicates: number of inputs that were named again and dropped.
        columns: names and types of the columns that clips carry, a ``pyarrow.Schema``.
        segments: True if clips may be parts of files.
    """

    def __init__(self) -> None:
        self.failures: list[tuple[str, AudioError]] = []
        self.skipped = 0
        self.duplicates = 0
        self.segments = False
        self.table = ClipTable()
        self._duplicates: NDArray[np.int64] = np.zeros(0, np.int64)  # their rows in the table, ascending
        self._total = 0

    @property
    def columns(self) -> pa.Schema:
        """Names and types of the columns that clips carry."""
        return self.table.columns

    def __len__(self) -> int:
        return self._total - len(self._duplicates)

    def __iter__(self) -> Iterator[Clip]:
        duplicates = iter(self._duplicates.tolist())
        duplicate, index = next(duplicates, -1), 0
        for number, (location, row, start, end, columns) in enumerate(self.table.rows()):
            if number == duplicate:
                duplicate = next(duplicates, -1)
                continue
            yield Clip(row.path, index, location.source(row), start, end, columns)
            index += 1

    @property
    def notes(self) -> list[str]:
        """Messages for the user about files that were left out on purpose."""
        counts = [
            (self.skipped, "files skipped, because their endings are not those of audio"),
            (self.duplicates, "inputs named more than once; each is processed once"),
        ]
        return [f"{count} {what}" for count, what in counts if count]

    def fail(self, name: str, reason: str) -> None:
        """Record a name that leads to no input."""
        label = display_name(name)
        self.failures.append((name, AudioError(f"{label}: {reason}", label)))

    def finish(self) -> Clips:
        """Choose the types of columns and find duplicates, after all inputs were added; return the clips.

        Raises:
            SettingsError: columns of one name have types that cannot be unified.
        """
        self.table.finish()
        self._find_duplicates()
        return self

    def _find_duplicates(self) -> None:
        """Find rows with the key of an earlier row, and rows of a local file of an earlier row in another spelling."""
        keys, files, spelling = bytearray(), bytearray(), Spelling()  # 16 bytes a row
        for number, (location, row, start, end, columns) in enumerate(self.table.rows()):
            keys += Clip(row.path, start=start, end=end, columns=columns).key
            if isinstance(location, LocalFiles):
                files += keys[len(files) : 16 * number]  # other kinds of inputs are compared by their keys
                identity = "\0".join(spelling.identity(row.path)).encode("utf-8", "surrogateescape")
                files += hashlib.blake2b(identity, digest_size=16).digest()
        self._total = len(keys) // 16
        duplicate = _seen_before(keys)
        if files:
            duplicate |= _seen_before(files + keys[len(files) :])
        self._duplicates = np.flatnonzero(duplicate)
        self.duplicates = len(self._duplicates)


def _seen_before(keys: bytearray) -> NDArray[np.bool_]:
    """Return for each key of 16 bytes True if an earlier key is equal: (n,) bool."""
    halves = np.frombuffer(keys, np.uint64)[::2]
    order = np.argsort(halves, kind="stable")
    equal = halves[order[1:]] == halves[order[:-1]]
    duplicate = np.zeros(len(halves), bool)
    seen: set[bytes] = set()  # only keys whose first half occurs more than once
    for number in np.union1d(order[1:][equal], order[:-1][equal]).tolist():
        key = bytes(keys[16 * number : 16 * number + 16])
        duplicate[number] = key in seen
        seen.add(key)
    return duplicate
