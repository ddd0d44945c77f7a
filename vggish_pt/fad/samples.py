"""Reading what ``vggish-pt embed`` writes (Parquet, a folder of it, NPZ, NPY), block by block, with the files' names.

Nothing is unpickled, and memory depends neither on the length of a file nor on what its header says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from vggish_pt.dataset.formats import ENDINGS, DumpFile, damage, open_dump_file, values_of
from vggish_pt.dataset.outputs.parquet import is_part
from vggish_pt.dataset.outputs.record import differences
from vggish_pt.errors import AudioError
from vggish_pt.fad.statistics import MAX_DIMENSIONS, Statistics, check_embeddings

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
    return path.suffix.lower() in ENDINGS


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
            elif differences(sample.statistics.metadata or {}, metadata or {}):
                raise ValueError("its parts were made with different settings")
            for paths, values in blocks:
                sample.add(paths, check_embeddings(values, name))
    if sample is None or not sample.statistics.windows:
        raise AudioError(f"{name}: holds no embeddings", name)
    return sample


@contextmanager
def _errors_named(name: str) -> Iterator[None]:
    try:
        yield
    except AudioError:
        raise
    except damage() as error:
        reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{name}: ").splitlines()[0]
        raise AudioError(f"{name}: cannot be read as embeddings ({reason})", name) from error


def _is_statistics(path: Path) -> bool:
    with _errors_named(str(path)), ZipFile(path) as archive:
        return "fad_statistics.npy" in archive.namelist()


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_part(path))


def _open(path: Path) -> Iterator[tuple[dict[str, Any] | None, Iterator[_Block]]]:
    """Metadata and blocks of rows, of each file."""
    for each in _parts(path) if path.is_dir() else [path]:
        with open_dump_file(each) as file:
            _check_size(file.schema.field("embedding").type.list_size)
            yield file.metadata, _blocks(file)


def _blocks(file: DumpFile) -> Iterator[_Block]:
    names = [name for name in ("path", "embedding") if name in file.schema.names]
    for batch in file.batches(names, _BLOCK_ROWS):
        paths = batch.column("path").to_pylist() if "path" in names else None
        yield paths, values_of(batch.column("embedding"))


def _check_size(size: int) -> None:
    if not 1 <= size <= MAX_DIMENSIONS:
        raise ValueError(f"embeddings of {size} values; FAD takes at most {MAX_DIMENSIONS}, so no convolutional layer")
