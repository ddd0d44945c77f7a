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
    """Recordings with a class each.

    Attributes:
        waves: (T,) float32 each, at 16 kHz.
        labels: (n,) names of classes.
        folds: (n,) 1 to 5.
    """

    waves: list[NDArray[np.float32]]
    labels: NDArray[np.str_]
    folds: NDArray[np.int64]

    @classmethod
    def read(cls, folder: Path) -> Recordings:
        """Reads a folder with a sub-folder for each class, in which a file's name begins with its fold and ``-``.

        Raises:
            SettingsError: it is no such folder.
            AudioError: a file that cannot be read.
        """
        data = read_labelled(folder, fold_from=r"^([1-5])-")
        labels = np.array([example.labels[0] for example in data.examples])
        folds = np.array([int(example.fold or 0) for example in data.examples])
        return cls([decode(item) for item in data.items], labels, folds)

    def fold(self, number: int, vectors: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """What is fitted to when a fold is held out, and what is tested with: vectors, labels, vectors, labels."""
        held_out = self.folds == number
        return vectors[~held_out], self.labels[~held_out], vectors[held_out], self.labels[held_out]
