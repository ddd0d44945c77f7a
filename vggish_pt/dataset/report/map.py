"""Layouts of embeddings in two dimensions: t-SNE, which keeps neighbours together, and principal components."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_COMPONENTS = 50
_MIN_FOR_TSNE = 5
_MAX_FOR_TSNE = 5000
_ITERATIONS = 750


@dataclass
class MapLayout:
    """Layout of the files on the map.

    Attributes:
        name: its name on the page.
        points: (n, 2), from 0 to 1; NaN for a file whose embedding is not finite.
    """

    name: str
    points: NDArray[np.float64]


def project(values: NDArray[np.float64], seed: int) -> list[MapLayout]:
    """Lay out embeddings in two dimensions.

    Args:
        values: (n, d).
        seed: random seed.

    Returns:
        t-SNE (van der Maaten and Hinton, 2008), for 5 to 5,000 files, and principal components.
    """
    finite: NDArray[np.bool_] = np.isfinite(values).all(axis=1)  # type: ignore[assignment]
    if not finite.any():
        return []
    reduced, share = _principal(values[finite], seed)
    found = []
    if _MIN_FOR_TSNE <= len(reduced) <= _MAX_FOR_TSNE and np.ptp(reduced, axis=0).any():
        found.append(MapLayout("t-SNE", _placed(_neighbours(reduced, seed), finite)))
    name = f"PCA, {100 * share:.0f} % of the variance" if share else "PCA"
    found.append(MapLayout(name, _placed(reduced[:, :2], finite)))
    return found


def _principal(values: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], float]:
    from sklearn.decomposition import PCA

    count = min(_COMPONENTS, *values.shape)
    if len(values) < 2 or not np.ptp(values, axis=0).any():
        return np.zeros((len(values), 2)), 0.0
    model = PCA(count, random_state=seed)
    reduced: NDArray[np.float64] = model.fit_transform(values)
    share = float(model.explained_variance_ratio_[:2].sum())
    if count < 2:
        reduced = np.pad(reduced, ((0, 0), (0, 1)))
    return reduced, share


def _neighbours(reduced: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(reduced) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", max_iter=_ITERATIONS, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(1, "openmp"):  # sums in several threads are not reproducible
        warnings.simplefilter("ignore")
        points: NDArray[np.float64] = model.fit_transform(reduced.astype(np.float32))
    return points


def _placed(points: NDArray[np.float64], finite: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return points scaled to the unit square and centred, with equal axes and the longer axis horizontal."""
    points = points.astype(np.float64)
    points = points - points.mean(axis=0)
    axes = np.linalg.svd(points, full_matrices=False)[2]
    if axes.shape == (2, 2):
        axes *= np.where(axes[:, :1] + axes[:, 1:] < 0, -1, 1)  # makes the direction unique
        points = points @ axes.T
    low, high = points.min(axis=0), points.max(axis=0)
    scale = float((high - low).max()) or 1.0
    placed = np.full((len(finite), 2), np.nan)
    placed[finite] = (points - (low + high) / 2) / scale + 0.5
    return placed
