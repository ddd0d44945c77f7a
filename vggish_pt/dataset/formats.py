"""Readers of the files of ``vggish-pt embed`` (Parquet, NPZ or NPY), in batches of Arrow.

Nothing is unpickled. Memory depends neither on the size of a file nor on the sizes in its header.
"""

from __future__ import annotations

import csv
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from vggish_pt.utils.npy import NpyReader

ENDINGS = (".parquet", ".npz", ".npy")

MAX_METADATA_BYTES = 1 << 20
_BATCH_BYTES = 1 << 23
_INDEX_TYPES = {"window": "int32", "start": "float64", "end": "float64"}


class DumpFile(Protocol):
    """An open file of embeddings.

    Attributes:
        metadata: weights, settings and version; None if unknown.
        schema: a ``pyarrow.Schema`` of the columns.
        rows: number of rows.
    """

    metadata: dict[str, Any] | None
    schema: Any
    rows: int

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Yield the columns as ``pyarrow.RecordBatch`` of at most ``rows`` rows."""

    def mapped(self) -> NDArray[Any] | None:
        """Return the embeddings (n, values), mapped into memory; None if they are compressed or in Parquet."""


def open_dump_file(path: str | Path, file: IO[bytes] | None = None) -> AbstractContextManager[DumpFile]:
    """Open a file for a ``with`` block.

    Args:
        path: its path; with ``file``, its name.
        file: an open file that can seek, for Parquet at an address; None opens ``path``.

    Raises:
        ValueError: the format is unknown, or the file is damaged. See also :func:`damage`.
    """
    path = Path(path)
    kinds = {".parquet": _open_parquet, ".npz": _open_npz, ".npy": _open_npy}
    ending = path.suffix.lower()
    if ending not in kinds or (file is not None and ending != ".parquet"):
        raise ValueError("not a .parquet, .npz or .npy file")
    return _open_parquet(path, file) if ending == ".parquet" else kinds[ending](path)


def damage() -> tuple[type[Exception], ...]:
    """Return the exceptions that reading a damaged file may raise."""
    import pyarrow as pa

    known = (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, BadZipFile, zlib.error)
    return (*known, csv.Error, struct.error, pa.ArrowException)


def values_of(column: Any) -> NDArray[Any]:
    """Return a column of fixed-size lists as an array (n, values), without a copy.

    Raises:
        ValueError: a row has no list.
    """
    flat = column.flatten()
    if len(flat) != len(column) * column.type.list_size or flat.null_count:
        raise ValueError("rows without an embedding")
    array: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    return array.reshape(len(column), -1)


def lists_of(values: NDArray[Any]) -> Any:
    """Return an array (n, values) as a column of fixed-size lists; a contiguous array is not copied."""
    import pyarrow as pa

    flat = np.ascontiguousarray(values, values.dtype.newbyteorder("=")).reshape(-1)
    kind = pa.from_numpy_dtype(flat.dtype)
    child = pa.Array.from_buffers(kind, len(flat), [None, pa.py_buffer(flat)])
    return pa.FixedSizeListArray.from_arrays(child, values.shape[1])


class _Parquet:
    def __init__(self, file: Any) -> None:
        import pyarrow as pa

        self._file = file
        self.schema = file.schema_arrow
        self.rows = file.metadata.num_rows
        kind = self.schema.field("embedding").type if "embedding" in self.schema.names else None
        if kind is None or not pa.types.is_fixed_size_list(kind):
            raise ValueError("no column 'embedding' of lists of a fixed size, as vggish-pt embed writes it")
        self.metadata = _metadata((self.schema.metadata or {}).get(b"vggish_pt"))

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        row_bytes = 4 * self.schema.field("embedding").type.list_size if "embedding" in columns else 1
        rows = max(1, min(rows, _BATCH_BYTES // max(1, row_bytes)))
        for batch in self._file.iter_batches(rows, columns=list(columns)):
            yield batch.select(list(columns))

    def mapped(self) -> None:
        return None


@contextmanager
def _open_parquet(path: Path, file: IO[bytes] | None = None) -> Iterator[DumpFile]:
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(path, memory_map=True) if file is None else pq.ParquetFile(file)
    with opened:
        yield _Parquet(opened)


class _Arrays:
    """Common part of NPZ and NPY files: an array of embeddings, and other columns."""

    def __init__(self, embedding: NpyReader, others: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        import pyarrow as pa

        if len(embedding.shape) < 2:
            raise ValueError(f"an array of shape {embedding.shape}, not (windows, values)")
        self.rows = embedding.shape[0]
        self._size = int(np.prod(embedding.shape[1:], dtype=object))
        self._row_bytes = max(1, self._size * embedding.dtype.itemsize)
        if not 0 < self._row_bytes <= _BATCH_BYTES:
            raise ValueError(f"a row of {self._row_bytes} bytes, which is not an embedding")
        kind = pa.list_(pa.from_numpy_dtype(embedding.dtype.newbyteorder("=")), self._size)
        before = [name for name in ("path", "window", "start", "end") if name in others]
        after = [name for name in others if name not in before]
        fields = [(name, others[name]) for name in before] + [("embedding", kind)]
        self.schema = pa.schema(fields + [(name, others[name]) for name in after])
        self.metadata = metadata

    def _embeddings(self, reader: NpyReader, rows: int) -> Iterator[Any]:
        for block in reader.blocks(rows):
            yield lists_of(block.reshape(len(block), -1))


class _Npz(_Arrays):
    def __init__(self, path: Path, archive: ZipFile) -> None:
        import pyarrow as pa

        self._path, self._archive = path, archive
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "embedding" not in names:
            raise ValueError("no array 'embedding', as vggish-pt embed writes it")
        metadata = None
        if "metadata" in names:
            with archive.open("metadata.npy") as entry:
                metadata = _metadata(str(NpyReader(entry).whole(4 * MAX_METADATA_BYTES)))
        others: dict[str, Any] = {}
        self._widths: dict[str, int] = {}
        for name in names:
            if name in ("embedding", "metadata"):
                continue
            with archive.open(f"{name}.npy") as entry:
                reader = NpyReader(entry)
            if len(reader.shape) != 1 or (name == "path" and reader.dtype.kind != "U"):
                raise ValueError("paths that are not text" if name == "path" else f"{name} that is not a column")
            text = reader.dtype.kind == "U"
            others[name] = pa.string() if text else pa.from_numpy_dtype(reader.dtype.newbyteorder("="))
            self._widths[name] = reader.dtype.itemsize
        with archive.open("embedding.npy") as entry:
            super().__init__(NpyReader(entry), others, metadata)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        import pyarrow as pa

        widest = max([self._row_bytes, *(self._widths[name] for name in columns if name != "embedding")])
        rows = max(1, min(rows, _BATCH_BYTES // widest))
        with ExitStack() as stack:
            streams = []
            for name in columns:
                reader = NpyReader(stack.enter_context(self._archive.open(f"{name}.npy")))
                streams.append(self._embeddings(reader, rows) if name == "embedding" else _columns(reader, rows))
            for arrays in zip(*streams, strict=True):
                if len({len(array) for array in arrays}) > 1:
                    raise ValueError("fewer names of files than embeddings")
                yield pa.RecordBatch.from_arrays(list(arrays), list(columns))

    def mapped(self) -> NDArray[Any] | None:
        entry = self._archive.getinfo("embedding.npy")
        if entry.compress_type != ZIP_STORED:
            return None
        with self._path.open("rb") as file:  # the data follow the entry's header, whose length varies
            file.seek(entry.header_offset)
            name, more = struct.unpack("<26xHH", file.read(30))
            file.seek(entry.header_offset + 30 + name + more)
            return _map(self._path, file)


def _columns(reader: NpyReader, rows: int) -> Iterator[Any]:
    import pyarrow as pa

    for block in reader.blocks(rows):
        yield pa.array(block if block.dtype.kind == "U" else block.astype(block.dtype.newbyteorder("="), copy=False))


@contextmanager
def _open_npz(path: Path) -> Iterator[DumpFile]:
    with ZipFile(path) as archive:
        yield _Npz(path, archive)


class _Npy(_Arrays):
    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        from vggish_pt.dataset.outputs.numpy_files import npy_companions

        self._path = path
        self._index, described = npy_companions(path)
        metadata = None
        if described.is_file():
            with described.open("rb") as file:
                metadata = _metadata(file.read(MAX_METADATA_BYTES + 1))
        names: list[str] = []
        if self._index.is_file():
            with self._index.open(newline="", encoding="utf-8") as table:
                names = list(csv.DictReader(table).fieldnames or [])
        others = {name: getattr(pa, _INDEX_TYPES.get(name, "string"))() for name in names}
        with path.open("rb") as file:
            super().__init__(NpyReader(file), others, metadata)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        import pyarrow as pa

        rows = max(1, min(rows, _BATCH_BYTES // self._row_bytes))
        others = [name for name in columns if name != "embedding"]
        with ExitStack() as stack:
            blocks: Iterator[Any] = iter(range(0, self.rows, rows))
            if "embedding" in columns:
                blocks = self._embeddings(NpyReader(stack.enter_context(self._path.open("rb"))), rows)
            lines: Iterator[dict[str, str]] = iter(())
            if others:
                table = stack.enter_context(self._index.open(newline="", encoding="utf-8"))
                lines = iter(csv.DictReader(table))
            for first, block in zip(range(0, self.rows, rows), blocks, strict=True):
                count = min(rows, self.rows - first)
                names = list(islice(lines, count)) if others else []
                if others and len(names) != count:
                    raise ValueError("fewer names of files than embeddings")
                arrays = {"embedding": block}
                for name in others:
                    texts = pa.array([line[name] for line in names], pa.string())
                    arrays[name] = texts.cast(self.schema.field(name).type)
                yield pa.RecordBatch.from_arrays([arrays[name] for name in columns], list(columns))

    def mapped(self) -> NDArray[Any] | None:
        with self._path.open("rb") as file:
            return _map(self._path, file)


@contextmanager
def _open_npy(path: Path) -> Iterator[DumpFile]:
    yield _Npy(path)


def _map(path: Path, file: IO[bytes]) -> NDArray[Any]:
    """Return the array that begins at a file's position, mapped into memory."""
    reader = NpyReader(file)
    rows, *rest = reader.shape
    shape = (rows, int(np.prod(rest, dtype=object)))
    if not rows:
        return np.zeros(shape, reader.dtype)
    return np.memmap(path, reader.dtype, "r", file.tell(), shape)  # checks the size


def _metadata(text: str | bytes | None) -> dict[str, Any] | None:
    if text is None:
        return None
    if len(text) > MAX_METADATA_BYTES:
        raise ValueError("metadata that is too long")
    metadata = json.loads(text)
    if not isinstance(metadata, dict):
        raise ValueError("metadata that is not a JSON object")
    return metadata
