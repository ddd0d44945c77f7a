"""Embeddings → Parquet, NPZ or NPY, written whole or not at all.

Everything goes to a temporary file beside the output and is renamed at the end, so that a stop half-way leaves
nothing that looks finished, and memory does not grow with the number of rows.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vggish_pt.errors import OutputError, SettingsError

Format = Literal["parquet", "npz", "npy"]

# Windows per Parquet row group, and per part of a dataset folder.
_GROUP_ROWS = 8192
_PART_ROWS = 1 << 18


@dataclass(frozen=True)
class Rows:
    """Rows of one input.

    Attributes:
        path: the input.
        window: (n,) int32, index of each window; with pooling, how many windows went into the row.
        start: (n,) float64 seconds.
        end: (n,) float64 seconds.
        embedding: (n, ...) float32 or uint8.
    """

    path: str
    window: NDArray[np.int32]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    embedding: NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """What the rows of an output are.

    Attributes:
        shape: of one row's embedding.
        dtype: "float32" or "uint8".
        pooled: whether a row is a file, not a window.
        metadata: what made the embeddings; JSON types.
    """

    shape: tuple[int, ...]
    dtype: str
    pooled: bool
    metadata: dict[str, Any]

    @property
    def window_column(self) -> str:
        """ "window" (its index), or "windows" (how many) where a row is a file."""
        return "windows" if self.pooled else "window"


class Writer(Protocol):
    """Takes rows; what it was given is there for others only after :meth:`finish`."""

    def write(self, rows: Rows) -> None:
        """Adds the rows of one input."""

    def finish(self) -> None:
        """Completes the output and puts it in its place."""


def choose_format(path: Path, given: str | None) -> Format | None:
    """The format of an output: as given, else by the path's ending; None for a dataset folder.

    Raises:
        SettingsError: an unknown format or ending.
    """
    if given is not None:
        if given not in get_args(Format):
            raise SettingsError(f"--format must be one of {', '.join(get_args(Format))}, not {given!r}")
        return given  # type: ignore[return-value]
    ending = path.suffix.lower().lstrip(".")
    if ending in get_args(Format):
        return ending  # type: ignore[return-value]
    if ending:
        raise SettingsError(
            f"{path}: unknown ending; use .parquet, .npz or .npy, name a --format, or use none for a folder"
        )
    return None


def errors_path(path: Path, fmt: Format | None) -> Path:
    """Where the list of failed inputs goes: beside a file, inside a folder."""
    return path / "errors.csv" if fmt is None else path.with_name(f"{path.stem}.errors.csv")


@contextlib.contextmanager
def open_output(path: Path, fmt: Format | None, layout: Layout, *, overwrite: bool = False) -> Iterator[Writer]:
    """Opens an output; leaving the block without :meth:`Writer.finish` leaves nothing behind.

    Args:
        path: file or, where ``fmt`` is None, folder to write; its parent folders are made.
        fmt: the format; None for a folder of ``part-*.parquet``.
        layout: what the rows are.
        overwrite: whether to replace what is there.

    Raises:
        OutputError: it exists already, or cannot be written.
    """
    check_output(path, fmt, overwrite=overwrite)
    with _errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as staging:
            writer = _writer(Path(staging), path, fmt, layout)
            try:
                yield writer
            finally:
                writer.close()


def check_output(path: Path, fmt: Format | None, *, overwrite: bool) -> None:
    """Refuses an output that exists already, unless it may be replaced and is of the same kind.

    Raises:
        OutputError: it exists.
    """
    if not os.path.lexists(path):
        return
    if fmt is None and path.is_dir():
        foreign = [p.name for p in path.iterdir() if not (p.name.startswith("part-") or p.name == "errors.csv")]
        if foreign:
            raise OutputError(f"{path}: a folder with other things in it ({foreign[0]}); choose another --out")
        if not any(path.iterdir()):
            return
    elif path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    elif fmt is None:
        raise OutputError(f"{path}: is a file, but --out without an ending means a folder; choose another")
    if not overwrite:
        raise OutputError(f"{path}: exists already; choose another --out, or replace it with --overwrite")


def write_errors(path: Path, failures: Sequence[tuple[str, str, str]]) -> None:
    """Writes the list of failed inputs: a CSV file with the columns path, reason and exception type.

    Args:
        path: the file; removed if there are no failures, so that no stale list stays behind.
        failures: (path, reason, type) of each.

    Raises:
        OutputError: it cannot be written.
    """
    with _errors_named(path):
        if not failures:
            path.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as staging:
            staged = Path(staging) / path.name
            with staged.open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(["path", "reason", "type"])
                table.writerows(failures)
            staged.replace(path)


@contextlib.contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _writer(staging: Path, path: Path, fmt: Format | None, layout: Layout) -> _Parquet | _Dataset | _Npy | _Npz:
    if fmt == "parquet":
        return _Parquet(staging, path, layout)
    if fmt == "npz":
        return _Npz(staging, path, layout)
    if fmt == "npy":
        return _Npy(staging, path, layout)
    return _Dataset(staging, path, layout)


class _Parquet:
    """Buffers rows into row groups of a good size."""

    def __init__(self, staging: Path, path: Path, layout: Layout) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa, self._path, self._layout = pa, path, layout
        self._staged = staging / path.name
        size = int(np.prod(layout.shape, dtype=np.int64))
        self.schema = pa.schema(
            [
                pa.field("path", pa.string(), nullable=False),
                pa.field(layout.window_column, pa.int32(), nullable=False),
                pa.field("start", pa.float64(), nullable=False),
                pa.field("end", pa.float64(), nullable=False),
                pa.field("embedding", pa.list_(pa.field("item", layout.dtype, nullable=False), size), nullable=False),
            ],
            metadata={"vggish_pt": json.dumps(layout.metadata)},
        )
        self._writer = pq.ParquetWriter(self._staged, self.schema, use_dictionary=["path"], compression="zstd")
        self._buffer: list[Rows] = []
        self._buffered = 0
        self.rows = 0

    def write(self, rows: Rows) -> None:
        if len(rows.window) == 0:
            return
        self._buffer.append(rows)
        self._buffered += len(rows.window)
        self.rows += len(rows.window)
        if self._buffered >= _GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        pa, buffer = self._pa, self._buffer
        if not buffer:
            return
        paths = np.repeat(np.array([r.path for r in buffer], dtype=object), [len(r.window) for r in buffer])
        embedding = np.concatenate([r.embedding for r in buffer])
        flat = pa.array(np.ascontiguousarray(embedding).reshape(-1))
        columns = [
            pa.array(paths, pa.string()),
            pa.array(np.concatenate([r.window for r in buffer]), pa.int32()),
            pa.array(np.concatenate([r.start for r in buffer])),
            pa.array(np.concatenate([r.end for r in buffer])),
            pa.FixedSizeListArray.from_arrays(flat, type=self.schema.field("embedding").type),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))
        self._buffer, self._buffered = [], 0

    def finish(self) -> None:
        self._write_group()
        self._writer.close()
        _publish(self._staged, self._path)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported already
            self._writer.close()


class _Dataset:
    """A folder of Parquet parts of bounded size."""

    def __init__(self, staging: Path, path: Path, layout: Layout) -> None:
        self._staged = staging / path.name
        self._staged.mkdir()
        self._staging, self._path, self._layout = staging, path, layout
        self._parts = 0
        self._part: _Parquet | None = None
        self._open()

    def _open(self) -> None:
        self._part = _Parquet(self._staging, self._staged / f"part-{self._parts:05d}.parquet", self._layout)
        self._parts += 1

    def write(self, rows: Rows) -> None:
        assert self._part is not None
        if self._part.rows >= _PART_ROWS:
            self._part.finish()
            self._open()
            assert self._part is not None
        self._part.write(rows)

    def finish(self) -> None:
        assert self._part is not None
        self._part.finish()
        if self._path.is_dir():  # aside, not away, until the new one is in its place
            self._path.replace(self._staging / "replaced")
        self._staged.replace(self._path)

    def close(self) -> None:
        if self._part is not None:
            self._part.close()


class _NpyStream:
    """An ``.npy`` file whose number of rows is known only at the end."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self._shape, self._dtype, self.rows = shape, np.dtype(dtype), 0
        self._file: IO[bytes] = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the first dimension to grow, so writing it again changes no offset.
        self._file.seek(0)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self.rows, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, array: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(array, dtype=self._dtype).tobytes())
        self.rows += len(array)

    def finish(self) -> None:
        self._write_header()
        self.close()

    def close(self) -> None:
        self._file.close()


