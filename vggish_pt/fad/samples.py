"""Sets of embeddings: their statistics, and the embeddings of each file where these are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from vggish_pt.dataset.formats import ENDINGS, damage, values_of
from vggish_pt.dataset.outputs.part import part_number
from vggish_pt.dataset.reader import read_dataset
from vggish_pt.errors import AudioError, OutputError
from vggish_pt.fad.statistics import MAX_DIMENSIONS, Statistics, check_embeddings
from vggish_pt.utils.remote import is_address

_BLOCK_ROWS = 1024


@dataclass
class Sample:
    """A set of embeddings.

    Args:
        name: name of the set, as given by the user.
        statistics: statistics of all embeddings.
        keep: True keeps the embeddings in memory.
    """

    name: str
    statistics: Statistics = field(default_factory=Statistics)
    keep: bool = False
    _kept: dict[str, list[NDArray[Any]]] = field(default_factory=dict, init=False)
    _last_path: str | None = field(default=None, init=False)

    def add(self, paths: Sequence[str] | None, values: NDArray[Any]) -> None:
        """Add embeddings.

        Args:
            paths: the file of each row; the rows of a file follow one another. None if the files are unknown.
            values: (n, d).
        """
        if not len(values):
            return
        names = np.asarray([self.name] * len(values) if paths is None else list(paths), dtype=object)
        starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
        files = 0 if paths is None else len(starts) - int(names[0] == self._last_path)
        self._last_path = names[-1]
        self.statistics.update(values, files=files)
        if self.keep:
            for start, block in zip(starts, np.split(values, starts[1:]), strict=True):
                self._kept.setdefault(names[start], []).append(block)

    @property
    def paths(self) -> list[str]:
        """Files of the stored embeddings, in order; the name of the set if the files are unknown."""
        return list(self._kept)

    @property
    def values(self) -> list[NDArray[Any]]:
        """Kept embeddings of each file, (n, d)."""
        return [np.concatenate(blocks) for blocks in self._kept.values()]


def is_dumped(name: str) -> bool:
    """Return True if a name is that of embeddings or statistics, not audio: by its ending, or as a dataset folder."""
    path = Path(name)
    if path.is_dir():
        return any(part_number(entry.name) is not None for entry in path.iterdir())
    return path.suffix.lower() in ENDINGS


def read_sample(name: str, *, keep: bool = False) -> Sample:
    """Read embeddings or saved statistics, in blocks, so that memory does not depend on the number of windows.

    Args:
        name: a ``.parquet``, ``.npz`` or ``.npy`` file, or a folder of ``part-*.parquet``.
        keep: True keeps the embeddings in memory. Statistics have none to keep.

    Raises:
        AudioError: there is no such file, it is damaged or of another kind, or embeddings are not finite.
    """
    path = Path(name)
    if not is_address(name) and not path.exists():
        raise AudioError(f"{name}: no such file or folder; give audio, embeddings or statistics", name)
    if path.suffix.lower() == ".npz" and path.is_file() and _is_statistics(path):
        return Sample(name, Statistics.load(path))
    try:
        sample = _read_embeddings(name, keep=keep)
    except OutputError as error:
        raise AudioError(str(error), name) from error
    except ValueError as error:
        raise AudioError(f"{name}: cannot be read as embeddings ({error})", name) from error
    if not sample.statistics.windows:
        raise AudioError(f"{name}: holds no embeddings", name)
    return sample


def _read_embeddings(name: str, *, keep: bool) -> Sample:
    dataset = read_dataset(name)
    if not 1 <= (size := math.prod(dataset.shape)) <= MAX_DIMENSIONS:
        raise ValueError(f"embeddings of {size} values; FAD takes at most {MAX_DIMENSIONS}, so no convolutional layer")
    sample = Sample(name, Statistics(dataset.metadata or None), keep)
    columns = [column for column in ("path", "embedding") if column in dataset.columns]
    for batch in dataset.batches(columns, rows=_BLOCK_ROWS):
        paths = batch.column("path").to_pylist() if "path" in columns else None
        sample.add(paths, check_embeddings(values_of(batch.column("embedding")), name))
    return sample


def _is_statistics(path: Path) -> bool:
    try:
        with ZipFile(path) as archive:
            return "fad_statistics.npy" in archive.namelist()
    except damage():
        return False  # the reader of embeddings says what is wrong
