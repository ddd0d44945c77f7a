"""Compact table of millions of inputs in memory, in chunks of compressed Arrow record batches.

A row of a manifest with paths of 30 characters and one column takes 18 bytes; ``benchmarks/inputs.py`` measures it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vggish_pt.dataset.inputs.columns import storable_type, unify_schemas
from vggish_pt.errors import SettingsError
from vggish_pt.utils.text import first_line

if TYPE_CHECKING:
    import pyarrow as pa

    from vggish_pt.audio.clip import Opener

_CHUNK_ROWS = 4096
_CHUNK_CHARACTERS = 1 << 22  # text in columns at which a chunk of fewer rows is stored
_FIXED = ("location", "path", "address", "offset", "size", "start", "end")
_CARRIED = "carried."  # prefix of the names of other columns in a chunk


class ClipRow(NamedTuple):
    """Name of an input, and its position in its location.

    Attributes:
        path: name in outputs.
        address: address to open; None if it is ``path``.
        offset: first byte in a tar shard, or row in the row group of a Parquet file.
        size: bytes in a tar shard, or row group of a Parquet file.
    """

    path: str
    address: str | None = None
    offset: int = 0
    size: int = 0


class Location(Protocol):
    """Place that holds inputs: local files, addresses, a manifest's folder, a tar shard or a Parquet file."""

    def source(self, row: ClipRow) -> str | Opener | None:
        """Return the source of an input, as in :class:`~vggish_pt.audio.clip.Clip`."""


class StoredClip(NamedTuple):
    """Input as stored in the table."""

    location: Location
    row: ClipRow
    start: float | None
    end: float | None
    columns: dict[str, Any]