class _Index:
    """The columns beside the embeddings, gathered in memory."""

    def __init__(self) -> None:
        self._rows: list[Rows] = []

    def add(self, rows: Rows) -> None:
        self._rows.append(Rows(rows.path, rows.window, rows.start, rows.end, rows.embedding[:0]))

    def columns(self, window_column: str) -> dict[str, NDArray[Any]]:
        rows = self._rows
        return {
            "path": np.repeat(np.array([r.path for r in rows], dtype=np.str_), [len(r.window) for r in rows]),
            window_column: np.concatenate([np.zeros(0, np.int32), *(r.window for r in rows)]),
            "start": np.concatenate([np.zeros(0), *(r.start for r in rows)]),
            "end": np.concatenate([np.zeros(0), *(r.end for r in rows)]),
        }


class _Npy:
    """``NAME.npy`` with the embeddings alone, and ``NAME.index.csv`` that says which row is what."""

    def __init__(self, staging: Path, path: Path, layout: Layout) -> None:
        self._path, self._layout = path, layout
        self._staged = staging / "embedding.npy"
        self._staged_index = staging / "index.csv"
        self._stream = _NpyStream(self._staged, layout.shape, layout.dtype)
        self._index = _Index()

    def write(self, rows: Rows) -> None:
        self._stream.write(rows.embedding)
        self._index.add(rows)

    def finish(self) -> None:
        self._stream.finish()
        columns = self._index.columns(self._layout.window_column)
        with self._staged_index.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(columns)
            table.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
        _publish(self._staged_index, self._path.with_name(f"{self._path.stem}.index.csv"))
        _publish(self._staged, self._path)

    def close(self) -> None:
        self._stream.close()


class _Npz:
    """All columns as arrays in one file, and the metadata as JSON text; loads without pickling."""

    def __init__(self, staging: Path, path: Path, layout: Layout) -> None:
        self._path, self._layout, self._staging = path, layout, staging
        self._stream = _NpyStream(staging / "embedding.npy", layout.shape, layout.dtype)
        self._index = _Index()

    def write(self, rows: Rows) -> None:
        self._stream.write(rows.embedding)
        self._index.add(rows)

    def finish(self) -> None:
        self._stream.finish()
        staged = self._staging / "all.npz"
        arrays = self._index.columns(self._layout.window_column)
        arrays["metadata"] = np.array(json.dumps(self._layout.metadata))
        with zipfile.ZipFile(staged, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            archive.write(self._staging / "embedding.npy", "embedding.npy")
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        _publish(staged, self._path)

    def close(self) -> None:
        self._stream.close()


def _publish(staged: Path, path: Path) -> None:
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    staged.replace(path)
