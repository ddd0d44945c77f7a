"""NumPy's formats: one NPZ with all columns, or one NPY with the embeddings alone and a CSV file that names its rows.

Both load without pickling. Embeddings go to disk as they come; only the other columns are kept in memory till the end.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.output.rows import Layout, Rows


class NpyWriter:
    """``NAME`` with the embeddings, ``NAME.index.csv`` that says which row is what, ``NAME.json`` what made them.

    Args:
        path: the ``.npy`` file.
        layout: what the rows are.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path, self._metadata = path, layout.metadata
        self._stream = _NpyStream(path, layout)
        self._index = _Index()

    def write(self, rows: Rows) -> None:
        """Adds rows of one input."""
        self._stream.write(rows.embedding)
        self._index.add(rows)

    def complete(self) -> None:
        """Writes the header again, the index and the metadata."""
        self._stream.complete()
        index, metadata = npy_companions(self._path)
        with index.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["path", "window", "start", "end"])
            table.writerows(self._index.lines())
        metadata.write_text(json.dumps(self._metadata, indent=2) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Closes the file, complete or not."""
        self._stream.close()


def npy_companions(path: Path) -> tuple[Path, Path]:
    """The files beside an ``.npy`` file: its index and its metadata."""
    return path.with_name(f"{path.name}.index.csv"), path.with_name(f"{path.name}.json")


class NpzWriter:
    """All columns as arrays in one file, and the metadata as JSON text.

    Args:
        path: the ``.npz`` file.
        layout: what the rows are.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path, self._metadata = path, layout.metadata
        self._embedding = path.with_name("embedding.npy")
        self._stream = _NpyStream(self._embedding, layout)
        self._index = _Index()

    def write(self, rows: Rows) -> None:
        """Adds rows of one input."""
        self._stream.write(rows.embedding)
        self._index.add(rows)

    def complete(self) -> None:
        """Packs the arrays into one file."""
        self._stream.complete()
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            archive.write(self._embedding, "embedding.npy")
            for name, array in self._index.numbers().items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
            archive.writestr("metadata.npy", _npy_bytes(np.array(json.dumps(self._metadata))))
            # As NumPy pads text to the longest, the paths are by far larger in the file than here, but for the packing.
            archive.compression = zipfile.ZIP_DEFLATED
            with archive.open("path.npy", "w", force_zip64=True) as entry:
                self._index.write_paths(entry)
        self._embedding.unlink()

    def close(self) -> None:
        """Closes the file, complete or not."""
        self._stream.close()


class _NpyStream:
    """An ``.npy`` file whose number of rows is known only at the end."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._shape, self._dtype, self._rows = layout.shape, np.dtype(layout.dtype), 0
        self._file: IO[bytes] = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the first dimension to grow, so writing it again changes no offset.
        self._file.seek(0)
        _write_header(self._file, self._dtype, (self._rows, *self._shape))

    def write(self, array: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(array, dtype=self._dtype).data)
        self._rows += len(array)

    def complete(self) -> None:
        self._write_header()
        self.close()

    def close(self) -> None:
        self._file.close()


class _Index:
    """The columns beside the embeddings, gathered in memory."""

    def __init__(self) -> None:
        self._rows: list[Rows] = []

    def add(self, rows: Rows) -> None:
        self._rows.append(Rows(rows.path, rows.window, rows.start, rows.end, np.zeros(0)))

    def lines(self) -> Iterator[tuple[str, int, float, float]]:
        for r in self._rows:
            for window, start, end in zip(r.window.tolist(), r.start.tolist(), r.end.tolist(), strict=True):
                yield r.path, window, start, end

    def numbers(self) -> dict[str, NDArray[Any]]:
        return {
            "window": np.concatenate([np.zeros(0, np.int32), *(r.window for r in self._rows)]),
            "start": np.concatenate([np.zeros(0), *(r.start for r in self._rows)]),
            "end": np.concatenate([np.zeros(0), *(r.end for r in self._rows)]),
        }

    def write_paths(self, file: IO[bytes]) -> None:
        dtype = np.dtype((np.str_, max((len(r.path) for r in self._rows), default=1)))
        _write_header(file, dtype, (sum(map(len, self._rows)),))
        for r in self._rows:
            path = np.array(r.path, dtype).tobytes()
            for _ in range(len(r)):
                file.write(path)


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _npy_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()
