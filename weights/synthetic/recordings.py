"""Recordings in five folds, such as ESC-10, as waveforms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.classify import read_labelled
from vggish_pt.classify.data.waveforms import decode


@dataclass(frozen=True)
class Recordings:
    """Recordings with one class each.

    Attributes:
        waves: waveforms (T,) float32 at 16 kHz.
        labels: (n,) names of classes.
        folds: (n,) folds, 1 to 5.
    """

    waves: list[NDArray[np.float32]]
    labels: NDArray[np.str_]
    folds: NDArray[np.int64]

    @classmethod
    def read(cls, folder: Path) -> Recordings:
        """Read a folder with a sub-folder for each class, in which a file's name begins with its fold and ``-``.

        Raises:
            SettingsError: the folder has another structure.
            AudioError: a file cannot be read.
        """
        data = read_labelled(folder, fold_from=r"^([1-5])-")
        labels = np.array([example.labels[0] for example in data.examples])
        folds = np.array([int(example.fold or 0) for example in data.examples])
        return cls([decode(item) for item in data.items], labels, folds)

    def fold(self, number: int, vectors: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return vectors and labels to fit to with a fold held out, then vectors and labels of the fold."""
        held_out = self.folds == number
        return vectors[~held_out], self.labels[~held_out], vectors[held_out], self.labels[held_out]
