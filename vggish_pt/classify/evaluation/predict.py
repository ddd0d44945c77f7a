"""Many inputs through a classifier: what the commands ``predict``, ``evaluate`` and ``stream`` share."""

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
    from vggish_pt.classify.model import Prediction
    from vggish_pt.errors import VGGishError
    from vggish_pt.inference.embeddings import Embeddings
    from vggish_pt.inference.settings import EmbedSettings
    from vggish_pt.model import VGGish


class Classifier(Protocol):
    """Something on top of VGGish that gives scores: :class:`~vggish_pt.classify.VGGishClassifier`, for one."""

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the scores."""

    @property
    def multilabel(self) -> bool:
        """Whether a clip may have any number of labels."""

    @property
    def backbone(self) -> VGGish:
        """The network below."""

    def embed_settings(self, **settings: Any) -> EmbedSettings:
        """How the backbone must embed; ``settings`` where they shall differ from those of training."""

    def reduce(self, values: Tensor) -> Tensor:
        """What :meth:`prediction` needs of the features of some windows: (n, ...) → (n, ...)."""

    def prediction(self, result: Embeddings | VGGishError) -> Prediction | VGGishError:
        """The reduced windows of a source → scores; an error is passed on."""


def load_classifier(
    name_or_path: str | os.PathLike[str], *, device: str | torch.device | None = None, **place: Any
) -> Classifier:
    """Loads a classifier of any kind.

    Args:
        name_or_path: a run folder, a Hub repository "user/name", or a folder that ``vggish-pt probe --out`` wrote.
        device: where to put it; None for the CPU.
        place: of a Hub repository, as :meth:`~vggish_pt.classify.VGGishClassifier.from_pretrained` takes it.

    Raises:
        WeightsError: no such classifier, or one that is damaged or of a newer version.
        DownloadError: it cannot be downloaded.
    """
    from vggish_pt.classify.model import VGGishClassifier
    from vggish_pt.classify.probe.classifier import ProbeClassifier, is_probe

    if is_probe(Path(name_or_path)):
        return ProbeClassifier(Path(name_or_path), device=device)
    return VGGishClassifier.from_pretrained(name_or_path, device=device, **place)


def predict_clips(
    classifier: Classifier, items: Iterable[Clip], *, workers: int = 1, **settings: Any
) -> Generator[tuple[Clip, Prediction | VGGishError]]:
    """Scores of the inputs of a data set, in order; closing the iterator early stops its threads.

    Memory holds scores of windows, not their features, so long files do not swell it.

    Args:
        classifier: the classifier.
        items: any iterable; it is read as far ahead as needed to fill batches.
        workers: threads that decode ahead; 0 for none.
        settings: as in :meth:`~vggish_pt.classify.VGGishClassifier.predict`.

    Yields:
        Each input with its prediction, or the error that says why there is none. Times are seconds in the file, also
        where the item is a part of it.

    Raises:
        SettingsError: a setting outside what it may be.
        CheckpointError: scores that are not finite, as of damaged weights.
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
    """What it was given, if scores are finite.

    Raises:
        CheckpointError: they are not. Sound is checked before, so the weights must be damaged.
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
    """The events of a prediction; none beyond the sound's end.

    Args:
        prediction: from :meth:`~vggish_pt.classify.VGGishClassifier.predict`.
        multilabel: whether events of different labels may overlap.
        settings: None for the defaults.
    """
    return find_events(
        prediction.window_scores.numpy(),
        prediction.start.numpy(),
        prediction.end.numpy(),
        prediction.labels,
        multilabel=multilabel,
        settings=settings,
        last=end_of_sound(prediction),
    )


def end_of_sound(prediction: Prediction) -> float | None:
    """Seconds in the file at which the sound ends; None if that is not known."""
    return float(prediction.start[0]) + prediction.duration if prediction.duration else None
