"""Reader of Parquet files that contain audio, as the Hub's ``datasets`` stores it: structs of ``bytes`` and ``path``.

Audio is read when a clip is opened. Reading clips in order reads each row group once. Other columns are carried.
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

from vggish_pt.dataset.inputs.clips import Clips
from vggish_pt.dataset.inputs.columns import (
    MAX_COLUMNS,
    TAKEN,
    check_carried,
    is_text,
    open_parquet,
    plain_type,
    row_lists,
)
from vggish_pt.dataset.inputs.locations import open_file
from vggish_pt.dataset.inputs.table import ClipRow, Group
from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.utils.remote import is_address, local_path, redacted
from vggish_pt.utils.text import display_name, first_line

if TYPE_CHECKING:
    import pyarrow as pa

_AUDIO_ROWS = 1  # rows read at a time: a dictionary may repeat one long recording in each
_ROWS = 64
_OPEN_READERS = 4


@dataclass(frozen=True)
class ParquetAudio:
    """Audio file in a row of a Parquet file; an :class:`~vggish_pt.audio.clip.Opener`.

    Attributes:
        file: path or address of the Parquet file.
        column: name of the column of structs.
        group: number of the row group.
        row: number of the row in the group.
    """

    file: str = field(repr=False)
    column: str
    group: int
    row: int

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the audio file, as :meth:`vggish_pt.audio.clip.Opener.open`."""
        with io.BytesIO(self.fetch()) as file:
            yield file

    def fetch(self) -> bytes:
        """Return the bytes of the audio file.

        Rows that are fetched in order, in one process, are read once each. Before sending rows to several processes,
        fetch their bytes.

        Raises:
            AudioError: the Parquet file cannot be read, or the row holds no bytes.
        """
        label = display_name(redacted(self.file))
        data = _readers.read(self)
        if data is None:
            raise AudioError(f"{label}: row {self.row} of row group {self.group} holds no bytes of audio", label)
        return data


class _Reader:
    """Sequential reader of the audio column in one row group."""

    def __init__(self, audio: ParquetAudio) -> None:
        self._file = open_file(audio.file)
        try:
            table, _ = open_parquet(self._file, display_name(redacted(audio.file)))
            self._batches = table.iter_batches(_AUDIO_ROWS, [audio.group], [f"{audio.column}.bytes"], use_threads=False)
        except BaseException:
            self._file.close()
            raise
        self._start = 0
        self._values: Any = None

    def read(self, row: int) -> bytes | None:
        """Return the bytes of a row.

        Raises:
            LookupError: the reader is behind this row already.
        """
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
        """Close the file."""
        self._file.close()


class _Readers:
    """Cache of the last few readers of this process, since rows are mostly read in order."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all readers: after a fork, parent and child would share the positions of open files."""
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[object, ...], _Reader] = OrderedDict()

    def read(self, audio: ParquetAudio) -> bytes | None:
        """Return the bytes of a row; None if it holds none."""
        key = (_version(audio.file), audio.column, audio.group)
        label = display_name(redacted(audio.file))
        with self._lock:
            reader = self._open.pop(key, None)
            try:
                if reader is not None:
                    try:
                        return self._read(key, reader, audio.row)
                    except LookupError:
                        reader.close()
                return self._read(key, _Reader(audio), audio.row)
            except (AudioError, SettingsError):
                raise
            except Exception as error:  # pyarrow raises errors of many types for damaged files
                raise AudioError(f"{label}: cannot be read ({first_line(error)})", label) from None

    def _read(self, key: tuple[object, ...], reader: _Reader, row: int) -> bytes | None:
        data = reader.read(row)
        self._open[key] = reader
        if len(self._open) > _OPEN_READERS:
            self._open.popitem(last=False)[1].close()
        return data


def _version(file: str) -> object:
    """Return a value that changes when the file is replaced or written."""
    if is_address(file):
        return file
    try:
        status = os.stat(local_path(file))  # noqa: PTH116
    except (OSError, ValueError):
        return file  # opening it reports the error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


_readers = _Readers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_readers.clear)


@dataclass(frozen=True)
class ParquetFile:
    """Parquet file as a location of inputs.

    Attributes:
        file: path or address of the file.
        column: name of the column of audio.
    """

    file: str
    column: str

    def source(self, row: ClipRow) -> ParquetAudio:
        """Return the audio file at a row of a row group."""
        return ParquetAudio(self.file, self.column, row.size, row.offset)


def audio_column(schema: pa.Schema, name: str) -> str | None:
    """Return the name of the column of audio; None if the file has none.

    Args:
        schema: schema of the Parquet file.
        name: name of the file in errors.

    Raises:
        SettingsError: several columns hold audio, and none is called "audio".
    """
    import pyarrow as pa

    def holds_audio(kind: pa.DataType) -> bool:
        kind = plain_type(kind)
        if not pa.types.is_struct(kind) or {"bytes", "path"} - {part.name for part in kind}:
            return False
        data = kind.field("bytes").type
        return bool(pa.types.is_binary(data) or pa.types.is_large_binary(data))

    columns = [field.name for field in schema if holds_audio(field.type)]
    declared = _declared_audio(schema.metadata)
    columns = [column for column in columns if column in declared] or columns
    if len(columns) > 1 and "audio" not in columns:
        raise SettingsError(f"{name}: several columns hold audio ({', '.join(columns)}); call the one to use 'audio'")
    return "audio" if "audio" in columns else columns[0] if columns else None


def _declared_audio(metadata: dict[bytes, bytes] | None) -> set[str]:
    """Return the columns that ``datasets`` declares as audio; images are stored in the same structs."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name for name, feature in features.items() if feature.get("_type") == "Audio"}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()


def add_audio_rows(name: str, column: str, clips: Clips) -> None:
    """Add the rows of a Parquet file with audio.

    Args:
        name: path or address of the file.
        column: name of the column of audio.
        clips: clips to add them to.

    Raises:
        AudioError: the file cannot be opened.
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
        types = [plain_type(schema.field(other).type) for other in others]
        carried = pa.schema(list(zip(titles, types, strict=True)))
        group = clips.table.group(carried, display_name(label)).at(ParquetFile(name, column))
        try:
            _add_rows(table, group, f"{label}::", column, dict(zip(others, titles, strict=True)))
        except (AudioError, SettingsError):
            raise
        except Exception as error:  # pyarrow raises errors of many types for damaged files
            clips.fail(label, f"cannot be read from here on ({first_line(error)})")


def _has_names(table: Any, column: str) -> bool:
    """Return True if each row has a name of its own."""
    if not is_text(plain_type(table.schema_arrow.field(column).type).field("path").type):
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


def _add_rows(table: Any, group: Group, prefix: str, column: str, titles: dict[str, str]) -> None:
    """Add all rows; ``titles`` are the names of the other columns in outputs, by their names in the file."""
    named, count = _has_names(table, column), 0
    for number in range(table.num_row_groups):
        row = 0
        for batch in table.iter_batches(_ROWS, [number], [*titles, f"{column}.path"]):
            for values in row_lists(batch):
                structs = values.pop(column)
                rows = zip(*(values[other] for other in titles), strict=True) if titles else repeat(())
                for struct, carried in zip(structs, rows, strict=False):
                    path = prefix + (struct["path"] if named else str(count))
                    columns = dict(zip(titles.values(), carried, strict=True))
                    group.add(ClipRow(path, None, row, number), columns=columns)
                    row += 1
                    count += 1
