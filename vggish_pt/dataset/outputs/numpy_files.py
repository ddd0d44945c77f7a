"""NumPy's formats: an NPZ file with all columns, or an NPY file with the embeddings and a CSV file with the rest.

Both load without pickling. Embeddings are written as they arrive; the other columns stay in memory until the end.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.dataset.schema import Rows, Schema
from vggish_pt.errors import SettingsError


class NpyWriter:
    """Writer of ``NAME`` (embeddings), ``NAME.index.csv`` (other columns) and ``NAME.json`` (weights and settings).

    Args:
        path: the ``.npy`` file.
        schema: the schema of the rows.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path, self._metadata = path, schema.metadata
        self._stream = _NpyStream(path, schema)
        self._index = _Index(schema)

    def write(self, rows: Rows) -> None:
        """Add the rows of one input."""
        self._stream.write(rows.embedding)
        self._index.add(rows)

    def complete(self) -> None:
        """Write the final header, the index and the metadata."""
        self._stream.complete()
        index, metadata = npy_companions(self._path)
        with index.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["path", "window", "start", "end", *self._index.extra])
            table.writerows(self._index.lines())
        metadata.write_text(json.dumps(self._metadata, indent=2) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Close the file, complete or not."""
        self._stream.close()


def npy_companions(path: Path) -> tuple[Path, Path]:
    """Return the paths of an ``.npy`` file's index and metadata."""
    return path.with_name(f"{path.name}.index.csv"), path.with_name(f"{path.name}.json")


class NpzWriter:
    """Writer of a file with all columns as arrays, and the metadata as JSON text.

    Args:
        path: the ``.npz`` file.
        schema: the schema of the rows.

    Raises:
        SettingsError: a column is called "metadata".
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path, self._metadata = path, schema.metadata
        self._index = _Index(schema)
        if "metadata" in self._index.extra:
            raise SettingsError("the name 'metadata' is reserved in an NPZ file; rename the manifest's column")
        self._embedding = path.with_name("embedding.npy")
        self._stream = _NpyStream(self._embedding, schema)

    def write(self, rows: Rows) -> None:
        """Add the rows of one input."""
        self._stream.write(rows.embedding)
        self._index.add(rows)

    def complete(self) -> None:
        """Write all arrays into one file."""
        self._stream.complete()
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            archive.write(self._embedding, "embedding.npy")
            for name, array in self._index.numbers().items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
            archive.writestr("metadata.npy", _npy_bytes(np.array(json.dumps(self._metadata))))
            # NumPy pads texts to the longest one, so they are compressed.
            archive.compression = zipfile.ZIP_DEFLATED
            for name, texts in self._index.texts().items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    self._index.write_texts(entry, texts)
        self._embedding.unlink()

    def close(self) -> None:
        """Close the file, complete or not."""
        self._stream.close()


class _NpyStream:
    """Writer of an ``.npy`` file whose number of rows is known only at the end."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self._shape, self._dtype, self._rows = schema.shape, np.dtype(schema.dtype), 0
        self._file: IO[bytes] = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # NumPy's header has room for a larger first dimension, so the data keep their offset.
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
    """Columns other than the embeddings, in memory."""

    def __init__(self, schema: Schema) -> None:
        self._rows: list[Rows] = []
        self._fields = schema.extra

    def add(self, rows: Rows) -> None:
        self._rows.append(replace(rows, embedding=np.zeros(0)))

    @property
    def extra(self) -> list[str]:
        return [field.name for field in self._fields]

    def lines(self) -> Iterator[tuple[Any, ...]]:
        for r in self._rows:
            more = [_text(r.columns.get(name)) for name in self.extra]
            for window, start, end in zip(r.window.tolist(), r.start.tolist(), r.end.tolist(), strict=True):
                yield r.path, window, start, end, *more

    def numbers(self) -> dict[str, NDArray[Any]]:
        found = {
            "window": np.concatenate([np.zeros(0, np.int32), *(r.window for r in self._rows)]),
            "start": np.concatenate([np.zeros(0), *(r.start for r in self._rows)]),
            "end": np.concatenate([np.zeros(0), *(r.end for r in self._rows)]),
        }
        lengths = [len(r) for r in self._rows]
        for field in self._fields:
            if _is_number(field.type):
                found[field.name] = np.repeat(self._column(field), lengths)
        return found

    def _column(self, field: Any) -> NDArray[Any]:
        """Return a number for each input; if some are missing, floats with NaN."""
        import pyarrow as pa

        values = pa.array([r.columns.get(field.name) for r in self._rows], field.type)
        if values.null_count:
            values = values.cast(pa.float64(), safe=False)
        return np.asarray(values.to_numpy(zero_copy_only=False))

    def texts(self) -> dict[str, list[str]]:
        """Return columns of text, with a value for each input; lists and other types as JSON."""
        columns = {
            f.name: [_text(r.columns.get(f.name)) for r in self._rows] for f in self._fields if not _is_number(f.type)
        }
        return {"path": [r.path for r in self._rows], **columns}

    def write_texts(self, file: IO[bytes], texts: Sequence[str]) -> None:
        dtype = np.dtype((np.str_, max(1, max(map(len, texts), default=1))))
        _write_header(file, dtype, (sum(map(len, self._rows)),))
        for r, text in zip(self._rows, texts, strict=True):
            padded = np.array(text, dtype).tobytes()
            for _ in range(len(r)):
                file.write(padded)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, default=str, ensure_ascii=False)


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _npy_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()
