"""Mean and covariance of embeddings, computed in one pass, in float64 and constant memory.

The covariance is kept as a factor ``R`` with ``R.T @ R = scatter`` (the sum of squares about the mean), updated by QR
decomposition: the rule of Chan, Golub and LeVeque (1983) for two samples, in square-root form. Unlike the scatter
itself, the factor keeps the digits of small variances, and its rank is exact for fewer samples than dimensions.
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
"""Maximum size of an embedding, that of the fully connected layers. The covariance of a convolutional layer would need
gigabytes."""

_BLOCK_ROWS = 1024
_FORMAT = 1
_LARGEST = 1e100  # squares and sums of squares stay finite


class Statistics:
    """Number, mean and covariance of a set of embeddings.

    Args:
        metadata: weights and settings of the embeddings, as in the outputs of ``vggish-pt embed``; None if unknown.

    Attributes:
        files: number of files of the embeddings, as far as it is known.
        metadata: as given.
    """

    def __init__(self, metadata: Mapping[str, Any] | None = None) -> None:
        self.files = 0
        self.metadata = None if metadata is None else dict(metadata)
        self._joined = 0  # number of embeddings in mean and factor
        self._mean = np.zeros(0)
        self._factor = np.zeros((0, 0))
        # Rows that are not in them yet: a decomposition costs about as much for one row as for a hundred.
        self._waiting: list[NDArray[Any]] = []

    def update(self, values: ArrayLike, *, files: int = 0) -> None:
        """Add embeddings.

        Args:
            values: (n, d) real numbers.
            files: number of files that are new with these embeddings.

        Raises:
            SettingsError: another shape or type, or another number of dimensions than before.
            AudioError: values are not finite.
        """
        rows = check_embeddings(values)
        self._check_dimensions(rows.shape[1])
        for first in range(0, len(rows), _BLOCK_ROWS):
            self._waiting.append(rows[first : first + _BLOCK_ROWS].copy())
            if sum(map(len, self._waiting)) >= _BLOCK_ROWS:
                self._join_waiting()
        self.files += files

    def merge(self, other: Statistics) -> None:
        """Add all embeddings of other statistics.

        Raises:
            SettingsError: they have other weights, settings or dimensions.
        """
        check_same(self, other, ("these statistics", "those to merge"))
        if other.windows:
            self._check_dimensions(other.dimensions)
            self._join_waiting()
            self._join(other.windows, other.mean, other.factor)
        self.files += other.files

    @property
    def windows(self) -> int:
        """Number of embeddings."""
        return self._joined + sum(map(len, self._waiting))

    @property
    def dimensions(self) -> int:
        """Size of an embedding; 0 before the first."""
        return self._waiting[0].shape[1] if self._waiting else len(self._mean)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean, (d,)."""
        self._join_waiting()
        return self._mean

    @property
    def factor(self) -> NDArray[np.float64]:
        """Matrix (r, d), r <= d, whose Gram matrix ``factor.T @ factor`` is the scatter."""
        self._join_waiting()
        return self._factor

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Unbiased sample covariance (divided by n - 1), (d, d).

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
        """Join another sample: append its factor's rows, and one for the distance between the means."""
        if self._joined:
            total = self._joined + count
            shift = mean - self._mean
            # Fractions are computed first, because a product of counts loses digits.
            between = shift * np.sqrt(self._joined * (count / total))
            factor = np.vstack([self._factor, factor, between])
            mean = self._mean + shift * (count / total)
        if len(factor) > factor.shape[1]:
            factor = np.asarray(np.linalg.qr(factor, mode="r"))
        self._joined, self._mean, self._factor = self._joined + count, mean, factor

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write an ``.npz`` file: windows, files, mean, factor, and the metadata as JSON text.

        The covariance is ``factor.T @ factor / (windows - 1)``.

        Raises:
            OutputError: the file exists already, or cannot be written.
            SettingsError: the name does not end in ``.npz``.
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
        """Load a file of :meth:`save`. Nothing is unpickled, and sizes are checked before memory is allocated.

        Raises:
            AudioError: the file is missing, damaged or of another kind.
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
            raise AudioError(f"{name}: cannot be read as statistics ({reason}); compute them again", name) from error

    @classmethod
    def _read(cls, archive: ZipFile) -> Statistics:
        def read(name: str, kind: str, dimensions: int, max_bytes: int = 8) -> NDArray[Any]:
            with archive.open(f"{name}.npy") as entry:
                array = NpyReader(entry).whole(max_bytes)
                if entry.read(1):
                    raise ValueError(f"{name} is longer than its header says")
            if array.dtype.kind != kind or array.ndim != dimensions:
                raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}")
            return array

        version = int(read("fad_statistics", "i", 0))
        if version != _FORMAT:
            raise ValueError(f"format {version}, but this version reads format {_FORMAT}")
        metadata = json.loads(str(read("metadata", "U", 0, 4 * MAX_METADATA_BYTES)))
        if not isinstance(metadata, dict | None):
            raise ValueError("the metadata is not a JSON object")
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
            raise ValueError("values are not finite")
        statistics.files, statistics._joined = files, windows
        statistics._mean, statistics._factor = mean.astype(np.float64), factor.astype(np.float64)
        return statistics


def check_name(path: Path) -> None:
    """Check the name of a file of statistics.

    Raises:
        SettingsError: it does not end in ``.npz``.
    """
    if path.suffix.lower() != ".npz":
        raise SettingsError(f"{path}: statistics are saved as .npz; give a name with that ending")


def check_embeddings(values: ArrayLike, origin: str = "embeddings") -> NDArray[Any]:
    """Check embeddings, and return them as an array without a change of type.

    Args:
        values: (n, d) real numbers.
        origin: name of the embeddings for errors.

    Raises:
        SettingsError: another shape or type.
        AudioError: values are not finite.
    """
    rows = np.asarray(values)
    if rows.ndim != 2 or not 1 <= rows.shape[1] <= MAX_DIMENSIONS:
        raise SettingsError(
            f"{origin}: shape {rows.shape}, but (windows, values) with at most {MAX_DIMENSIONS} values is needed"
        )
    if rows.dtype.kind not in "fiu":
        raise SettingsError(f"{origin}: values of type {rows.dtype}, not real numbers")
    for first in range(0, len(rows), _BLOCK_ROWS):
        with np.errstate(invalid="ignore"):  # NaN is searched for
            finite = (np.abs(rows[first : first + _BLOCK_ROWS].astype(np.float64)) < _LARGEST).all(axis=1)
        if not finite.all():
            row = first + int(finite.argmin())
            raise AudioError(f"{origin}: row {row} has NaN or infinite values; leave it out", origin)
    return rows


def check_same(first: Statistics, second: Statistics, names: tuple[str, str]) -> None:
    """Check that two sets of embeddings are comparable. Metadata that is unknown is not compared.

    Args:
        first: statistics of one set.
        second: statistics of the other set.
        names: names of both for errors.

    Raises:
        SettingsError: the sets have different weights, settings or dimensions; the message lists them.
    """
    if first.metadata is not None and second.metadata is not None:
        a, b = _flat(first.metadata), _flat(second.metadata)
        different = [f"{key} {_text(a, key)} and {_text(b, key)}" for key, _, _ in changes(b, a)]
        if different:
            raise SettingsError(
                f"{names[0]} and {names[1]} have different settings: {', '.join(different)}; "
                "embed both with the same settings"
            )
    if first.windows and second.windows and first.dimensions != second.dimensions:
        raise SettingsError(
            f"{names[0]} and {names[1]} have embeddings of {first.dimensions} and {second.dimensions} values; "
            "take both from the same layer"
        )


def _flat(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that decides the numbers, as one mapping."""
    weights, settings = metadata.get("weights"), metadata.get("settings")
    flat: dict[str, Any] = {}
    if isinstance(settings, Mapping):
        flat |= {str(k): v for k, v in settings.items() if k != "allow_truncated"}  # it decides only which files fail
    if isinstance(weights, Mapping):
        flat |= {"weights": weights.get("sha256") or weights.get("name"), "final_relu": weights.get("final_relu")}
    return flat


def _text(flat: Mapping[str, Any], key: str) -> str:
    value = flat.get(key, "unknown")
    return f"{value:.12}" if key == "weights" and isinstance(value, str) else f"{value}"
