"""Parquet file, alone or as a part of a dataset folder."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from vggish_pt.dataset.schema import Rows, Schema
from vggish_pt.errors import SettingsError
from vggish_pt.utils.text import first_line

_GROUP_BYTES = 1 << 24  # embeddings in a row group, which readers load as a whole

PART_NAME = re.compile(r"part-(\d{5,})\.parquet")


def is_part(path: Path) -> bool:
    """Return True if a file has the name of a part."""
    return PART_NAME.fullmatch(path.name) is not None and path.is_file()


def stored_columns(columns: Any) -> Any:
    """Return a ``pyarrow.Schema`` as a Parquet file gives it back, as Parquet changes some types; None for None.

    Raises:
        SettingsError: Parquet has no such type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if columns is None:
        return None
    buffer = pa.BufferOutputStream()
    try:
        pq.ParquetWriter(buffer, columns).close()
    except pa.ArrowException as error:
        raise SettingsError(f"a column of the inputs cannot be written to Parquet ({first_line(error)})") from None
    return pq.read_metadata(pa.BufferReader(buffer.getvalue())).schema.to_arrow_schema()


class ParquetWriter:
    """Writer of a Parquet file, in row groups of about 16 MiB.

    Args:
        file: a path, or a file that is open for writing.
        schema: the schema of the rows.
        metadata: additional metadata: text by name.
    """

    def __init__(self, file: Path | IO[bytes], schema: Schema, metadata: Mapping[str, str] | None = None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._group_rows = max(1, _GROUP_BYTES // schema.row_bytes)
        self._buffer: list[Rows] = []
        self._buffered = 0
        self._extra = schema.extra
        self._schema = pa.schema(
            [
                ("path", pa.string()),
                ("window", pa.int32()),
                ("start", pa.float64()),
                ("end", pa.float64()),
                ("embedding", pa.list_(pa.from_numpy_dtype(schema.dtype), schema.size)),
                *self._extra,
            ],
            metadata={"vggish_pt": json.dumps(schema.metadata), **(metadata or {})},
        )
        repetitive = ["path", *(field.name for field in self._extra if not pa.types.is_nested(field.type))]
        self._writer = pq.ParquetWriter(file, self._schema, use_dictionary=repetitive, compression="zstd")

    def write(self, rows: Rows) -> None:
        """Add the rows of one input."""
        self._buffer.append(rows)
        self._buffered += len(rows)
        if self._buffered >= self._group_rows:
            self._write_buffer()

    def _write_buffer(self) -> None:
        import pyarrow as pa

        buffer = self._buffer
        lengths = [len(rows) for rows in buffer]
        embedding = np.concatenate([rows.embedding for rows in buffer]).reshape(-1)
        repeat = pa.array(np.repeat(np.arange(len(buffer)), lengths))
        columns: list[Any] = [
            pa.array([rows.path for rows in buffer], pa.string()).take(repeat),
            pa.array(np.concatenate([rows.window for rows in buffer])),
            pa.array(np.concatenate([rows.start for rows in buffer])),
            pa.array(np.concatenate([rows.end for rows in buffer])),
            pa.FixedSizeListArray.from_arrays(pa.array(embedding), type=self._schema.field("embedding").type),
        ]
        more = [(f.type, [rows.columns.get(f.name) for rows in buffer]) for f in self._extra]
        columns += [pa.array(values, kind).take(repeat) for kind, values in more]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=self._group_rows)
        self._buffer, self._buffered = [], 0

    def complete(self) -> None:
        """Write the last row group and the footer."""
        if self._buffer:
            self._write_buffer()
        self._writer.close()

    def close(self) -> None:
        """Close the file, complete or not."""
        with contextlib.suppress(OSError):  # a full disk has already raised an error
            self._writer.close()
