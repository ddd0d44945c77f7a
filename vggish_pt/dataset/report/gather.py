"""What a report tells of a dump, gathered in two passes: the files' lengths, then the embeddings of some of them.

Memory grows by a few bytes for each file; embeddings, names and columns are kept of the sample only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.dataset.formats import values_of
from vggish_pt.dataset.reader import Dataset
from vggish_pt.dataset.schema import RESERVED

_MAX_VALUES = 1 << 23  # of the sample's embeddings together, float64
_MAX_COLUMNS = 12
_LISTED_ERRORS = 1000


@dataclass
class Sample:
    """Some of the files.

    Attributes:
        paths: (n,) their names; of parts of files, several may be the same.
        segments: (n, 2) seconds at which parts of files begin and end; NaN for whole ones.
        seconds: (n,) that each covers.
        windows: (n,) rows of each.
        values: (n, d) float64, the mean of each; of a convolutional layer, the mean over time and frequency too.
        columns: what a manifest said of them, (n,) each, by name.
    """

    paths: list[str]
    segments: NDArray[np.float64]
    seconds: NDArray[np.float64]
    windows: NDArray[np.int64]
    values: NDArray[np.float64]
    columns: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Facts:
    """All that a report tells.

    Attributes:
        name: of the dump.
        metadata: what made the embeddings.
        run: what ``_run.json`` says; empty without one.
        files: how many are embedded.
        windows: how many windows they gave.
        seconds: of audio.
        lengths: (files,) seconds that the windows of each cover.
        errors: (path, reason, type) of the first that failed.
        error_types: how often each type, most frequent first.
        sample: files for the map.
    """

    name: str
    metadata: dict[str, Any]
    run: dict[str, Any]
    files: int
    windows: int
    seconds: float
    lengths: NDArray[np.float32]
    errors: list[tuple[str, str, str]]
    error_types: list[tuple[str, int]]
    sample: Sample


def gather(dataset: Dataset, *, max_files: int, seed: int) -> Facts:
    """Reads what a report tells.

    Args:
        dataset: the dump.
        max_files: how many files the sample has at most.
        seed: of the sample.

    Raises:
        OutputError: the dump cannot be read.
    """
    first, lengths = _lengths(dataset)
    files = len(first) - 1
    # A row of a convolutional layer is averaged to its channels, which are its first dimension.
    width = dataset.shape[0] if len(dataset.shape) > 1 else int(np.prod(dataset.shape))
    count = min(files, max_files, max(1, _MAX_VALUES // width))
    chosen = (
        np.sort(np.random.default_rng(seed).choice(files, count, replace=False)) if count else np.zeros(0, np.int64)
    )
    run = dataset.run or {}
    counts = run.get("counts") or {}
    errors = dataset.errors
    types = errors["type"].value_counts().to_pylist()
    return Facts(
        name=dataset.name,
        metadata=dataset.metadata,
        run=run,
        files=files,
        windows=int(counts.get("windows") or len(dataset)),
        seconds=float(counts.get("seconds") or lengths.sum(dtype=np.float64)),
        lengths=lengths,
        errors=[(row["path"], row["reason"], row["type"]) for row in errors.slice(0, _LISTED_ERRORS).to_pylist()],
        error_types=sorted(((each["values"], each["counts"]) for each in types), key=lambda each: (-each[1], each[0])),
        sample=_sample(dataset, first, chosen, lengths, width),
    )


def _lengths(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each file's first row, with the number of all rows at the end, and the seconds that it covers."""
    names = [name for name in ("window", "start", "end") if name in dataset.columns]
    first: list[NDArray[np.int64]] = []
    starts: list[NDArray[np.float64]] = []
    ends: list[NDArray[np.float64]] = []
    row, last_end = 0, 0.0
    for batch in dataset.batches(names or ["embedding"], rows=1 << 18):
        count = len(batch)
        begins = np.flatnonzero(_numbers(batch, "window", count) == 0)  # each file's windows are counted from 0
        start, end = _numbers(batch, "start", count), _numbers(batch, "end", count)
        first.append(begins + row)
        starts.append(start[begins])
        ends.append(np.concatenate([[last_end], end])[begins])  # of the file before each
        row, last_end = row + count, float(end[-1]) if count else last_end
    if not first:
        return np.zeros(1, np.int64), np.zeros(0, np.float32)
    begins = np.concatenate(first)
    finished = np.append(np.concatenate(ends)[1:], last_end)
    return np.append(begins, row), (finished - np.concatenate(starts)).astype(np.float32)


def _numbers(batch: Any, name: str, count: int) -> NDArray[Any]:
    if name not in batch.schema.names:
        return np.zeros(count)
    values: NDArray[Any] = batch.column(name).to_numpy(zero_copy_only=False)
    return values


def _sample(
    dataset: Dataset, first: NDArray[np.int64], chosen: NDArray[np.int64], lengths: NDArray[np.float32], width: int
) -> Sample:
    more = [name for name in dataset.columns if name not in RESERVED][:_MAX_COLUMNS]
    segments = [name for name in ("segment_start", "segment_end") if name in dataset.columns]
    told = [name for name in ("path", *segments, *more) if name in dataset.columns]
    begins, ends = first[chosen], first[1:][chosen]
    sums = np.zeros((len(chosen), width))
    columns: dict[str, list[Any]] = {name: [] for name in told}
    row = 0
    for batch in dataset.batches([*told, "embedding"]) if len(chosen) else ():
        rows = np.arange(row, row + len(batch))
        row += len(batch)
        place = np.searchsorted(begins, rows, side="right") - 1
        wanted = np.flatnonzero((place >= 0) & (rows < ends[place]))
        if not len(wanted):
            continue
        values = values_of(batch.column("embedding"))[wanted].astype(np.float64)
        if len(dataset.shape) > 1:
            values = values.reshape(len(values), width, -1).mean(axis=2)
        cuts = np.flatnonzero(np.diff(place[wanted], prepend=-1))
        sums[place[wanted][cuts]] += np.add.reduceat(values, cuts, axis=0)
        heads = np.flatnonzero(np.isin(rows, begins))
        for name in told:
            columns[name] += batch.column(name).take(_indices(heads)).to_pylist()
    windows = ends - begins
    nothing: list[Any] = [None] * len(chosen)
    paths = columns.pop("path", None) or [f"row {number}" for number in begins.tolist()]
    bounds = [columns.pop(name, nothing) for name in ("segment_start", "segment_end")]
    return Sample(
        paths=paths,
        segments=np.array(bounds, np.float64).reshape(2, -1).T,
        seconds=lengths[chosen].astype(np.float64),
        windows=windows,
        values=sums / np.maximum(windows, 1)[:, None],
        columns=columns,
    )


def _indices(places: NDArray[np.int64]) -> Any:
    import pyarrow as pa

    return pa.array(places)
