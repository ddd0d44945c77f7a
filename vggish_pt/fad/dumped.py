"""Reading what ``vggish-pt embed`` writes (Parquet, a folder of it, NPZ, NPY), block by block, with the files' names.

Nothing is unpickled, and memory depends neither on the length of a file nor on what its header says.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from vggish_pt.errors import AudioError
from vggish_pt.fad.npy import NpyReader
from vggish_pt.fad.statistics import MAX_DIMENSIONS, MAX_METADATA_BYTES, Statistics, check_embeddings
from vggish_pt.output.arrays import npy_companions
from vggish_pt.output.parquet import is_part

_BLOCK_ROWS = 1024

_Block = tuple[Sequence[str] | None, NDArray[Any]]


@dataclass
class Sample:
    """A set of embeddings: its statistics and, if wanted, the embeddings themselves.

    Args:
        name: how the user called it.
        statistics: of all embeddings.
        keep: whether to keep the embeddings, in memory.

    Attributes:
        paths: the files that embeddings were kept of; of embeddings without names, one of them all.
        values: for each of them, (n, d).
    """

    name: str
    statistics: Statistics = field(default_factory=Statistics)
    keep: bool = False
    _kept: dict[str, list[NDArray[Any]]] = field(default_factory=dict, init=False)
    _last: str | None = field(default=None, init=False)

    def add(self, paths: Sequence[str] | None, values: NDArray[Any]) -> None:
        """Takes in embeddings.

        Args:
            paths: the file of each row, those of a file one after the other; None if they are unknown.
            values: (n, d).
        """
        if not len(values):
            return
        names = np.asarray([self.name] * len(values) if paths is None else list(paths), dtype=object)
        starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
        files = 0 if paths is None else len(starts) - int(names[0] == self._last)
        self._last = names[-1]
        self.statistics.update(values, files=files)
        if self.keep:
            for start, part in zip(starts, np.split(values, starts[1:]), strict=True):
                self._kept.setdefault(names[start], []).append(part)

    @property
    def paths(self) -> list[str]:
        """The files, in their order."""
        return list(self._kept)

    @property
    def values(self) -> list[NDArray[Any]]:
        """The embeddings of each."""
        return [np.concatenate(parts) for parts in self._kept.values()]


def is_dumped(name: str) -> bool:
    """Whether a name stands for embeddings or statistics, not audio: by its ending, or as a folder of Parquet parts."""
    path = Path(name)
    if path.is_dir():
        return bool(_parts(path))
    return path.suffix.lower() in (".parquet", ".npz", ".npy")


def read_sample(name: str, *, keep: bool = False) -> Sample:
    """Reads embeddings or saved statistics.

    Args:
        name: a ``.parquet``, ``.npz`` or ``.npy`` file, or a folder of ``part-*.parquet``.
        keep: whether to keep the embeddings. Statistics have none to keep.

    Raises:
        AudioError: no such file, a damaged one, one of another kind, or embeddings that are not finite.
    """
    path = Path(name)
    if not path.exists():
        raise AudioError(f"{name}: no such file or folder; give audio, embeddings or statistics", name)
    if path.suffix.lower() == ".npz" and path.is_file() and _is_statistics(path):
        return Sample(name, Statistics.load(path))
    sample: Sample | None = None
    with _errors_named(name):
        for metadata, blocks in _open(path):
            if sample is None:
                sample = Sample(name, Statistics(metadata), keep)
            elif metadata != sample.statistics.metadata:
                raise ValueError("its parts were made with different settings")
            for paths, values in blocks:
                sample.add(paths, check_embeddings(values, name))
    if sample is None or not sample.statistics.windows:
        raise AudioError(f"{name}: holds no embeddings", name)
    return sample


@contextmanager
def _errors_named(name: str) -> Iterator[None]:
    import pyarrow as pa

    damage = (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, BadZipFile, zlib.error)
    try:
        yield
    except AudioError:
        raise
    except (*damage, csv.Error, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{name}: ").splitlines()[0]
        raise AudioError(f"{name}: cannot be read as embeddings ({reason})", name) from error


def _is_statistics(path: Path) -> bool:
    with _errors_named(str(path)), ZipFile(path) as archive:
        return "fad_statistics.npy" in archive.namelist()


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_part(path))


def _open(path: Path) -> Iterator[tuple[dict[str, Any] | None, Iterator[_Block]]]:
    """Metadata and blocks of rows, of each file."""
    if path.is_dir():
        for part in _parts(path):
            yield from _open_parquet(part)
    else:
        kinds = {".parquet": _open_parquet, ".npz": _open_npz, ".npy": _open_npy}
        if path.suffix.lower() not in kinds:
            raise ValueError("no .parquet, .npz or .npy file")
        yield from kinds[path.suffix.lower()](path)


def _open_parquet(path: Path) -> Iterator[tuple[dict[str, Any] | None, Iterator[_Block]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def blocks() -> Iterator[_Block]:
        names = [name for name in ("path", "embedding") if name in schema.names]
        for batch in file.iter_batches(_BLOCK_ROWS, columns=names):
            column = batch.column("embedding")
            values = column.flatten()
            if len(values) != len(batch) * column.type.list_size or values.null_count:
                raise ValueError("rows without an embedding")
            array = values.to_numpy(zero_copy_only=False).reshape(len(batch), -1)
            yield batch.column("path").to_pylist() if "path" in names else None, array

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        kind = schema.field("embedding").type if "embedding" in schema.names else None
        if kind is None or not pa.types.is_fixed_size_list(kind):
            raise ValueError("no column 'embedding' of lists of a fixed size, as vggish-pt embed writes it")
        _check_size(kind.list_size)
        text = (schema.metadata or {}).get(b"vggish_pt")
        yield _metadata(text), blocks()


def _open_npz(path: Path) -> Iterator[tuple[dict[str, Any] | None, Iterator[_Block]]]:
    with ZipFile(path) as archive:
        if "embedding.npy" not in archive.namelist():
            raise ValueError("no array 'embedding', as vggish-pt embed writes it")
        text = None
        if "metadata.npy" in archive.namelist():
            with archive.open("metadata.npy") as entry:
                text = str(NpyReader(entry).whole(4 * MAX_METADATA_BYTES))
        with archive.open("embedding.npy") as entry:
            if "path.npy" not in archive.namelist():
                yield _metadata(text), _blocks(entry, None)
                return
            with archive.open("path.npy") as other:
                names = NpyReader(other)
                if names.dtype.kind != "U" or len(names.shape) != 1:
                    raise ValueError("paths that are no text")
                yield _metadata(text), _blocks(entry, (str(name) for block in names.blocks() for name in block))


def _open_npy(path: Path) -> Iterator[tuple[dict[str, Any] | None, Iterator[_Block]]]:
    index, described = npy_companions(path)
    text = None
    if described.is_file():
        with described.open("rb") as file:
            text = file.read(MAX_METADATA_BYTES + 1)
    with path.open("rb") as entry:
        if not index.is_file():
            yield _metadata(text), _blocks(entry, None)
            return
        with index.open(newline="", encoding="utf-8") as table:
            yield _metadata(text), _blocks(entry, (row["path"] for row in csv.DictReader(table)))


def _blocks(stream: IO[bytes], names: Iterator[str] | None) -> Iterator[_Block]:
    reader = NpyReader(stream)
    if len(reader.shape) != 2:
        raise ValueError(f"an array of shape {reader.shape}, not (windows, values)")
    _check_size(reader.shape[1])
    for values in reader.blocks(_BLOCK_ROWS):
        paths = None if names is None else list(islice(names, len(values)))
        if paths is not None and len(paths) != len(values):
            raise ValueError("fewer names of files than embeddings")
        yield paths, values


def _check_size(size: int) -> None:
    if not 1 <= size <= MAX_DIMENSIONS:
        raise ValueError(f"embeddings of {size} values; FAD takes at most {MAX_DIMENSIONS}, so no convolutional layer")


def _metadata(text: str | bytes | None) -> dict[str, Any] | None:
    if text is None:
        return None
    if len(text) > MAX_METADATA_BYTES:
        raise ValueError("metadata that are too long")
    metadata = json.loads(text)
    if not isinstance(metadata, dict):
        raise ValueError("metadata that are no JSON object")
    return metadata
