"""Mean and covariance of embeddings, gathered in one pass, in float64, in memory that does not grow.

The covariance is kept as a factor ``R`` with ``R.T @ R = scatter`` (the sum of squares about the mean), updated by QR
decomposition: the rule of Chan, Golub and LeVeque (1983) for joining two samples, in square-root form. Unlike the
scatter itself, the factor keeps the digits of small variances, and for fewer samples than dimensions its rank is right.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggish_pt.dataset.formats import MAX_METADATA_BYTES
from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.mappings import changes
from vggish_pt.utils.npy import NpyReader

MAX_DIMENSIONS = 4096
"""Of an embedding: those of the fully connected layers. A convolutional layer's covariance would take gigabytes."""


_BLOCK_ROWS = 1024
_FORMAT = 1
_LARGEST = 1e100  # squares and sums of squares stay finite


class Statistics:
    """What the Fréchet distance needs to know about a set of embeddings.

    Args:
        metadata: what made the embeddings, as the outputs of ``vggish-pt embed`` say it; None if unknown.

    Attributes:
        files: how many files the embeddings come from, as far as that is known.
        metadata: as given.
    """

    def __init__(self, metadata: Mapping[str, Any] | None = None) -> None:
        self.files = 0
        self.metadata = None if metadata is None else dict(metadata)
        self._joined = 0  # how many embeddings mean and factor stand for
        self._mean = np.zeros(0)
        self._factor = np.zeros((0, 0))
        # The others wait here until they are many: a decomposition costs about as much for one row as for a hundred.
        self._waiting: list[NDArray[Any]] = []

    def update(self, values: ArrayLike, *, files: int = 0) -> None:
        """Takes in embeddings.

        Args:
            values: (n, d) real numbers.
            files: how many files they bring that were not seen before.

        Raises:
            SettingsError: another shape or type, or another number of dimensions than before.
            AudioError: values that are not finite.
        """
        rows = check_embeddings(values)
        self._check_dimensions(rows.shape[1])
        for first in range(0, len(rows), _BLOCK_ROWS):
            self._waiting.append(rows[first : first + _BLOCK_ROWS].copy())
            if sum(map(len, self._waiting)) >= _BLOCK_ROWS:
                self._join_waiting()
        self.files += files

    def merge(self, other: Statistics) -> None:
        """Takes in all that another object took in.

        Raises:
            SettingsError: it was made with other weights or settings, or has other dimensions.
        """
        check_same(self, other, ("these statistics", "those to merge"))
        if other.windows:
            self._check_dimensions(other.dimensions)
            self._join_waiting()
            self._join(other.windows, other.mean, other.factor)
        self.files += other.files

    @property
    def windows(self) -> int:
        """How many embeddings were taken in."""
        return self._joined + sum(map(len, self._waiting))

    @property
    def dimensions(self) -> int:
        """Values of an embedding; 0 before the first."""
        return self._waiting[0].shape[1] if self._waiting else len(self._mean)

    @property
    def mean(self) -> NDArray[np.float64]:
        """(d,) mean."""
        self._join_waiting()
        return self._mean

    @property
    def factor(self) -> NDArray[np.float64]:
        """(r, d), r <= d: a matrix whose Gram matrix ``factor.T @ factor`` is the scatter."""
        self._join_waiting()
        return self._factor

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(d, d) unbiased sample covariance (divided by n - 1).

        Raises:
            SettingsError: fewer than two windows.
        """
        if self.windows < 2:
            raise SettingsError(f"a covariance needs at least two windows, not {self.windows}")
        covariance: NDArray[np.float64] = self.factor.T @ self.factor / (self.windows - 1)
        return covariance

    def _check_dimensions(self, new: int) -> None:
        if self.windows and new != self.dimensions:
            raise SettingsError(
                f"embeddings of {new} values after embeddings of {self.dimensions}; take all from the same layer"
            )

    def _join_waiting(self) -> None:
        if self._waiting:
            rows = np.concatenate(self._waiting).astype(np.float64)
            self._waiting = []
            mean = rows.mean(axis=0)
            self._join(len(rows), mean, rows - mean)

    def _join(self, count: int, mean: NDArray[np.float64], factor: NDArray[np.float64]) -> None:
        """Joins another sample: its factor's rows, and one for the distance between the means, come under ours."""
        if self._joined:
            total = self._joined + count
            shift = mean - self._mean
            # Fractions first: counts multiplied would lose digits.
            between = shift * np.sqrt(self._joined * (count / total))
            factor = np.vstack([self._factor, factor, between])
            mean = self._mean + shift * (count / total)
        if len(factor) > factor.shape[1]:
            factor = np.asarray(np.linalg.qr(factor, mode="r"))
        self._joined, self._mean, self._factor = self._joined + count, mean, factor

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes an ``.npz`` file: windows, files, mean, factor, and the metadata as JSON text.

        The covariance is ``factor.T @ factor / (windows - 1)``.

        Raises:
            OutputError: it exists already, or cannot be written.
            SettingsError: a name that does not end in ``.npz``.
        """
        path = Path(path)
        check_name(path)
        with whole_file(path, overwrite=overwrite) as file:
            np.savez(
                file,
                fad_statistics=np.int64(_FORMAT),
                windows=np.int64(self.windows),
                files=np.int64(self.files),
                mean=self.mean,
                factor=self.factor,
                metadata=np.array(json.dumps(self.metadata)),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Reads what :meth:`save` wrote; nothing is unpickled, and sizes are checked before anything is allocated.

        Raises:
            AudioError: no such file, another file, or a damaged one.
        """
        name = os.fspath(path)
        try:
            with ZipFile(path) as archive:
                return cls._read(archive)
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            RuntimeError,
            NotImplementedError,
            BadZipFile,
            zlib.error,
        ) as error:
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{name}: no readable file of statistics ({reason}); make it again", name) from error

    @classmethod
    def _read(cls, archive: ZipFile) -> Statistics:
        def read(name: str, kind: str, dimensions: int, max_bytes: int = 8) -> NDArray[Any]:
            with archive.open(f"{name}.npy") as entry:
                array = NpyReader(entry).whole(max_bytes)
                if entry.read(1):
                    raise ValueError(f"{name} is longer than it says")
            if array.dtype.kind != kind or array.ndim != dimensions:
                raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}")
            return array

        version = int(read("fad_statistics", "i", 0))
        if version != _FORMAT:
            raise ValueError(f"format {version}, but this version reads format {_FORMAT}")
        metadata = json.loads(str(read("metadata", "U", 0, 4 * MAX_METADATA_BYTES)))
        if not isinstance(metadata, dict | None):
            raise ValueError("metadata that are no JSON object")
        statistics = cls(metadata)
        windows, files = int(read("windows", "i", 0)), int(read("files", "i", 0))
        mean = read("mean", "f", 1, 8 * MAX_DIMENSIONS)
        factor = read("factor", "f", 2, 8 * MAX_DIMENSIONS**2)
        size = len(mean)
        if not (0 <= files <= windows < 1 << 53) or bool(windows) != bool(size):
            raise ValueError(f"{windows} windows of {files} files with {size} values each")
        if factor.shape[0] > size or factor.shape[1] != size:
            raise ValueError(f"a factor of shape {factor.shape} for {size} values")
        if not (np.abs(mean) < _LARGEST).all() or not (np.abs(factor) < _LARGEST).all():
            raise ValueError("values that are not finite")
        statistics.files, statistics._joined = files, windows
        statistics._mean, statistics._factor = mean.astype(np.float64), factor.astype(np.float64)
        return statistics


