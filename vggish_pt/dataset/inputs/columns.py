"""Columns of tables that come from outside: which may be carried into outputs, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from vggish_pt.audio import display_name
from vggish_pt.errors import SettingsError

if TYPE_CHECKING:
    import pyarrow as pa

TAKEN = ("window", "embedding", "segment_start", "segment_end")
"""Names of columns that outputs have; a manifest's own may not have them."""

MAX_COLUMNS = 1000
_MAX_TEXT = 1 << 24
_MAX_BATCH = 1 << 26  # of text, when it is written out


def open_parquet(file: BinaryIO, name: str) -> tuple[Any, pa.Schema]:
    """Opens a Parquet file so that little of it is in memory at a time.

    Texts are read as dictionaries: a long one that is repeated a million times is small in the file and in memory, but
    not written out; :func:`row_lists` does that bit by bit.

    Raises:
        SettingsError: it is none.
    """
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(file)
        leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
        # pyarrow reads no texts within lists and structs in this way.
        texts = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING" and "." not in leaf.path]
        table = pq.ParquetFile(file, metadata=metadata, read_dictionary=texts, buffer_size=1 << 20, pre_buffer=False)
        return table, table.schema_arrow
    except Exception as error:  # pyarrow raises many kinds for damage
        raise SettingsError(f"{name}: no Parquet file, or a damaged one ({one_line(error)})") from None


def row_lists(batch: pa.RecordBatch) -> Iterator[dict[str, list[Any]]]:
    """The values of a batch of :func:`open_parquet` by column name, as few rows at a time as memory asks for.

    Raises:
        ValueError: a text that is too long.
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
    """Checks columns that are to be carried into outputs.

    Args:
        name: how errors call the table.
        carried: their names.

    Raises:
        SettingsError: a column has a name that outputs use, none, or one that another has.
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
    """Whether a column's type is text."""
    import pyarrow as pa

    kind = plain_type(kind)
    views = getattr(pa.types, "is_string_view", lambda _: False)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or views(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a column's type is of numbers, or of nothing but nulls."""
    import pyarrow as pa

    kind = plain_type(kind)
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    return any(test(kind) for test in tests)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, not of how they are stored (dictionaries, extensions, names of list items)."""
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


def one_line(error: BaseException) -> str:
    """What an error of a library says, in short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
