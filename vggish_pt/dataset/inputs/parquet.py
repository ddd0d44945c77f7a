"""Parquet with sound in it, as the Hub's ``datasets`` stores it: a column of structs of ``bytes`` and ``path``.

The sound is read when it is wanted, a few rows at a time, and in order at no more cost than once; the other columns are
carried along.
"""

from __future__ import annotations

import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, BinaryIO

from vggish_pt.audio import display_name
from vggish_pt.dataset.inputs.clips import Clips
from vggish_pt.dataset.inputs.columns import (
    MAX_COLUMNS,
    TAKEN,
    check_carried,
    is_text,
    one_line,
    open_parquet,
    plain_type,
    row_lists,
)
from vggish_pt.dataset.inputs.manifest import open_file
from vggish_pt.dataset.inputs.table import ClipRow, Group
from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.utils.remote import is_address, local_path, redacted

if TYPE_CHECKING:
    import pyarrow as pa

_SOUND_ROWS = 1  # read at a time: one long sound that a dictionary repeats would fill any memory
_ROWS = 64
_OPEN_READERS = 4


@dataclass(frozen=True)
class Sound:
    """A sound in a Parquet file; an :class:`~vggish_pt.audio.clip.Opener`.

    Attributes:
        file: path or address of the Parquet.
        column: the column of structs.
        group: its row group.
        row: its row there.
    """

    file: str = field(repr=False)
    column: str
    group: int
    row: int

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file; see :class:`~vggish_pt.audio.clip.Opener`."""
        with io.BytesIO(self.fetch()) as file:
            yield file

    def fetch(self) -> bytes:
        """Its bytes. Whoever shares sounds among processes does well to fetch them first: in order, each is read once.

        Raises:
            AudioError: they cannot be had.
        """
        label = display_name(redacted(self.file))
        data = _readers.take(self)
        if data is None:
            raise AudioError(f"{label}: row {self.row} of row group {self.group} holds no bytes of audio", label)
        return data


class _Reader:
    """Reads a column of a row group from its start, going on where it was."""

    def __init__(self, sound: Sound) -> None:
        self._file = open_file(sound.file)
        try:
            table, _ = open_parquet(self._file, display_name(redacted(sound.file)))
            self._batches = table.iter_batches(_SOUND_ROWS, [sound.group], [f"{sound.column}.bytes"], use_threads=False)
        except BaseException:
            self._file.close()
            raise
        self._start = 0
        self._values: Any = None

    def take(self, row: int) -> bytes | None:
        """The bytes of a row; a LookupError if it was passed."""
        if row < self._start:
            raise LookupError
        while self._values is None or row >= self._start + len(self._values):
            self._start += 0 if self._values is None else len(self._values)
            batch = next(self._batches, None)
            if batch is None:
                raise ValueError("it has fewer rows than before")
            self._values = batch.column(0).field("bytes")
        value: bytes | None = self._values[row - self._start].as_py()
        return value

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class _Readers:
    """The last few readers of this process, as neighbours are mostly wanted one after the other."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Starts afresh: after a fork, as files that the parent opened are read from where it is."""
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[object, ...], _Reader] = OrderedDict()

    def take(self, sound: Sound) -> bytes | None:
        """The bytes of a sound; None if there are none."""
        key = (_identity(sound.file), sound.column, sound.group)
        label = display_name(redacted(sound.file))
        with self._lock:
            reader = self._open.pop(key, None)
            try:
                if reader is not None:
                    try:
                        return self._keep(key, reader, sound.row)
                    except LookupError:
                        reader.close()
                return self._keep(key, _Reader(sound), sound.row)
            except (AudioError, SettingsError):
                raise
            except Exception as error:  # pyarrow raises many kinds for damage
                raise AudioError(f"{label}: cannot be read ({one_line(error)})", label) from None

    def _keep(self, key: tuple[object, ...], reader: _Reader, row: int) -> bytes | None:
        data = reader.take(row)
        self._open[key] = reader
        if len(self._open) > _OPEN_READERS:
            self._open.popitem(last=False)[1].close()
        return data


def _identity(file: str) -> object:
    """What changes when a file does."""
    if is_address(file):
        return file
    try:
        found = os.stat(local_path(file))  # noqa: PTH116
    except (OSError, ValueError):
        return file  # opening it says what is wrong
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


