"""Parquet: one file, or a folder of parts."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from vggish_pt.output.rows import Layout, Rows

# Bytes of embeddings in a row group, which is what a reader takes at once, and in a part of a folder.
_GROUP_BYTES = 1 << 24
_PART_BYTES = 1 << 27

_PART_NAME = re.compile(r"part-\d{5,}\.parquet")


def is_part(path: Path) -> bool:
    """Whether a file is, by its name, part of an output folder."""
    return _PART_NAME.fullmatch(path.name) is not None and path.is_file()


class ParquetWriter:
    """One Parquet file; gathers rows into row groups of a good size.

    Args:
        path: the file.
        layout: what the rows are.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.rows = 0
        self._group_rows = max(1, _GROUP_BYTES // layout.row_bytes)
        self._buffer: list[Rows] = []
        self._buffered = 0
        self._schema = pa.schema(
            [
                ("path", pa.string()),
                ("window", pa.int32()),
                ("start", pa.float64()),
                ("end", pa.float64()),
                ("embedding", pa.list_(pa.from_numpy_dtype(layout.dtype), layout.size)),
            ],
            metadata={"vggish_pt": json.dumps(layout.metadata)},
        )
        self._writer = pq.ParquetWriter(path, self._schema, use_dictionary=["path"], compression="zstd")

    def write(self, rows: Rows) -> None:
        """Adds rows of one input."""
        self._buffer.append(rows)
        self._buffered += len(rows)
        self.rows += len(rows)
        if self._buffered >= self._group_rows:
            self._write_buffer()

    def _write_buffer(self) -> None:
        import pyarrow as pa

        buffer = self._buffer
        paths = np.array([rows.path for rows in buffer], dtype=object)
        embedding = np.concatenate([rows.embedding for rows in buffer]).reshape(-1)
        columns: list[Any] = [
            pa.array(np.repeat(paths, [len(rows) for rows in buffer]), pa.string()),
            pa.array(np.concatenate([rows.window for rows in buffer])),
            pa.array(np.concatenate([rows.start for rows in buffer])),
            pa.array(np.concatenate([rows.end for rows in buffer])),
            pa.FixedSizeListArray.from_arrays(pa.array(embedding), type=self._schema.field("embedding").type),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=self._group_rows)
        self._buffer, self._buffered = [], 0

    def complete(self) -> None:
        """Writes the last row group and the footer."""
        if self._buffer:
            self._write_buffer()
        self._writer.close()

    def close(self) -> None:
        """Closes the file, complete or not."""
        with contextlib.suppress(OSError):  # a full disk was reported already
            self._writer.close()


class DatasetWriter:
    """A folder of Parquet parts of bounded size.

    Args:
        folder: the folder.
        layout: what the rows are.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._layout = layout
        self._part_rows = max(1, _PART_BYTES // layout.row_bytes)
        self._parts = 0
        self._part = self._next_part()

    def _next_part(self) -> ParquetWriter:
        part = ParquetWriter(self._folder / f"part-{self._parts:05d}.parquet", self._layout)
        self._parts += 1
        return part

    def write(self, rows: Rows) -> None:
        """Adds rows of one input, to more than one part if need be."""
        while len(rows):
            room = self._part_rows - self._part.rows
            if room == 0:
                self._part.complete()
                self._part = self._next_part()
                continue
            self._part.write(rows[:room])
            rows = rows[room:]

    def complete(self) -> None:
        """Completes the last part."""
        self._part.complete()

    def close(self) -> None:
        """Closes the last part, complete or not."""
        self._part.close()