def check_name(path: Path) -> None:
    """Makes sure that a file of statistics may be called so.

    Raises:
        SettingsError: it may not.
    """
    if path.suffix.lower() != ".npz":
        raise SettingsError(f"{path}: statistics are saved as .npz; give a name with that ending")


def check_embeddings(values: ArrayLike, origin: str = "embeddings") -> NDArray[Any]:
    """Returns embeddings as an array, as they are, if statistics can be made of them.

    Args:
        values: (n, d) real numbers.
        origin: how errors call them.

    Raises:
        SettingsError: another shape or type.
        AudioError: values that are not finite.
    """
    rows = np.asarray(values)
    if rows.ndim != 2 or not 1 <= rows.shape[1] <= MAX_DIMENSIONS:
        raise SettingsError(
            f"{origin}: shape {rows.shape}, but (windows, values) with at most {MAX_DIMENSIONS} values is needed"
        )
    if rows.dtype.kind not in "fiu":
        raise SettingsError(f"{origin}: values of type {rows.dtype}, not real numbers")
    for first in range(0, len(rows), _BLOCK_ROWS):
        with np.errstate(invalid="ignore"):  # NaN is what is looked for
            finite = (np.abs(rows[first : first + _BLOCK_ROWS].astype(np.float64)) < _LARGEST).all(axis=1)
        if not finite.all():
            row = first + int(finite.argmin())
            raise AudioError(f"{origin}: row {row} holds NaN or infinite values; leave it out", origin)
    return rows


def check_same(first: Statistics, second: Statistics, names: tuple[str, str]) -> None:
    """Makes sure that two sets of embeddings may be compared.

    Args:
        first: the one.
        second: the other.
        names: how errors call them.

    Raises:
        SettingsError: other weights, settings or dimensions; says which. Metadata that is unknown is not compared.
    """
    if first.metadata is not None and second.metadata is not None:
        a, b = _flat(first.metadata), _flat(second.metadata)
        different = [f"{key} {_text(a, key)} and {_text(b, key)}" for key, _, _ in changes(b, a)]
        if different:
            raise SettingsError(
                f"{names[0]} and {names[1]} were not made alike: {', '.join(different)}; embed both in the same way"
            )
    if first.windows and second.windows and first.dimensions != second.dimensions:
        raise SettingsError(
            f"{names[0]} and {names[1]} have embeddings of {first.dimensions} and {second.dimensions} values; "
            "take both from the same layer"
        )


def _flat(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the numbers, of all that metadata says."""
    weights, settings = metadata.get("weights"), metadata.get("settings")
    flat: dict[str, Any] = {}
    if isinstance(settings, Mapping):
        flat |= {str(k): v for k, v in settings.items() if k != "allow_truncated"}  # which decides what is read at all
    if isinstance(weights, Mapping):
        flat |= {"weights": weights.get("sha256") or weights.get("name"), "final_relu": weights.get("final_relu")}
    return flat


def _text(flat: Mapping[str, Any], key: str) -> str:
    value = flat.get(key, "unknown")
    return f"{value:.12}" if key == "weights" and isinstance(value, str) else f"{value}"
