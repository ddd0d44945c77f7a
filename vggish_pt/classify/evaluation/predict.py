"""Predictions for many clips with a classifier of any kind."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vggish_pt.classify.evaluation.events import EventSettings, SoundEvent, find_events
from vggish_pt.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vggish_pt.audio.clip import Clip
    from vggish_pt.classify.prediction import Prediction
    from vggish_pt.errors import VGGishError
    from vggish_pt.inference.embeddings import Embeddings
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.model import VGGish


class Classifier(Protocol):
    """Interface of classifiers on top of VGGish, such as :class:`~vggish_pt.classify.VGGishClassifier`."""

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the scores."""

    @property
    def multilabel(self) -> bool:
        """True if a clip may have any number of labels."""

    @property
    def backbone(self) -> VGGish:
        """Network that computes the features."""

    def embed_settings(self, **settings: Any) -> EmbedSettings:
        """Return the settings of the backbone's embedding: those of training, replaced by ``settings``."""

    def reduce(self, values: Tensor) -> Tensor:
        """Reduce the (n, ...) features of windows to the (n, ...) values that :meth:`prediction` needs."""

    def prediction(self, result: Embeddings | VGGishError) -> Prediction | VGGishError:
        """Compute scores from the reduced windows of a source; an error is returned unchanged."""


def load_classifier(
    name_or_path: str | os.PathLike[str], *, device: str | torch.device | None = None, **place: Any
) -> Classifier:
    """Load a classifier of any kind.

    Args:
        name_or_path: a run folder, a Hub repository "user/name", or a folder that ``vggish-pt probe --out`` wrote.
        device: device of the network; None for the CPU.
        place: options for a Hub repository, as in :meth:`~vggish_pt.classify.VGGishClassifier.from_pretrained`.

    Raises:
        WeightsError: the classifier does not exist, is damaged, or was written by a newer version.
        DownloadError: the download failed.
    """
    from vggish_pt.classify.model import VGGishClassifier
    from vggish_pt.classify.probe.classifier import ProbeClassifier, is_probe

    if is_probe(Path(name_or_path)):
        return ProbeClassifier(Path(name_or_path), device=device)
    return VGGishClassifier.from_pretrained(name_or_path, device=device, **place)


def predict_clips(
    classifier: Classifier, items: Iterable[Clip], *, workers: int = 1, **settings: Any
) -> Generator[tuple[Clip, Prediction | VGGishError]]:
    """Yield the prediction of each clip in order. Closing the iterator early stops its threads.

    Memory use does not grow with the length of files, since only the scores of windows are stored, not their features.

    Args:
        classifier: the classifier.
        items: any iterable of clips; it is read only as far ahead as needed to fill batches.
        workers: threads that decode ahead; 0 for none.
        settings: as in :meth:`~vggish_pt.classify.VGGishClassifier.predict`.

    Yields:
        Each clip with its prediction or its error. Times are seconds in the file, also if the clip is a segment of it.

    Raises:
        SettingsError: an invalid setting.
        CheckpointError: scores are not finite, since the weights are damaged.
    """
    from vggish_pt.inference.pipeline import embed_clips

    chosen = classifier.embed_settings(**settings)
    results = embed_clips(classifier.backbone, items, chosen, workers=workers, reduce=classifier.reduce)

    def predictions() -> Generator[tuple[Clip, Prediction | VGGishError]]:
        with closing(results):
            for item, result in results:
                yield item, checked(classifier.prediction(result))

    return predictions()


def checked(result: Prediction | VGGishError) -> Prediction | VGGishError:
    """Return a prediction, after checking that its scores are finite, or an error unchanged.

    Raises:
        CheckpointError: scores are not finite. Audio is checked when it is read, so the weights must be damaged.
    """
    if not isinstance(result, Exception) and not result.window_scores.isfinite().all():
        raise CheckpointError(
            f"{result.source}: the classifier's scores are not finite; its weights are damaged, or its training went "
            "wrong: train it again"
        )
    return result


def prediction_events(
    prediction: Prediction, *, multilabel: bool, settings: EventSettings | None = None
) -> list[SoundEvent]:
    """Return the events of a prediction, none of which exceeds the end of the recording.

    Args:
        prediction: from :meth:`~vggish_pt.classify.VGGishClassifier.predict`.
        multilabel: True allows events of different labels to overlap.
        settings: rules for events; None for the defaults.
    """
    return find_events(
        prediction.window_scores.numpy(),
        prediction.start.numpy(),
        prediction.end.numpy(),
        prediction.labels,
        multilabel=multilabel,
        settings=settings,
        last=end_of_recording(prediction),
    )


def end_of_recording(prediction: Prediction) -> float | None:
    """Return the end of the recording in seconds of the file; None if it is not known."""
    return float(prediction.start[0]) + prediction.duration if prediction.duration else None