class ClipTable:
    """Inputs in the order in which they were added; :meth:`rows` can be called repeatedly."""

    def __init__(self) -> None:
        self._locations: list[Location] = []
        self._numbers: dict[Location, int] = {}  # location -> index in the list
        self._groups: list[Group] = []
        self._current: Group | None = None
        self._chunks: list[tuple[int, bytes]] = []  # number of the group, Arrow IPC stream
        self._plain_rows: list[tuple[Any, ...]] = []
        self._columns: pa.Schema | None = None

    def group(self, schema: pa.Schema | None = None, name: str = "the inputs") -> Group:
        """Start a group of inputs that have the same columns.

        Args:
            schema: names and types of the columns; None to infer them from the values.
            name: name of the group in errors.
        """
        self._groups.append(Group(self, len(self._groups), schema, name))
        return self._groups[-1]

    @property
    def columns(self) -> pa.Schema:
        """Names and types of all columns; empty before :meth:`finish`."""
        import pyarrow as pa

        return pa.schema([]) if self._columns is None else self._columns

    @property
    def nbytes(self) -> int:
        """Memory of the stored chunks in bytes."""
        return sum(len(data) for _, data in self._chunks)

    def finish(self) -> None:
        """Store the remaining rows, and choose one type for the columns of each name.

        Raises:
            SettingsError: columns of one name have types that cannot be unified.
        """
        if self._current is None:
            return
        if not self._chunks and self._current.plain:
            self._plain_rows = self._current.take()  # a few files are listed without importing pyarrow
            return
        import pyarrow as pa

        merged: dict[str, pa.Field] = {}
        for group in self._groups:
            for field in group.finish():
                known = merged.setdefault(field.name, field)
                if known.type != field.type:
                    merged[field.name] = unify_schemas([pa.schema([known]), pa.schema([field])], "the inputs").field(0)
        self._columns = pa.schema([pa.field(field.name, storable_type(field)) for field in merged.values()])
        for group in self._groups:
            group.set_types(self._columns)

    def location_number(self, location: Location) -> int:
        """Return the number of a location, and add the location if it is new."""
        number = self._numbers.setdefault(location, len(self._locations))
        if number == len(self._locations):
            self._locations.append(location)
        return number

    def make_current(self, group: Group) -> None:
        """Store the waiting rows of the group used so far, so that the order of inputs is that of adding them."""
        if self._current is not group:
            if self._current is not None:
                self._current.flush()
            self._current = group

    def append(self, group: int, batch: pa.RecordBatch) -> None:
        """Store a chunk of the group with this number."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_batch(batch)
        self._chunks.append((group, sink.getvalue().to_pybytes()))

    def rows(self) -> Iterator[StoredClip]:
        """Iterate over all inputs in order.

        Raises:
            SettingsError: a value does not fit the type of its column.
        """
        for row in self._plain_rows:
            yield self._stored(*row)
        if not self._chunks:
            return
        import pyarrow as pa

        for group, data in self._chunks:
            with pa.ipc.open_stream(data) as reader:
                batch = reader.read_next_batch()
            fixed = [batch.column(name).to_pylist() for name in _FIXED]
            for values in zip(*fixed, self._groups[group].read(batch), strict=True):
                yield self._stored(*values)

    def _stored(
        self, location: int, path: bytes, address: bytes | None, offset: int, size: int, *others: Any
    ) -> StoredClip:
        row = ClipRow(_text(path), None if address is None else _text(address), offset, size)
        return StoredClip(self._locations[location], row, *others)


class Group:
    """Inputs that have the same columns.

    Args:
        table: table that the group belongs to.
        number: number of the group in the table.
        schema: names and types of the columns; None to infer them from the values.
        name: name of the group in errors.
    """

    def __init__(self, table: ClipTable, number: int, schema: pa.Schema | None, name: str) -> None:
        self.name = name
        self._table = table
        self._number = number
        self._given = schema is not None
        self._schema = schema
        self._inferred: list[pa.Schema] = []  # one for each chunk
        self._rows: list[tuple[Any, ...]] = []
        self._characters = 0
        self._location = -1

    @property
    def plain(self) -> bool:
        """True if the waiting rows have no columns."""
        return not self._given and not any(row[-1] for row in self._rows)

    def at(self, location: Location) -> Group:
        """Set the location of the inputs that are added next, and return the group."""
        self._location = self._table.location_number(location)
        return self

    def add(
        self,
        row: ClipRow,
        start: float | None = None,
        end: float | None = None,
        columns: dict[str, Any] | None = None,
    ) -> None:
        """Add an input.

        Raises:
            SettingsError: values of one column have different types.
        """
        self._table.make_current(self)
        columns = columns or {}
        address = None if row.address is None else _bytes(row.address)
        self._rows.append((self._location, _bytes(row.path), address, row.offset, row.size, start, end, columns))
        self._characters += sum(len(value) for value in columns.values() if isinstance(value, str | bytes))
        if len(self._rows) >= _CHUNK_ROWS or self._characters >= _CHUNK_CHARACTERS:
            self.flush()

    def take(self) -> list[tuple[Any, ...]]:
        """Return the waiting rows and remove them from the group."""
        rows, self._rows, self._characters = self._rows, [], 0
        return rows

    def flush(self) -> None:
        """Store the waiting rows as a chunk.

        Raises:
            SettingsError: values of one column have different types.
        """
        import pyarrow as pa

        rows = self.take()
        if not rows:
            return
        types = (pa.int32(), pa.binary(), pa.binary(), pa.int64(), pa.int64(), pa.float64(), pa.float64())
        *fixed, carried = zip(*rows, strict=True)
        arrays = [pa.array(values, kind) for values, kind in zip(fixed, types, strict=True)]
        schema: Any = self._schema if self._given else None
        names = dict.fromkeys(name for columns in carried for name in columns) if schema is None else schema.names
        columns = []
        for name in names:
            try:
                kind = None if schema is None else schema.field(name).type
                columns.append(pa.array([values.get(name) for values in carried], kind))
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise _mixed_types(self.name, name, error) from None
        if schema is None:
            self._inferred.append(pa.schema([(name, array.type) for name, array in zip(names, columns, strict=True)]))
        titles = [*_FIXED, *(_CARRIED + name for name in names)]
        self._table.append(self._number, pa.RecordBatch.from_arrays([*arrays, *columns], names=titles))

    def finish(self) -> pa.Schema:
        """Store the waiting rows, and return one schema for all rows of the group."""
        self.flush()
        if not self._given:
            self._schema, self._inferred = unify_schemas(self._inferred, self.name), []
        return self._schema

    def set_types(self, columns: pa.Schema) -> None:
        """Replace the types of the group's columns by those that all groups share."""
        import pyarrow as pa

        assert self._schema is not None
        self._schema = pa.schema([columns.field(name) for name in self._schema.names])

    def read(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        """Return the columns of each input of a chunk.

        Raises:
            SettingsError: a value does not fit the type of its column.
        """
        import pyarrow as pa

        assert self._schema is not None
        if not len(self._schema):
            return [{} for _ in range(batch.num_rows)]
        present = set(batch.schema.names)
        columns = []
        for field in self._schema:
            if _CARRIED + field.name not in present:
                columns.append([None] * batch.num_rows)
                continue
            try:
                columns.append(batch.column(_CARRIED + field.name).cast(field.type).to_pylist())
            except (pa.ArrowException, ValueError) as error:  # integers that float64 cannot represent, for example
                raise _mixed_types(self.name, field.name, error) from None
        names = self._schema.names
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _mixed_types(name: str, column: str, error: Exception) -> SettingsError:
    what = f"the column {column!r} holds values of different types, or of a type that cannot be carried"
    return SettingsError(f"{name}: {what} ({first_line(error)})")