_readers = _Readers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_readers.forget)


@dataclass(frozen=True)
class Sounds:
    """A Parquet file as a place of inputs.

    Attributes:
        file: its path or address.
        column: the column of sounds.
    """

    file: str
    column: str

    def source(self, kept: ClipRow) -> Sound:
        """The sound at a row of a row group."""
        return Sound(self.file, self.column, kept.size, kept.offset)


def sound_column(schema: pa.Schema, name: str) -> str | None:
    """The column of sounds; None if there is none.

    Args:
        schema: of the Parquet file.
        name: how errors call it.

    Raises:
        SettingsError: there are several, and none is called "audio".
    """
    import pyarrow as pa

    def holds_sound(kind: pa.DataType) -> bool:
        kind = plain_type(kind)
        if not pa.types.is_struct(kind) or {"bytes", "path"} - {part.name for part in kind}:
            return False
        data = kind.field("bytes").type
        return bool(pa.types.is_binary(data) or pa.types.is_large_binary(data))

    found = [field.name for field in schema if holds_sound(field.type)]
    said = [column for column in found if column in _said_audio(schema.metadata)]
    found = said or found
    if len(found) > 1 and "audio" not in found:
        raise SettingsError(f"{name}: several columns hold sounds ({', '.join(found)}); call the one to use 'audio'")
    return "audio" if "audio" in found else found[0] if found else None


def _said_audio(metadata: dict[bytes, bytes] | None) -> set[str]:
    """The columns of which ``datasets`` says that they are audio, and not pictures, say."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name for name, said in features.items() if said.get("_type") == "Audio"}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()


def add_sounds(name: str, column: str, items: Clips) -> None:
    """Adds the sounds of a Parquet file.

    Args:
        name: its path or address.
        column: the column of sounds.
        items: where to.

    Raises:
        AudioError: it cannot be opened.
        SettingsError: its columns cannot be carried.
    """
    import pyarrow as pa

    label = redacted(name)
    with open_file(name) as file:
        table, schema = open_parquet(file, display_name(label))
        if len(schema.names) > MAX_COLUMNS:
            raise SettingsError(f"{display_name(label)}: {len(schema.names)} columns; at most {MAX_COLUMNS}")
        others = [other for other in schema.names if other != column]
        titles = [f"source_{other}" if other in ("path", "start", "end", *TAKEN) else other for other in others]
        check_carried(display_name(label), titles)
        kinds = [plain_type(schema.field(other).type) for other in others]
        carried = pa.schema(list(zip(titles, kinds, strict=True)))
        group = items.store.group(carried, display_name(label)).at(Sounds(name, column))
        try:
            named = _named(table, schema, column)
            _add_rows(table, group, f"{label}::", column, (others, titles), named)
        except (AudioError, SettingsError):
            raise
        except Exception as error:  # pyarrow raises many kinds for damage
            items.fail(label, f"cannot be read from here on ({one_line(error)})")


def _named(table: Any, schema: pa.Schema, column: str) -> bool:
    """Whether each row has a name of its own."""
    kind = plain_type(schema.field(column).type)
    if not is_text(kind.field("path").type):
        return False
    seen: set[int] = set()
    for batch in table.iter_batches(_ROWS, columns=[f"{column}.path"]):
        for columns in row_lists(batch):
            for struct in columns[column]:
                name = struct and struct["path"]
                if not name or hash(name) in seen:
                    return False
                seen.add(hash(name))
    return bool(seen)


def _add_rows(
    table: Any, group: Group, prefix: str, column: str, columns: tuple[list[str], list[str]], named: bool
) -> None:
    others, titles = columns
    count = 0
    wanted = [*others, f"{column}.path"]
    for number in range(table.num_row_groups):
        row = 0
        for batch in table.iter_batches(_ROWS, [number], wanted):
            for values in row_lists(batch):
                structs = values.pop(column)
                carried = zip(*(values[other] for other in others), strict=True) if others else repeat(())
                for struct, of_row in zip(structs, carried, strict=False):
                    path = prefix + (struct["path"] if named else str(count))
                    group.add(ClipRow(path, None, row, number), columns=dict(zip(titles, of_row, strict=True)))
                    row += 1
                    count += 1
