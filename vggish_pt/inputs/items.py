"""What was found, kept small: millions of inputs, in tables in memory or, beyond that, in a temporary file."""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio import display_name
from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.inputs.files import Spelling
from vggish_pt.item import Item, Opener

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK_ROWS = 4096
_CHUNK_CHARACTERS = 1 << 22  # of text that is carried; a chunk is written at this, however few its rows are
_MAX_IN_MEMORY = 64 << 20
_CARRIED = "carried."


class Kept(NamedTuple):
    """What is kept of an input to find it again; what the numbers mean is its place's own."""

    path: str
    where: str | None = None
    offset: int = 0
    size: int = 0


class Place(Protocol):
    """Where inputs lie: what makes an input's source from what is kept of it."""

    def source(self, kept: Kept) -> str | Opener | None:
        """An item's source."""


@dataclass(frozen=True)
class OnDisk:
    """Files by their own paths."""

    def source(self, kept: Kept) -> None:
        """None: the path is enough."""


class Items:
    """The inputs of a data set, as :func:`vggish_pt.inputs.find_items` finds them.

    It can be iterated as often as needed, and gives an :class:`~vggish_pt.item.Item` at a time.

    Attributes:
        failures: each thing named that leads to no input, and the error that says why.
        passed_over: how many files were met in a search whose ending is not one of audio.
        repeated: how often an input was met again; each is kept once.
        columns: names and types of the columns that items carry.
        segments: whether items may be parts of files.
    """

    def __init__(self) -> None:
        self.failures: list[tuple[str, AudioError]] = []
        self.passed_over = 0
        self.repeated = 0
        self.segments = False
        self.columns: pa.Schema
        self._groups: list[Group] = []
        self._current: Group | None = None
        self._places: list[Place] = []
        self._numbers: dict[Place, int] = {}
        self._chunks: list[tuple[int, int, int]] = []  # group, offset and length; below 0 an index into memory
        self._memory: list[bytes] = []
        self._in_memory = 0
        self._spilled: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self._repeats: NDArray[np.int64] = np.zeros(0, np.int64)
        self._total = 0

    def __len__(self) -> int:
        return self._total - len(self._repeats)

    def __iter__(self) -> Iterator[Item]:
        repeats = iter(self._repeats.tolist())
        skip, index = next(repeats, -1), 0
        for number, values in enumerate(self._stored()):
            if number == skip:
                skip = next(repeats, -1)
                continue
            yield _item(index, *values)
            index += 1

    def fail(self, name: str, reason: str) -> None:
        """Notes something named that leads to no input."""
        label = display_name(name)
        self.failures.append((name, AudioError(f"{label}: {reason}", label)))

    def group(self, schema: pa.Schema | None = None) -> Group:
        """A new run of inputs that carry the same columns.

        Args:
            schema: their names and types; None if the values tell.
        """
        self._groups.append(Group(self, len(self._groups), schema))
        return self._groups[-1]

    def finish(self) -> Items:
        """Settles types and finds repeated inputs, once all have been added.

        Raises:
            SettingsError: columns of one name and different types.
        """
        import pyarrow as pa

        merged: dict[str, pa.Field] = {}
        for group in self._groups:
            for field in group.settle():
                known = merged.setdefault(field.name, field)
                if known.type != field.type:
                    merged[field.name] = _unified([pa.schema([known]), pa.schema([field])], "the inputs").field(0)
        self.columns = pa.schema([pa.field(field.name, _settled(field)) for field in merged.values()])
        for group in self._groups:
            group.adopt(self.columns)
        if self._spilled is not None:
            self._spilled.flush()
            self._map = mmap.mmap(self._spilled.fileno(), 0, access=mmap.ACCESS_READ)
        self._find_repeats()
        return self

    def _find_repeats(self) -> None:
        """Two rows are the same input if their keys are, or if they are one file, spelled in two ways."""
        keys, files, spelling = bytearray(), bytearray(), Spelling()
        for number, values in enumerate(self._stored()):
            item = _item(0, *values)
            keys += item.key
            if isinstance(values[0], OnDisk):
                files += keys[len(files) : 16 * number]  # those before it are told by their keys
                told = "\0".join(spelling.identity(item.path)).encode("utf-8", "surrogateescape")
                files += hashlib.blake2b(told, digest_size=16).digest()
        self._total = len(keys) // 16
        again = _again(keys)
        if files:
            again |= _again(files + keys[len(files) :])
        self._repeats = np.flatnonzero(again)
        self.repeated = len(self._repeats)

    def _turn(self, group: Group) -> None:
        """Keeps the order of inputs of different groups."""
        if self._current is not group:
            if self._current is not None:
                self._current.flush()
            self._current = group

    def _put(self, group: int, batch: pa.RecordBatch) -> None:
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
        assert self._spilled is not None
        self._chunks.append((group, self._spilled.tell(), len(data)))
        self._spilled.write(data)

    def _stored(self) -> Iterator[tuple[Any, ...]]:
        """All rows, repeated ones too: place, path, where, offset, size, start, end, columns."""
        import pyarrow as pa

        for group, offset, length in self._chunks:
            data: Any
            if offset < 0:
                data = self._memory[length]
            else:
                data = pa.py_buffer(memoryview(self._map)[offset : offset + length])  # type: ignore[arg-type]
            with pa.ipc.open_stream(data) as reader:
                batch = reader.read_next_batch()
            fixed = [batch.column(name).to_pylist() for name in _FIXED]
            carried = self._groups[group].read(batch)
            for place, path, where, *numbers, columns in zip(*fixed, carried, strict=True):
                place_text = None if where is None else _text(where)
                yield self._places[place], _text(path), place_text, *numbers, columns


