"""Fréchet audio distance (Kilgour et al., 2019): the distance between two sets of embeddings, as Gaussians.

    FAD = |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^(1/2))

With ``Ci = Ai.T @ Ai`` the trace of the root is the sum of the singular values of ``A1 @ A2.T``. So the root of a
matrix, which is ill-conditioned for few windows, is not computed, and nothing is added to the covariances.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggish_pt.errors import AudioWarning, SettingsError, VGGishError
from vggish_pt.fad.statistics import Statistics, check_same

Embedded: TypeAlias = Any
"""Statistics; an array or tensor (n, d); :class:`~vggish_pt.Embeddings`; the path of embeddings that
``vggish-pt embed`` wrote, or of saved statistics; or an iterable of arrays, tensors or Embeddings, one for each file,
such as the result of ``embed_iter``."""

_SIZES = 10
_DRAWS = 8
_FEWEST_FILES = 10


def frechet_audio_distance(reference: Embedded, evaluation: Embedded) -> float:
    """Compute the Fréchet audio distance between two sets of embeddings.

    >>> frechet_audio_distance(model.embed_iter(real), model.embed_iter(generated))    # doctest: +SKIP

    Args:
        reference: embeddings to compare with; see :data:`Embedded`.
        evaluation: embeddings to judge, in the same forms.

    Returns:
        The distance, at least 0, in squared units of the embedding.

    Raises:
        SettingsError: fewer than two windows, or sets of different dimensions, weights or settings.
        AudioError: embeddings are not finite, or cannot be read.
        VGGishError: an error among the results of ``embed_iter``.

    Warns:
        AudioWarning: fewer windows than a covariance needs to have full rank.
    """
    return frechet_distance(statistics_of(reference), statistics_of(evaluation))


def statistics_of(embedded: Embedded) -> Statistics:
    """Compute the statistics of embeddings.

    Args:
        embedded: embeddings in one of the forms of :data:`Embedded`.

    Raises:
        SettingsError: the embeddings have none of these forms.
        AudioError: embeddings are not finite, or cannot be read.
    """
    if isinstance(embedded, Statistics):
        return embedded
    if isinstance(embedded, str | os.PathLike):
        from vggish_pt.fad.samples import read_sample

        return read_sample(os.fspath(embedded)).statistics
    statistics = Statistics()
    if _is_block(embedded):
        statistics.update(_array(embedded))
    elif isinstance(embedded, Iterable):
        for result in embedded:
            if isinstance(result, VGGishError):
                raise result
            statistics.update(_array(result), files=1)
    else:
        raise SettingsError(
            f"embeddings are an array, a path, Statistics or many arrays, not {type(embedded).__name__}"
        )
    return statistics


def _is_block(embedded: object) -> bool:
    return hasattr(embedded, "shape") or (hasattr(embedded, "values") and hasattr(embedded, "start"))


def _array(embedded: Any) -> NDArray[Any]:
    values = embedded.values if hasattr(embedded, "start") and hasattr(embedded, "end") else embedded
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()
    return np.asarray(values)


def frechet_distance(
    reference: Statistics, evaluation: Statistics, names: tuple[str, str] = ("reference", "evaluation")
) -> float:
    """Compute the Fréchet distance between the Gaussians of two statistics.

    Args:
        reference: statistics of the reference.
        evaluation: statistics of the evaluation set.
        names: names of both for errors and warnings.

    Raises:
        SettingsError: fewer than two windows, or statistics of different dimensions, weights or settings.

    Warns:
        AudioWarning: fewer windows than a covariance needs to have full rank.
    """
    check_same(reference, evaluation, names)
    for statistics, name in ((reference, names[0]), (evaluation, names[1])):
        if statistics.windows < 2:
            raise SettingsError(f"{name}: FAD needs at least two windows, not {statistics.windows}; add audio")
        if (text := too_small(statistics)) is not None:
            warnings.warn(AudioWarning(f"{name}: {text}"), stacklevel=2)
    return _distance(reference, evaluation)


def too_small(statistics: Statistics) -> str | None:
    """Return the reason why a set is too small for a meaningful FAD; None if it is large enough."""
    windows, needed = statistics.windows, statistics.dimensions + 1
    if windows >= needed:
        return None
    return (
        f"{windows} windows are fewer than {needed} ({statistics.dimensions} dimensions + 1), so the covariance has "
        f"rank {windows - 1} at most, and FAD depends more on the number of windows than on the audio"
    )


def _distance(first: Statistics, second: Statistics) -> float:
    a = first.factor / np.sqrt(first.windows - 1)
    b = second.factor / np.sqrt(second.windows - 1)
    shift = first.mean - second.mean
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    distance = shift @ shift + np.square(a).sum() + np.square(b).sum() - 2.0 * shared
    return max(0.0, float(distance))  # rounding errors, some 1e-15 of the traces, can make it negative


@dataclass(frozen=True)
class Extrapolated:
    """FAD for an infinite evaluation set.

    Attributes:
        value: the line's value at 1/n = 0. For sets of equal distribution it scatters about 0 and may be negative.
        slope: slope of the line, per 1/window.
        r2: coefficient of determination of the line; 1 is a perfect fit.
        unit: unit of the random draws, "files" or "windows".
        points: (n, 2), numbers of windows and their FAD, to which the line is fitted.
    """

    value: float
    slope: float
    r2: float
    unit: str
    points: NDArray[np.float64]


def extrapolate(reference: Statistics, files: Sequence[NDArray[Any]], *, seed: int = 0) -> Extrapolated:
    """Extrapolate FAD to infinitely many evaluation windows (Chong & Forsyth 2020; Gui et al. 2024).

    FAD of a finite sample is too large, by about c/n. So FAD is computed for subsets of the sample, and a straight line
    through these points over 1/n is extrapolated to 0. Subsets of half the sample to all of it are drawn without
    replacement, each size several times. Whole files are drawn if there are ten or more, because windows of one file
    are alike. Drawing with replacement, as fadtk does, keeps the bias of the sample itself.

    Args:
        reference: statistics of the reference. Its own bias stays, so it should be large.
        files: the evaluation set, an array (n, d) for each file.
        seed: random seed.

    Raises:
        SettingsError: too few windows for half of them to have a covariance of full rank, or other dimensions.
    """
    pool = _Pool(files)
    total = sum(map(len, files))
    needed = 2 * (reference.dimensions + 1)
    if total < needed:
        raise SettingsError(
            f"FAD for infinitely many windows needs at least {needed} in the evaluation set (two for each of "
            f"{reference.dimensions} dimensions + 1), not {total}"
        )
    rng = np.random.default_rng(seed)
    points = []
    for size in np.unique(np.linspace(pool.size / 2, pool.size, _SIZES).astype(int)):
        draws = _DRAWS if size < pool.size else 1
        samples = [pool.take(rng.permutation(pool.size)[:size]) for _ in range(draws)]
        points.append(
            (np.mean([s.windows for s in samples]), np.mean([_distance(reference, sample) for sample in samples]))
        )
    table = np.array(points)
    inverse, distances = 1.0 / table[:, 0], table[:, 1]
    slope, value = np.polyfit(inverse, distances, 1)
    spread = np.square(distances - distances.mean()).sum()
    residual = np.square(distances - (slope * inverse + value)).sum()
    return Extrapolated(float(value), float(slope), float(1.0 - residual / spread) if spread else 1.0, pool.unit, table)


@dataclass(frozen=True)
class Interval:
    """Interval of FAD over evaluation sets of the same kind and size.

    Attributes:
        low: lower end.
        high: upper end.
        level: confidence level, such as 0.95.
        samples: number of bootstrap samples.
        unit: unit of the random draws, "files" or "windows".
    """

    low: float
    high: float
    level: float
    samples: int
    unit: str


def bootstrap(
    reference: Statistics, files: Sequence[NDArray[Any]], samples: int, *, seed: int = 0, level: float = 0.95
) -> Interval:
    """Compute a bootstrap interval of FAD over the evaluation set; the reference is fixed.

    As many files are drawn with replacement as there are (windows if there are fewer than ten files). A sample with
    repetitions has fewer different windows, which makes its FAD larger. That excess, the mean over the samples minus
    the FAD of the whole set, is subtracted from both ends.

    Args:
        reference: statistics of the reference.
        files: the evaluation set, an array (n, d) for each file.
        samples: number of bootstrap samples, at least 10.
        seed: random seed.
        level: confidence level.

    Raises:
        SettingsError: fewer than 10 samples, or a level outside (0, 1).
    """
    check_bootstrap(samples, level)
    pool = _Pool(files)
    rng = np.random.default_rng(seed)
    whole = _distance(reference, pool.take(np.arange(pool.size)))
    drawn = [_distance(reference, pool.take(rng.integers(pool.size, size=pool.size))) for _ in range(samples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) - (np.mean(drawn) - whole)
    return Interval(max(0.0, float(low)), max(0.0, float(high)), level, samples, pool.unit)


def check_bootstrap(samples: int, level: float = 0.95) -> None:
    """Check the arguments of :func:`bootstrap`.

    Raises:
        SettingsError: fewer than 10 samples, or a level outside (0, 1).
    """
    if samples < 10 or not 0.0 < level < 1.0:
        raise SettingsError(f"a bootstrap needs at least 10 samples and a level in (0, 1), not {samples} and {level}")


def per_file(reference: Statistics, files: Sequence[NDArray[Any]]) -> list[float | None]:
    """Compute the FAD of each file against the reference (Gui et al. 2024); None below two windows.

    Args:
        reference: statistics of the reference.
        files: the evaluation set, an array (n, d) for each file.
    """
    return [_distance(reference, _sample(values)) if len(values) > 1 else None for values in files]


class _Pool:
    """Units that samples are drawn from: files, or windows if there are few files."""

    def __init__(self, files: Sequence[NDArray[Any]]) -> None:
        whole_files = len(files) >= _FEWEST_FILES
        self.unit = "files" if whole_files else "windows"
        self._values = np.concatenate(list(files))
        ends = np.cumsum([len(values) for values in files])
        self._parts = np.split(np.arange(len(self._values)), ends[:-1]) if whole_files else None
        self.size = len(files) if whole_files else len(self._values)

    def take(self, units: NDArray[np.int64]) -> Statistics:
        rows = units if self._parts is None else np.concatenate([self._parts[i] for i in units])
        return _sample(self._values[rows])


def _sample(values: NDArray[Any]) -> Statistics:
    statistics = Statistics()
    statistics.update(values)
    return statistics
