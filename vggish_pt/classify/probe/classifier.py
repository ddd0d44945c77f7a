"""Saved probes as classifiers for ``predict``, ``evaluate`` and ``stream``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax

from vggish_pt import constants as c
from vggish_pt.classify.prediction import Prediction
from vggish_pt.classify.probe.estimators import class_scores, gives_probabilities
from vggish_pt.classify.probe.folder import CONFIG_NAME, load_probe
from vggish_pt.errors import AudioError, SettingsError, VGGishError
from vggish_pt.inference.pooling import pool_windows, window_vectors
from vggish_pt.inference.settings import EmbedSettings

if TYPE_CHECKING:
    from torch import Tensor

    from vggish_pt.inference.embeddings import Embeddings
    from vggish_pt.model import VGGish


def is_probe(folder: Path) -> bool:
    """Return True if ``vggish-pt probe --out`` wrote a folder."""
    return (folder / CONFIG_NAME).is_file()


class ProbeClassifier:
    """A probe on VGGish's features, with the interface of :class:`vggish_pt.classify.evaluation.predict.Classifier`.

    The scores of a window are those of a clip that consists of this window. An SVM gives decision values instead of
    probabilities; their softmax or, multi-label, their sigmoid are the scores, so that a decision of 0 becomes 0.5.

    Args:
        folder: a folder that ``vggish-pt probe --out`` wrote.
        device: device on which VGGish runs.

    Attributes:
        labels: names of the classes.
        multilabel: True if a clip may have any number of labels.
        backbone: VGGish.

    Raises:
        SettingsError: the probe is on a baseline's features.
        CheckpointError: see :func:`vggish_pt.classify.probe.folder.load_probe`, like its other errors.
    """

    def __init__(self, folder: Path, *, device: str | torch.device | None = None) -> None:
        probe = load_probe(folder, device=str(device or "cpu"))
        model = probe.extractor.model
        if model is None:
            raise SettingsError(
                f"{folder}: a probe on {probe.features.kind} statistics, which are no features of windows; "
                "use load_probe(...).predict in Python"
            )
        self.labels = list(probe.labels)
        self.multilabel = probe.multilabel
        self.backbone: VGGish = model
        self._features = probe.features
        self._classifier = probe.classifier

    def embed_settings(self, **settings: Any) -> EmbedSettings:
        """Return the settings of the embedding: those of the probe, replaced by ``settings``."""
        return replace(self._features.embed_settings(), **settings)

    def reduce(self, values: Tensor) -> Tensor:
        """Compute a vector for each window."""
        return window_vectors(values)

    def prediction(self, result: Embeddings | VGGishError) -> Prediction | VGGishError:
        """Compute scores from the reduced windows of a source; an error is returned unchanged."""
        if isinstance(result, VGGishError):
            return result
        if len(result) == 0:
            name = result.source
            return AudioError(f"{name}: shorter than a window of {c.EXAMPLE_SECONDS} s; use pad='short'", name)
        pooling = self._features.pooling
        whole = pool_windows(result.values, pooling)[None].numpy()
        each = torch.stack([pool_windows(one[None], pooling) for one in result.values]).numpy()
        clip, windows = (torch.from_numpy(self._scores(vectors)) for vectors in (whole, each))
        return Prediction(
            clip[0], windows, result.start, result.end, tuple(self.labels), result.source, result.duration
        )

    def _scores(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = class_scores(self._classifier, vectors)
        if not gives_probabilities(self._classifier):
            scores = expit(scores) if self.multilabel else softmax(scores, axis=1)
        return scores.astype(np.float32)
