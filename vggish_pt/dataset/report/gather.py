"""Facts of a report, read in two passes: the durations of all files, then the embeddings of a sample.

Memory grows by a few bytes per file; embeddings, names and columns are held for the sample only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.dataset.formats import values_of
from vggish_pt.dataset.reader import Dataset
from vggish_pt.dataset.schema import RESERVED

_MAX_VALUES = 1 << 23  # in the sample's embeddings, float64
_MAX_COLUMNS = 12
_LISTED_ERRORS = 1000


@dataclass
class Sample:
    """Sample of the files.

    Attributes:
        paths: (n,) names; segments of one file have the same name.
        segments: (n, 2) start and end of segments in seconds; NaN for whole files.
        seconds: (n,) durations.
        windows: (n,) numbers of rows.
        values: (n, d) float64, mean embedding of each file; for a convolutional layer also over time and frequency.
        columns: (n,) values of the additional columns, by name.
    """

    paths: list[str]
    segments: NDArray[np.float64]
    seconds: NDArray[np.float64]
    windows: NDArray[np.int64]
    values: NDArray[np.float64]
    columns: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Facts:
    """Contents of a report.

    Attributes:
        name: name of the dataset.
        metadata: weights, settings and version.
        run: contents of ``_run.json``; empty without one.
        files: number of embedded files.
        windows: number of their windows.
        seconds: seconds of audio.
        lengths: (files,) seconds that the windows of each file cover.
        errors: (path, reason, type) of the first failures.
        error_types: types of failures and their counts, most frequent first.
        sample: files on the map.
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
    """Read the contents of a report.

    Args:
        dataset: the dataset.
        max_files: maximum number of files in the sample.
        seed: random seed of the sample.

    Raises:
        OutputError: the dataset cannot be read.
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
        error_types=sorted(((row["values"], row["counts"]) for row in types), key=lambda pair: (-pair[1], pair[0])),
        sample=_sample(dataset, first, chosen, lengths, width),
    )


def _lengths(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the first row of each file, followed by the number of all rows; and the seconds that each file covers."""
    names = [name for name in ("window", "start", "end") if name in dataset.columns]
    first: list[NDArray[np.int64]] = []
    starts: list[NDArray[np.float64]] = []
    ends: list[NDArray[np.float64]] = []
    row, last_end = 0, 0.0
    for batch in dataset.batches(names or ["embedding"], rows=1 << 18):
        count = len(batch)
        begins = np.flatnonzero(_numbers(batch, "window", count) == 0)  # window 0 begins a file
        start, end = _numbers(batch, "start", count), _numbers(batch, "end", count)
        first.append(begins + row)
        starts.append(start[begins])
        ends.append(np.concatenate([[last_end], end])[begins])  # end of the previous file
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
    names = [name for name in ("path", *segments, *more) if name in dataset.columns]
    begins, ends = first[chosen], first[1:][chosen]
    sums = np.zeros((len(chosen), width))
    columns: dict[str, list[Any]] = {name: [] for name in names}
    row = 0
    for batch in dataset.batches([*names, "embedding"]) if len(chosen) else ():
        rows = np.arange(row, row + len(batch))
        row += len(batch)
        file = np.searchsorted(begins, rows, side="right") - 1
        wanted = np.flatnonzero((file >= 0) & (rows < ends[file]))
        if not len(wanted):
            continue
        values = values_of(batch.column("embedding"))[wanted].astype(np.float64)
        if len(dataset.shape) > 1:
            values = values.reshape(len(values), width, -1).mean(axis=2)
        cuts = np.flatnonzero(np.diff(file[wanted], prepend=-1))
        sums[file[wanted][cuts]] += np.add.reduceat(values, cuts, axis=0)
        heads = np.flatnonzero(np.isin(rows, begins))
        for name in names:
            columns[name] += batch.column(name).take(_indices(heads)).to_pylist()
    windows = ends - begins
    missing: list[Any] = [None] * len(chosen)
    paths = columns.pop("path", None) or [f"row {number}" for number in begins.tolist()]
    bounds = [columns.pop(name, missing) for name in ("segment_start", "segment_end")]
    return Sample(
        paths=paths,
        segments=np.array(bounds, np.float64).reshape(2, -1).T,
        seconds=lengths[chosen].astype(np.float64),
        windows=windows,
        values=sums / np.maximum(windows, 1)[:, None],
        columns=columns,
    )


def _indices(values: NDArray[np.int64]) -> Any:
    import pyarrow as pa

    return pa.array(values)