_FIXED = ("place", "path", "where", "offset", "size", "start", "end")


def _item(
    index: int,
    place: Place,
    path: str,
    where: str | None,
    offset: int,
    size: int,
    start: float | None,
    end: float | None,
    columns: dict[str, Any],
) -> Item:
    return Item(path, index, place.source(Kept(path, where, offset, size)), start, end, columns)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


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


class Group:
    """Inputs that carry the same columns; :meth:`add` them, and :meth:`flush` at the end.

    Args:
        items: what they are part of.
        number: among its groups.
        schema: of what they carry; None if the values tell.
    """

    def __init__(self, items: Items, number: int, schema: pa.Schema | None) -> None:
        self._items = items
        self._number = number
        self._given = schema is not None
        self._schemas = [] if schema is None else [schema]
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []
        self._characters = 0
        self._place = -1
        self.name = "the inputs"

    def at(self, place: Place) -> Group:
        """Says where the next inputs lie."""
        items = self._items
        self._place = items._numbers.setdefault(place, len(items._places))
        if self._place == len(items._places):
            items._places.append(place)
        return self

    def add(
        self,
        path: str,
        where: str | None = None,
        offset: int = 0,
        size: int = 0,
        start: float | None = None,
        end: float | None = None,
        columns: dict[str, Any] | None = None,
    ) -> None:
        """Adds an input."""
        self._items._turn(self)
        self._rows.append((self._place, _bytes(path), None if where is None else _bytes(where), offset, size, start,
                           end, columns or {}))  # fmt: skip
        self._characters += sum(len(value) for value in (columns or {}).values() if isinstance(value, str | bytes))
        if len(self._rows) >= _CHUNK_ROWS or self._characters >= _CHUNK_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Stores what was added.

        Raises:
            SettingsError: values of one column that are of different kinds.
        """
        import pyarrow as pa

        rows, self._rows, self._characters = self._rows, [], 0
        if not rows:
            return
        kinds = (pa.int32(), pa.binary(), pa.binary(), pa.int64(), pa.int64(), pa.float64(), pa.float64())
        *fixed, carried = zip(*rows, strict=True)
        arrays = [pa.array(values, kind) for values, kind in zip(fixed, kinds, strict=True)]
        names = self._schema.names if self._schema is not None and self._given else list(
            dict.fromkeys(name for columns in carried for name in columns)
        )  # fmt: skip
        found = []
        for name in names:
            kind = self._schema.field(name).type if self._given and self._schema is not None else None
            try:
                found.append(pa.array([columns.get(name) for columns in carried], kind))
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise _cannot_carry(self.name, name, error) from None
        if not self._given:
            self._schemas.append(pa.schema(list(zip(names, (array.type for array in found), strict=True))))
        titles = [*_FIXED, *(_CARRIED + name for name in names)]
        self._items._put(self._number, pa.RecordBatch.from_arrays([*arrays, *found], names=titles))

    def settle(self) -> pa.Schema:
        """One schema for all that was added."""
        self.flush()
        if not self._given:
            self._schema = _unified(self._schemas, self.name)
            self._schemas = []
        assert self._schema is not None
        return self._schema

    def adopt(self, columns: pa.Schema) -> None:
        """Takes over the types that all groups' columns of a name are to have."""
        import pyarrow as pa

        assert self._schema is not None
        self._schema = pa.schema([columns.field(name) for name in self._schema.names])

    def read(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        """What the inputs of a batch carry."""
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
