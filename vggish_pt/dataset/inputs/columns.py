"""Columns of the user's tables that are carried into outputs: their names, types and values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from vggish_pt.errors import SettingsError
from vggish_pt.utils.text import display_name, first_line

if TYPE_CHECKING:
    import pyarrow as pa

TAKEN = ("window", "embedding", "segment_start", "segment_end")
"""Names of columns that outputs have, and that no column of a manifest may have."""

MAX_COLUMNS = 1000
_MAX_TEXT = 1 << 24
_MAX_BATCH = 1 << 26  # characters of text that are decoded at a time


def open_parquet(file: BinaryIO, name: str) -> tuple[Any, pa.Schema]:
    """Open a Parquet file so that little of it is in memory at a time.

    Texts are read as dictionaries: a long text that is repeated a million times is small in the file and as a
    dictionary, but not when it is decoded. :func:`row_lists` decodes a bounded number of rows at a time.

    Args:
        file: the file.
        name: name of the file in errors.

    Returns:
        The ``pyarrow.parquet.ParquetFile`` and its schema.

    Raises:
        SettingsError: the file is no Parquet file, or is damaged.
    """
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(file)
        leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
        # pyarrow cannot read texts within lists and structs as dictionaries.
        texts = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING" and "." not in leaf.path]
        table = pq.ParquetFile(file, metadata=metadata, read_dictionary=texts, buffer_size=1 << 20, pre_buffer=False)
        return table, table.schema_arrow
    except Exception as error:  # pyarrow raises errors of many types for damaged files
        raise SettingsError(f"{name}: no Parquet file, or a damaged one ({first_line(error)})") from None


def row_lists(batch: pa.RecordBatch) -> Iterator[dict[str, list[Any]]]:
    """Yield the values of a batch of :func:`open_parquet` by column name, at most 64 MiB of text at a time.

    Raises:
        ValueError: a text is longer than 16 MiB.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    weight = 0
    for text in (column for column in batch.columns if pa.types.is_dictionary(column.type) and is_text(column.type)):
        longest = pc.max(pc.binary_length(text.dictionary)).as_py() or 0
        if longest > _MAX_TEXT:
            raise ValueError(f"a text of {longest} bytes; at most {_MAX_TEXT}")
        weight += longest * len(text)
    step = max(1, batch.num_rows * _MAX_BATCH // max(weight, _MAX_BATCH))
    for start in range(0, batch.num_rows, step):
        part = batch.slice(start, step)
        yield {
            name: column.cast(plain_type(column.type)).to_pylist()
            for name, column in zip(part.schema.names, part.columns, strict=True)
        }


def check_carried(name: str, carried: Iterable[str]) -> list[str]:
    """Check the names of columns to carry into outputs, and return them.

    Args:
        name: name of the table in errors.
        carried: names of the columns.

    Raises:
        SettingsError: a name is empty, used by outputs, or used twice.
    """
    columns = list(carried)
    for column in columns:
        if column in ("path", "start", "end"):
            raise SettingsError(f"{name}: two columns are called {column!r}; rename one")
        if column in TAKEN:
            raise SettingsError(f"{name}: a column {column!r}, which outputs have themselves; rename it")
        if not column:
            raise SettingsError(f"{name}: a column without a name (from pandas, write it with index=False)")
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise SettingsError(f"{name}: two columns are called {display_name(twice)!r}; rename one")
    return columns


def is_text(kind: pa.DataType) -> bool:
    """Return True if a column's type is text."""
    import pyarrow as pa

    kind = plain_type(kind)
    views = getattr(pa.types, "is_string_view", lambda _: False)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or views(kind))


def is_number(kind: pa.DataType) -> bool:
    """Return True if a column holds numbers, or only nulls."""
    import pyarrow as pa

    kind = plain_type(kind)
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    return any(test(kind) for test in tests)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values without their storage: dictionaries, extensions, names of list items."""
    import pyarrow as pa

    while True:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return pa.list_(plain_type(kind.value_type))
        elif pa.types.is_struct(kind):
            return pa.struct([pa.field(part.name, plain_type(part.type)) for part in kind])
        else:
            return kind


def unify_schemas(schemas: list[pa.Schema], name: str) -> pa.Schema:
    """Return one schema for all columns, with types that hold the values of each.

    Args:
        schemas: names and types of the columns.
        name: name of the table in errors.

    Raises:
        SettingsError: no type holds the values of a column.
    """
    import pyarrow as pa

    try:
        return pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
    except pa.ArrowException as error:
        problem = f"a column's values are of different types ({first_line(error)})"
        raise SettingsError(f"{name}: {problem}; write them in one type") from None


def storable_type(field: pa.Field) -> pa.DataType:
    """Return the type in which outputs store a column: its own, but text if all values are null.

    Raises:
        SettingsError: the column holds structs without fields.
    """
    import pyarrow as pa

    def storable(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_null(kind):
            return pa.string()
        if pa.types.is_list(kind):
            return pa.list_(storable(kind.value_type))
        if pa.types.is_struct(kind):
            if not kind.num_fields:
                raise SettingsError(f"the column {field.name!r} holds empty objects, which cannot be carried")
            return pa.struct([pa.field(part.name, storable(part.type)) for part in kind])
        return kind

    return storable(field.type)
