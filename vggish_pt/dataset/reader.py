"""Read the output of ``vggish-pt embed``, a folder of parts or a single file, as NumPy or Arrow.

>>> dataset = read_dataset("embeddings")         # doctest: +SKIP
>>> dataset.embedding                            # doctest: +SKIP
>>> dataset.table(["path", "start"])             # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.dataset.files import DatasetFiles, Footer
from vggish_pt.dataset.formats import damage, lists_of, open_dump_file, values_of
from vggish_pt.dataset.outputs.numpy_files import npy_companions
from vggish_pt.dataset.outputs.record import differences
from vggish_pt.errors import OutputError, OutputWarning, SettingsError
from vggish_pt.utils.atomic import whole_file


def read_dataset(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    mmap: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Open embeddings that ``vggish-pt embed`` wrote. Of Parquet files only the footers are read at first.

    Args:
        path: a folder of ``part-*.parquet``, or a ``.parquet``, ``.npz`` or ``.npy`` file. Parquet may also be at an
            address that fsspec knows (``s3://bucket/folder``). An unfinished run is read as far as it is, with a
            warning.
        columns: names of the columns to read; None for all.
        mmap: an ``.npy`` file for a copy of the embeddings that is mapped into memory, for embeddings that do not fit
            into memory. It is written on the first call, and again when the embeddings have changed. ``.npy`` files and
            ``.npz`` files of this package are mapped themselves and need no copy.

    Raises:
        OutputError: there are no embeddings, a file is damaged, or the files do not belong together.
        SettingsError: a column does not exist, or ``mmap`` does not end in ``.npy``.
        MissingDependencyError: the library for such addresses is not installed.
    """
    copy = None if mmap is None else Path(mmap)
    if copy is not None and copy.suffix.lower() != ".npy":
        raise SettingsError(f"{copy}: the copy for mmap is an .npy file; give a name with that ending")
    dataset = Dataset(os.fspath(path), columns, copy)
    if (run := dataset.run) is not None and run.get("state") != "complete":
        counts = run.get("counts") or {}
        warnings.warn(
            f"{dataset.name}: is not finished ({counts.get('files')} of {counts.get('inputs')} files embedded so far); "
            "to finish it, run the same embed command again",
            OutputWarning,
            stacklevel=2,
        )
    return dataset


