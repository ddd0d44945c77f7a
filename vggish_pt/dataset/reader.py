"""Reading back what ``vggish-pt embed`` wrote: a folder of parts or a single file, to NumPy or Arrow.

>>> dataset = read_dataset("embeddings")         # doctest: +SKIP
>>> dataset.embedding                            # doctest: +SKIP
>>> dataset.table(["path", "start"])             # doctest: +SKIP
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.dataset.formats import ENDINGS, DumpFile, damage, lists_of, open_dump_file, values_of
from vggish_pt.dataset.outputs.failures import ERRORS_NAME
from vggish_pt.dataset.outputs.numpy_files import npy_companions
from vggish_pt.dataset.outputs.part import part_number
from vggish_pt.dataset.outputs.record import RUN_NAME, differences, read_record
from vggish_pt.dataset.outputs.store import FolderStore, open_store
from vggish_pt.errors import OutputError, OutputWarning, SettingsError
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.remote import file_system, is_address, local_path, redacted

_ERROR_COLUMNS = ("path", "reason", "type")
_READERS = 8


def read_dataset(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    mmap: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Opens embeddings that ``vggish-pt embed`` wrote. Of Parquet only the footers are read until more is asked for.

    Args:
        path: a folder of ``part-*.parquet``, or a ``.parquet``, ``.npz`` or ``.npy`` file; also at an address that
            fsspec knows (``s3://bucket/folder``), there Parquet only. A run that is not finished, or still going on,
            is read as far as it is, with a warning.
        columns: those wanted; None for all.
        mmap: an ``.npy`` file for a copy of the embeddings that is mapped into memory, so that there may be more of
            them than memory. It is made on the first call and again when the embeddings change. ``.npy`` files and
            ``.npz`` files of this package are mapped as they are and need none.

    Raises:
        OutputError: nothing is there, it is damaged, or its files do not belong together.
        SettingsError: there is no such column, or ``mmap`` does not end in ``.npy``.
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

    Rows are windows, in the order of parts and, within a part, of inputs; with ``--pool mean`` they are files.

    Attributes:
        name: what was opened.
        metadata: what made the embeddings: ``weights``, ``settings``, ``shape``, ``version``; empty if not known.
        run: what ``_run.json`` says: state, counts, timing; None if there is none.
        schema: a ``pyarrow.Schema`` of the columns.
        dtype: of the embeddings.
        shape: of one row's embedding: ``(128,)``, or that of another layer.
    """

    def __init__(self, address: str, columns: Sequence[str] | None, copy: Path | None) -> None:
        self.name, self._address, self._copy = redacted(address), address, copy
        path = None if is_address(address) else Path(local_path(address))
        single = Path(address).suffix.lower() in ENDINGS and not (path is not None and path.is_dir())
        folder, _, last = address.rpartition("/")
        self._single = single
        self._folder = path.parent if path is not None and single else path
        self._store: FolderStore = open_store(address if not single else folder if path is None else str(path.parent))
        if single:
            found = [last if path is None else path.name]
        else:
            found = [] if path is not None and path.is_file() else self._store.names()
        self.run: dict[str, Any] | None = None
        if not single and RUN_NAME in found:
            with self._store.open(RUN_NAME) as file:
                self.run = read_record(file.read(), self.name)
        self._has_errors = not single and ERRORS_NAME in found
        self._parts = found if single else [part for part in found if part_number(part) is not None]
        if not self._parts and self.run is None and not self._has_errors:
            raise OutputError(f"{self.name}: holds no embeddings; give a folder or file that 'vggish-pt embed' wrote")
        with ThreadPoolExecutor(_READERS) as pool:
            heads = list(pool.map(self._head, self._parts))
        self._rows = [head.rows for head in heads]
        self._identity = hashlib.blake2b(b"".join(head.identity for head in heads), digest_size=16).hexdigest()
        self.metadata: dict[str, Any] = heads[0].metadata if heads else self.run or {}
        self.schema: Any = heads[0].schema if heads else _empty_schema(self.metadata)
        for part, head in zip(self._parts, heads, strict=True):
            if not head.schema.equals(self.schema) or (different := differences(self.metadata, head.metadata)):
                different = [] if not head.schema.equals(self.schema) else different
                told = "; ".join(different) or "its columns"
                raise OutputError(f"{self.name}: {part} was made otherwise than {self._parts[0]} ({told})")
        self._columns = self.schema.names
        self._columns = self._chosen(columns)
        kind = self.schema.field("embedding").type
        self.dtype: np.dtype[Any] = np.dtype(kind.value_type.to_pandas_dtype())
        self.shape: tuple[int, ...] = _shape(self.metadata, kind.list_size)

    def __len__(self) -> int:
        return sum(self._rows)

    def __repr__(self) -> str:
        weights = (self.metadata.get("weights") or {}).get("name")
        return f"Dataset({self.name!r}: {len(self)} rows of {self.shape} {self.dtype}, weights {weights})"

    @property
    def columns(self) -> list[str]:
        """The names of the columns: path, window, start, end, embedding, and what a manifest brought."""
        return list(self._columns)

    @cached_property
    def embedding(self) -> NDArray[Any]:
        """All embeddings, (rows, 128), float32 or, quantised, uint8; of other layers (rows, ...).

        Mapped into memory and read-only where the file allows it or ``mmap`` was given; else decoded into memory, once.
        """
        return self._flat.reshape(len(self), *self.shape)

    @cached_property
    def _flat(self) -> NDArray[Any]:
        if self._copy is not None:
            return self._mapped_copy(self._copy)
        if self._single:
            with self._opened(self._parts[0]) as file:
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
        described = npy_companions(copy)[1]
        try:
            if json.loads(described.read_bytes()).get("copy_of") == self._identity:
                with open_dump_file(copy) as file:
                    if (mapped := file.mapped()) is not None and len(mapped) == len(self):
                        return mapped
        except damage():
            pass  # none is there, or half of one
        described.unlink(missing_ok=True)
        with whole_file(copy, overwrite=True) as out:
            header: Any = {"descr": self.dtype.str, "fortran_order": False, "shape": (len(self), *self.shape)}
            np.lib.format.write_array_header_1_0(out, header)
            for batch in self.batches(["embedding"]):
                out.write(np.ascontiguousarray(values_of(batch.column(0))).data)
        with whole_file(described, overwrite=True) as out:
            out.write(json.dumps({**self.metadata, "copy_of": self._identity}).encode())
        with open_dump_file(copy) as file:
            mapped = file.mapped()
        assert mapped is not None
        return mapped

    def column(self, name: str) -> NDArray[Any]:
        """One column as an array; texts as Python objects.

        Raises:
            OutputError: it cannot be read.
            SettingsError: there is none of that name.
        """
        if name == "embedding":
            return self.embedding
        values: NDArray[Any] = self.table([name]).column(0).to_numpy()
        return values

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """Everything, or some columns, as a ``pyarrow.Table``; embeddings that are mapped into memory stay there.

        Raises:
            OutputError: it cannot be read.
            SettingsError: there is no such column.
        """
        import pyarrow as pa

        chosen = self._chosen(columns)
        schema = pa.schema([self.schema.field(name) for name in chosen])
        mapped = "embedding" in chosen and (self._copy is not None or self._single)
        read = [name for name in chosen if name != "embedding" or not mapped]
        arrays: dict[str, Any] = {"embedding": lists_of(self._flat)} if mapped else {}
        if read:
            batches = list(self.batches(read, rows=1 << 20))
            table = pa.Table.from_batches(batches, pa.schema([self.schema.field(name) for name in read]))
            arrays |= {name: table[name] for name in read}
        fields = [schema.field(name).with_type(arrays[name].type) for name in chosen]
        return pa.table([arrays[name] for name in chosen], pa.schema(fields, self.schema.metadata))

    def batches(self, columns: Sequence[str] | None = None, *, rows: int = 16_384) -> Iterator[Any]:
        """The rows bit by bit, in bounded memory.

        Args:
            columns: those wanted; None for all.
            rows: of a batch, at most.

        Yields:
            ``pyarrow.RecordBatch``.

        Raises:
            OutputError: they cannot be read.
            SettingsError: there is no such column.
        """
        chosen = self._chosen(columns)
        for part, expected in zip(self._parts, self._rows, strict=True):
            with self._opened(part) as file:
                for batch in file.batches(chosen, max(1, rows)):
                    expected -= len(batch)
                    if expected < 0:
                        break
                    yield batch
                if expected:
                    raise ValueError("not as many rows as it says")

    def arrow(self) -> Any:
        """The parts as a ``pyarrow.dataset.Dataset``, to filter and scan.

        Raises:
            OutputError: there is no Parquet here.
        """
        import pyarrow.dataset as ds

        if not self._parts or not self._parts[0].endswith(".parquet"):
            raise OutputError(f"{self.name}: holds no Parquet; use table() or batches()")
        if self._folder is not None:
            return ds.dataset([str(self._folder / part) for part in self._parts], schema=self.schema)
        fs, root = file_system(self._address.rpartition("/")[0] if self._single else self._address.rstrip("/"))
        return ds.dataset([f"{root}/{part}" for part in self._parts], schema=self.schema, filesystem=fs)

    @property
    def errors(self) -> Any:
        """The inputs that failed, as a ``pyarrow.Table``: path, reason, type and, of parts of files, where they lie.

        Raises:
            OutputError: the list is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        empty = pa.table({name: pa.array([], pa.string()) for name in _ERROR_COLUMNS})
        try:
            if self._has_errors:
                with self._store.open(ERRORS_NAME) as file:
                    return pq.read_table(file).replace_schema_metadata()
            listed = (
                None if self._folder is None else self._folder / f"{self._parts[0] if self._parts else ''}.errors.csv"
            )
            if not self._single or listed is None or not listed.is_file():
                return empty
            with listed.open(newline="", encoding="utf-8") as text:
                lines = list(csv.DictReader(text))
            return pa.table({name: pa.array([line[name] for line in lines], pa.string()) for name in _ERROR_COLUMNS})
        except damage() as error:
            raise OutputError(f"{self.name}: its list of errors is damaged ({_reason(error)})") from error

    def _chosen(self, columns: Sequence[str] | None) -> list[str]:
        chosen = self._columns if columns is None else list(columns)
        for name in chosen:
            if name not in self._columns:
                raise SettingsError(f"{self.name}: has no column {name!r}; it has {', '.join(self._columns)}")
        return chosen

    def _head(self, part: str) -> _Head:
        with self._opened(part) as file:
            facts = file.schema.metadata or {}
            told = repr((part, file.rows, str(file.schema.types), sorted(facts.items())))
            made_by = {name: text for name, text in facts.items() if name == b"vggish_pt"}  # without the list of inputs
            schema = file.schema.with_metadata(made_by or None)
            return _Head(schema, file.rows, file.metadata or {}, hashlib.blake2b(told.encode()).digest())

    @contextmanager
    def _opened(self, part: str) -> Iterator[DumpFile]:
        place = self.name if self._single else f"{self.name.rstrip('/')}/{part}"
        try:
            if self._folder is not None:
                with open_dump_file(self._folder / part) as file:
                    yield file
            else:
                with self._store.open(part) as raw, open_dump_file(part, raw) as file:
                    yield file
        except (OutputError, SettingsError):
            raise
        except damage() as error:
            raise OutputError(f"{place}: cannot be read as embeddings ({_reason(error)})") from error


@dataclass(frozen=True)
class _Head:
    """What a file says of itself; ``identity`` changes when its rows do, as footers of parts name their inputs."""

    schema: Any
    rows: int
    metadata: dict[str, Any]
    identity: bytes


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")


def _shape(metadata: dict[str, Any], size: int) -> tuple[int, ...]:
    shape = metadata.get("shape")
    if isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape) and math.prod(shape) == size:
        return tuple(shape)
    return (size,)


def _empty_schema(run: dict[str, Any]) -> Any:
    """Of a folder in which no input came through."""
    import pyarrow as pa

    kind = pa.uint8() if run.get("dtype") == "uint8" else pa.float32()
    shape = run.get("shape")
    good = isinstance(shape, list) and shape and all(isinstance(n, int) and 0 < n < 1 << 20 for n in shape)
    size = math.prod(shape) if isinstance(shape, list) and good else c.EMBEDDING_SIZE
    text, number = pa.string(), pa.float64()
    fields = [("path", text), ("window", pa.int32()), ("start", number), ("end", number)]
    return pa.schema([*fields, ("embedding", pa.list_(kind, size))])
