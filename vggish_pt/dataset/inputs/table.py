"""What is kept of millions of inputs: compact tables in memory or, beyond some size, in a temporary file."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from vggish_pt.errors import SettingsError

if TYPE_CHECKING:
    import pyarrow as pa

    from vggish_pt.audio.clip import Opener

_CHUNK_ROWS = 4096
_CHUNK_CHARACTERS = 1 << 22  # of text that is carried; a chunk is written at this, however few its rows are
_MAX_IN_MEMORY = 64 << 20
_FIXED = ("place", "path", "where", "offset", "size", "start", "end")
_CARRIED = "carried."


class ClipRow(NamedTuple):
    """What is kept of an input to find it again; what the numbers mean is its place's own."""

    path: str
    where: str | None = None
    offset: int = 0
    size: int = 0


class Location(Protocol):
    """Where inputs lie: what makes an input's source from what is kept of it."""

    def source(self, kept: ClipRow) -> str | Opener | None:
        """An item's source."""


class StoredClip(NamedTuple):
    """An input."""

    place: Location
    kept: ClipRow
    start: float | None
    end: float | None
    columns: dict[str, Any]


class ClipTable:
    """Takes inputs in order, and gives them back as often as needed."""

    def __init__(self) -> None:
        self.places: list[Location] = []
        self.numbers: dict[Location, int] = {}
        self._groups: list[Group] = []
        self._current: Group | None = None
        self._chunks: list[tuple[int, int, int]] = []  # group, offset and length; below 0, an index into memory
        self._memory: list[bytes] = []
        self._in_memory = 0
        self._spilled: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self._loose: list[tuple[Any, ...]] = []
        self._columns: pa.Schema | None = None

    def group(self, schema: pa.Schema | None = None, name: str = "the inputs") -> Group:
        """A new run of inputs that carry the same columns.

        Args:
            schema: their names and types; None if the values tell.
            name: how errors call it.
        """
        self._groups.append(Group(self, len(self._groups), schema, name))
        return self._groups[-1]

    @property
    def spilled(self) -> bool:
        """Whether some of it is in a temporary file."""
        return self._spilled is not None

    @property
    def columns(self) -> pa.Schema:
        """Names and types of all columns that are carried, once settled."""
        import pyarrow as pa

        return pa.schema([]) if self._columns is None else self._columns

    def settle(self) -> None:
        """Ends the adding: finds one type for each column.

        Raises:
            SettingsError: columns of one name and different types.
        """
        if not self._chunks and self._current is not None and self._current.plain:
            self._loose = self._current.take()  # a few files are not worth a library for tables
            return
        if self._current is None:
            return
        import pyarrow as pa

        merged: dict[str, pa.Field] = {}
        for group in self._groups:
            for field in group.settle():
                known = merged.setdefault(field.name, field)
                if known.type != field.type:
                    merged[field.name] = _unified([pa.schema([known]), pa.schema([field])], "the inputs").field(0)
        self._columns = pa.schema([pa.field(field.name, _settled(field)) for field in merged.values()])
        for group in self._groups:
            group.adopt(self._columns)
        if self._spilled is not None:
            self._spilled.flush()
            self._map = mmap.mmap(self._spilled.fileno(), 0, access=mmap.ACCESS_READ)

    def turn(self, group: Group) -> None:
        """Keeps the order of inputs of different groups."""
        if self._current is not group:
            if self._current is not None:
                self._current.flush()
            self._current = group

    def put(self, group: int, batch: pa.RecordBatch) -> None:
        """Stores a chunk."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_batch(batch)
        data = sink.getvalue().to_pybytes()
        if self._spilled is None and self._in_memory + len(data) <= _MAX_IN_MEMORY:
            self._in_memory += len(data)
            self._memory.append(data)
            self._chunks.append((group, -1, len(self._memory) - 1))
            return
        if self._spilled is None:
            self._spilled = tempfile.TemporaryFile(prefix="vggish_pt")  # noqa: SIM115 (lives as long as this)
        self._chunks.append((group, self._spilled.tell(), len(data)))
        self._spilled.write(data)

    def rows(self) -> Iterator[StoredClip]:
        """All inputs in order.

        Raises:
            SettingsError: a value that its column's type cannot hold.
        """
        for row in self._loose:
            yield self._stored(*row)
        for group, offset, length in self._chunks:
            batch = self._read(offset, length)
            fixed = [batch.column(name).to_pylist() for name in _FIXED]
            for values in zip(*fixed, self._groups[group].read(batch), strict=True):
                yield self._stored(*values)

    def _stored(self, place: int, path: bytes, where: bytes | None, offset: int, size: int, *others: Any) -> StoredClip:
        kept = ClipRow(_text(path), None if where is None else _text(where), offset, size)
        return StoredClip(self.places[place], kept, *others)

    def _read(self, offset: int, length: int) -> pa.RecordBatch:
        import pyarrow as pa

        data: Any
        if offset < 0:
            data = self._memory[length]
        else:
            data = pa.py_buffer(memoryview(self._map)[offset : offset + length])  # type: ignore[arg-type]
        with pa.ipc.open_stream(data) as reader:
            return reader.read_next_batch()


class Group:
    """Inputs that carry the same columns.

    Args:
        store: what they are part of.
        number: among its groups.
        schema: of what they carry; None if the values tell.
        name: how errors call it.
    """

    def __init__(self, store: ClipTable, number: int, schema: pa.Schema | None, name: str) -> None:
        self.name = name
        self._store = store
        self._number = number
        self._given = schema is not None
        self._schema = schema
        self._found: list[pa.Schema] = []  # a chunk's each, where the values tell
        self._rows: list[tuple[Any, ...]] = []
        self._characters = 0
        self._place = -1

    @property
    def plain(self) -> bool:
        """Whether what waits to be stored carries nothing."""
        return not self._given and not any(row[-1] for row in self._rows)

    def at(self, place: Location) -> Group:
        """Says where the next inputs lie."""
        self._place = self._store.numbers.setdefault(place, len(self._store.places))
        if self._place == len(self._store.places):
            self._store.places.append(place)
        return self

    def add(
        self,
        kept: ClipRow,
        start: float | None = None,
        end: float | None = None,
        columns: dict[str, Any] | None = None,
    ) -> None:
        """Adds an input."""
        self._store.turn(self)
        columns = columns or {}
        where = None if kept.where is None else _bytes(kept.where)
        self._rows.append((self._place, _bytes(kept.path), where, kept.offset, kept.size, start, end, columns))
        self._characters += sum(len(value) for value in columns.values() if isinstance(value, str | bytes))
        if len(self._rows) >= _CHUNK_ROWS or self._characters >= _CHUNK_CHARACTERS:
            self.flush()

    def take(self) -> list[tuple[Any, ...]]:
        """What waits to be stored; it waits no longer."""
        rows, self._rows, self._characters = self._rows, [], 0
        return rows

    def flush(self) -> None:
        """Stores what waits.

        Raises:
            SettingsError: values of one column that are of different kinds.
        """
        import pyarrow as pa

        rows = self.take()
        if not rows:
            return
        kinds = (pa.int32(), pa.binary(), pa.binary(), pa.int64(), pa.int64(), pa.float64(), pa.float64())
        *fixed, carried = zip(*rows, strict=True)
        arrays = [pa.array(values, kind) for values, kind in zip(fixed, kinds, strict=True)]
        schema: Any = self._schema if self._given else None
        names = dict.fromkeys(name for columns in carried for name in columns) if schema is None else schema.names
        found = []
        for name in names:
            try:
                kind = None if schema is None else schema.field(name).type
                found.append(pa.array([columns.get(name) for columns in carried], kind))
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise _cannot_carry(self.name, name, error) from None
        if schema is None:
            self._found.append(pa.schema([(name, array.type) for name, array in zip(names, found, strict=True)]))
        titles = [*_FIXED, *(_CARRIED + name for name in names)]
        self._store.put(self._number, pa.RecordBatch.from_arrays([*arrays, *found], names=titles))

    def settle(self) -> pa.Schema:
        """One schema for all that was added."""
        self.flush()
        if not self._given:
            self._schema, self._found = _unified(self._found, self.name), []
        return self._schema

    def adopt(self, columns: pa.Schema) -> None:
        """Takes over the types that all groups' columns of a name are to have."""
        import pyarrow as pa

        assert self._schema is not None
        self._schema = pa.schema([columns.field(name) for name in self._schema.names])

    def read(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        """What the inputs of a chunk carry."""
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
            except (pa.ArrowException, ValueError) as error:  # whole numbers that are no float, say
                raise _cannot_carry(self.name, field.name, error) from None
        names = self._schema.names
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _cannot_carry(name: str, column: str, error: Exception) -> SettingsError:
    reason = str(error).splitlines()[0][:200]
    what = f"the column {column!r} holds values of different kinds, or of one that cannot be carried"
    return SettingsError(f"{name}: {what} ({reason})")


def _unified(schemas: list[pa.Schema], name: str) -> pa.Schema:
    import pyarrow as pa

    try:
        return pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0][:200]
        raise SettingsError(f"{name}: a column's values are of different kinds ({reason}); write them alike") from None


def _settled(field: pa.Field) -> pa.DataType:
    """A type that files can hold: text where there are nothing but nulls."""
    import pyarrow as pa

    def settle(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_null(kind):
            return pa.string()
        if pa.types.is_list(kind):
            return pa.list_(settle(kind.value_type))
        if pa.types.is_struct(kind):
            if not kind.num_fields:
                raise SettingsError(f"the column {field.name!r} holds empty objects, which cannot be carried")
            return pa.struct([pa.field(part.name, settle(part.type)) for part in kind])
        return kind

    return settle(field.type)