class Dataset:
    """Embeddings on a disk or at an address; made by :func:`read_dataset`.

    A row is a window, in the order of the parts and, within a part, of the inputs; with ``--pool mean``, a file.

    Attributes:
        name: the folder or file.
        metadata: ``weights``, ``settings``, ``shape`` and ``version``; empty if unknown.
        run: the contents of ``_run.json``: state, counts, timing; None if there is none.
        schema: a ``pyarrow.Schema`` of the columns.
        dtype: type of the embeddings.
        shape: shape of one row's embedding: ``(128,)``, or that of another layer.
    """

    def __init__(self, address: str, columns: Sequence[str] | None, copy: Path | None) -> None:
        self._files, self._copy = DatasetFiles(address), copy
        self.name, self.run = self._files.name, self._files.run
        footers = self._files.footers()
        self._rows = [footer.rows for footer in footers]
        self._digest = hashlib.blake2b(b"".join(footer.digest for footer in footers), digest_size=16).hexdigest()
        self.metadata: dict[str, Any] = footers[0].metadata if footers else self.run or {}
        self.schema: Any = footers[0].schema if footers else _empty_schema(self.metadata)
        self._check_parts(footers)
        self._columns = self.schema.names
        self._columns = self._chosen(columns)
        kind = self.schema.field("embedding").type
        self.dtype: np.dtype[Any] = np.dtype(kind.value_type.to_pandas_dtype())
        self.shape: tuple[int, ...] = _shape(self.metadata, kind.list_size)

    def _check_parts(self, footers: Sequence[Footer]) -> None:
        """Check that all parts have the same columns, weights and settings."""
        for part, footer in zip(self._files.parts, footers, strict=True):
            same_columns = footer.schema.equals(self.schema)
            different = differences(self.metadata, footer.metadata) if same_columns else ["its columns"]
            if different:
                raise OutputError(
                    f"{self.name}: {part} was written with different settings than {self._files.parts[0]} "
                    f"({'; '.join(different)})"
                )

    def __len__(self) -> int:
        return sum(self._rows)

    def __repr__(self) -> str:
        weights = (self.metadata.get("weights") or {}).get("name")
        return f"Dataset({self.name!r}: {len(self)} rows of {self.shape} {self.dtype}, weights {weights})"

    @property
    def columns(self) -> list[str]:
        """Names of the columns: path, window, start, end, embedding, and those of a manifest."""
        return list(self._columns)

    @cached_property
    def embedding(self) -> NDArray[Any]:
        """All embeddings, (rows, 128), float32 or, quantised, uint8; of other layers (rows, ...).

        Mapped into memory and read-only if the file allows it or ``mmap`` was given; otherwise read into memory once.
        """
        return self._flat.reshape(len(self), *self.shape)

    @cached_property
    def _flat(self) -> NDArray[Any]:
        if self._copy is not None:
            return self._mapped_copy(self._copy)
        if self._files.single:
            with self._files.open(self._files.parts[0]) as file:
                mapped = file.mapped()
            if mapped is not None:
                return mapped
        try:
            values = np.empty((len(self), int(np.prod(self.shape))), self.dtype)
        except (MemoryError, ValueError):
            raise OutputError(
                f"{self.name}: {len(self)} rows of {self.shape} do not fit in memory; use mmap= or batches()"
            ) from None
        filled = 0
        for batch in self.batches(["embedding"]):
            block = values_of(batch.column(0))
            values[filled : filled + len(block)] = block
            filled += len(block)
        return values

    def _mapped_copy(self, copy: Path) -> NDArray[Any]:
        """Return the embeddings from the copy, which is written first if it is missing or outdated."""
        metadata_path = npy_companions(copy)[1]
        try:
            if json.loads(metadata_path.read_bytes()).get("copy_of") == self._digest:
                with open_dump_file(copy) as file:
                    if (mapped := file.mapped()) is not None and len(mapped) == len(self):
                        return mapped
        except damage():
            pass  # there is no copy, or an incomplete one
        metadata_path.unlink(missing_ok=True)
        with whole_file(copy, overwrite=True) as out:
            header: Any = {"descr": self.dtype.str, "fortran_order": False, "shape": (len(self), *self.shape)}
            np.lib.format.write_array_header_1_0(out, header)
            for batch in self.batches(["embedding"]):
                out.write(np.ascontiguousarray(values_of(batch.column(0))).data)
        with whole_file(metadata_path, overwrite=True) as out:
            out.write(json.dumps({**self.metadata, "copy_of": self._digest}).encode())
        with open_dump_file(copy) as file:
            mapped = file.mapped()
        assert mapped is not None
        return mapped

    def column(self, name: str) -> NDArray[Any]:
        """Return one column as an array; texts as Python objects.

        Raises:
            OutputError: the column cannot be read.
            SettingsError: there is no such column.
        """
        if name == "embedding":
            return self.embedding
        values: NDArray[Any] = self.table([name]).column(0).to_numpy()
        return values

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """Return columns as a ``pyarrow.Table``. Embeddings that are mapped into memory are not copied.

        Args:
            columns: names of the columns; None for all.

        Raises:
            OutputError: a column cannot be read.
            SettingsError: there is no such column.
        """
        import pyarrow as pa

        chosen = self._chosen(columns)
        schema = pa.schema([self.schema.field(name) for name in chosen])
        mapped = "embedding" in chosen and (self._copy is not None or self._files.single)
        read = [name for name in chosen if name != "embedding" or not mapped]
        arrays: dict[str, Any] = {"embedding": lists_of(self._flat)} if mapped else {}
        if read:
            batches = list(self.batches(read, rows=1 << 20))
            table = pa.Table.from_batches(batches, pa.schema([self.schema.field(name) for name in read]))
            arrays |= {name: table[name] for name in read}
        fields = [schema.field(name).with_type(arrays[name].type) for name in chosen]
        return pa.table([arrays[name] for name in chosen], pa.schema(fields, self.schema.metadata))

    def batches(self, columns: Sequence[str] | None = None, *, rows: int = 16_384) -> Iterator[Any]:
        """Yield the rows in batches, in bounded memory.

        Args:
            columns: names of the columns; None for all.
            rows: maximum number of rows in a batch.

        Yields:
            ``pyarrow.RecordBatch``.

        Raises:
            OutputError: a file cannot be read.
            SettingsError: there is no such column.
        """
        chosen = self._chosen(columns)
        for part, expected in zip(self._files.parts, self._rows, strict=True):
            with self._files.open(part) as file:
                for batch in file.batches(chosen, max(1, rows)):
                    expected -= len(batch)
                    if expected < 0:
                        break
                    yield batch
                if expected:
                    raise ValueError("the number of rows is not that of its footer")

    def arrow(self) -> Any:
        """Return the parts as a ``pyarrow.dataset.Dataset``, to filter and scan.

        Raises:
            OutputError: the files are not Parquet.
        """
        return self._files.arrow(self.schema)

    @property
    def errors(self) -> Any:
        """Inputs that failed, as a ``pyarrow.Table``: path, reason, type and, for segments, their start and end.

        Raises:
            OutputError: the list is damaged.
        """
        return self._files.errors()

    def _chosen(self, columns: Sequence[str] | None) -> list[str]:
        chosen = self._columns if columns is None else list(columns)
        for name in chosen:
            if name not in self._columns:
                raise SettingsError(f"{self.name}: has no column {name!r}; it has {', '.join(self._columns)}")
        return chosen


def _shape(metadata: dict[str, Any], size: int) -> tuple[int, ...]:
    shape = metadata.get("shape")
    if isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape) and math.prod(shape) == size:
        return tuple(shape)
    return (size,)


def _empty_schema(run: dict[str, Any]) -> Any:
    """Return the schema of a folder in which every input failed."""
    import pyarrow as pa

    kind = pa.uint8() if run.get("dtype") == "uint8" else pa.float32()
    shape = run.get("shape")
    valid = isinstance(shape, list) and shape and all(isinstance(n, int) and 0 < n < 1 << 20 for n in shape)
    size = math.prod(shape) if isinstance(shape, list) and valid else c.EMBEDDING_SIZE
    text, number = pa.string(), pa.float64()
    fields = [("path", text), ("window", pa.int32()), ("start", number), ("end", number)]
    return pa.schema([*fields, ("embedding", pa.list_(kind, size))])
