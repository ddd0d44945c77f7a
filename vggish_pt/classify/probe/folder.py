"""Saved probes: features, classifier and labels in a folder, for predictions on other files.

The folder holds ``probe.json`` (settings, labels, versions, figures), ``classifier.skops`` (the scikit-learn pipeline,
in skops' format, read without unpickling) and ``check.safetensors`` (features of a few clips and their scores).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.clip import Clip
from vggish_pt.classify.probe.estimators import check_classifier, class_scores, gives_probabilities
from vggish_pt.classify.probe.features import FeatureExtractor, FeatureSettings
from vggish_pt.classify.probe.results import Fitted
from vggish_pt.classify.probe.verify import LIBRARIES, check_scores, read_pipeline
from vggish_pt.errors import CheckpointError, OutputError, SettingsError, VGGishError, WeightsError
from vggish_pt.nn.config import check_format_version
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.json_file import read_object, write_object
from vggish_pt.utils.optional import require
from vggish_pt.utils.text import error_reason
from vggish_pt.utils.versions import versions

FORMAT = "vggish_pt_probe"
FORMAT_VERSION = 1
CONFIG_NAME = "probe.json"
CLASSIFIER_NAME = "classifier.skops"
CHECK_NAME = "check.safetensors"
_MAX_CONFIG_BYTES = 1 << 26


@dataclass(frozen=True)
class ProbePrediction:
    """Prediction of a probe for one file.

    Attributes:
        scores: (classes,) float64: probabilities; for an SVM the values of its decision function, larger for more
            likely.
        labels: names of the classes.
        predicted: the class with the highest score; multi-label, all classes above the threshold, possibly none.
        source: the file.
    """

    scores: NDArray[np.float64]
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    source: str = field(default="", compare=False)

    @property
    def best(self) -> str:
        """Class with the highest score."""
        return self.labels[int(self.scores.argmax())]


class Probe:
    """Features and a classifier that was fitted to them; from :func:`load_probe`.

    Attributes:
        labels: names of the classes.
        multilabel: True if a file may have several labels.
        features: settings of the features.
        name: name of the classifier.
        classifier: the scikit-learn pipeline, from features to class indices.
        config: contents of ``probe.json``, with the figures of the cross-validation.
        extractor: extractor of the features.
    """

    def __init__(self, config: dict[str, Any], classifier: Any, extractor: FeatureExtractor) -> None:
        self.labels = tuple(config["labels"])
        self.multilabel: bool = config["multilabel"]
        self.features = extractor.settings
        self.name: str = config["classifier"]
        self.classifier = classifier
        self.config = config
        self.extractor = extractor

    def __repr__(self) -> str:
        return f"Probe({self.features.name}, {self.name}, {len(self.labels)} classes)"

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str, but one file
        self, files: str | os.PathLike[str], *, workers: int = 1
    ) -> ProbePrediction: ...

    @overload
    def predict(self, files: Iterable[str | os.PathLike[str]], *, workers: int = 1) -> list[ProbePrediction]: ...

    def predict(
        self, files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, workers: int = 1
    ) -> ProbePrediction | list[ProbePrediction]:
        """Predict the classes of audio files.

        Args:
            files: one path, or any iterable of paths, for which a list is returned.
            workers: threads that decode ahead; 0 for none.

        Raises:
            AudioError: a file cannot be read; the message names it.
        """
        one = isinstance(files, str | os.PathLike)
        many: Iterable[str | os.PathLike[str]] = [files] if isinstance(files, str | os.PathLike) else files
        predictions = []
        with closing(self.predict_iter(many, workers=workers)) as results:
            for result in results:
                if isinstance(result, VGGishError):
                    raise result
                predictions.append(result)
        return predictions[0] if one else predictions

    def predict_iter(
        self, files: Iterable[str | os.PathLike[str]], *, workers: int = 1
    ) -> Generator[ProbePrediction | VGGishError, None, None]:
        """Yield the prediction of each file in order, or the error of a file that cannot be read."""
        clips = [Clip(os.fspath(file), number) for number, file in enumerate(files)]
        with closing(self.extractor.vectors(clips, workers=workers)) as vectors:
            for clip, vector in zip(clips, vectors, strict=True):
                if isinstance(vector, VGGishError):
                    yield vector
                    continue
                scores = class_scores(self.classifier, vector[None])[0]
                yield ProbePrediction(scores, self.labels, self._predicted(scores), clip.path)

    def _predicted(self, scores: NDArray[np.float64]) -> tuple[str, ...]:
        if not self.multilabel:
            return (self.labels[int(scores.argmax())],)
        threshold = 0.5 if gives_probabilities(self.classifier) else 0.0
        return tuple(label for label, score in zip(self.labels, scores, strict=True) if score >= threshold)


def save_probe(fitted: Fitted, folder: Path) -> None:
    """Write a fitted row of a probe into a folder. The folder is created if missing; a probe in it is replaced.

    Raises:
        OutputError: the folder cannot be written.
        MissingDependencyError: skops is not installed.
    """
    from safetensors.numpy import save

    skops = require("skops.io", "saving a probe")
    row = fitted.row
    settings = row.features
    if settings.kind == "vggish" and Path(settings.weights).is_dir():
        settings = replace(settings, weights=str(Path(settings.weights).resolve()))
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "labels": list(fitted.labels),
        "multilabel": row.pooled.multilabel,
        "classifier": row.classifier,
        "features": settings.to_dict(),
        "dimensions": row.dimensions,
        "weights": fitted.weights,
        "versions": versions(*LIBRARIES),
        "figures": {key: row.to_dict()[key] for key in ("mean", "spread", "rounds")},
    }
    features, scores = fitted.check
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).unlink(missing_ok=True)  # written last: a folder without it is no probe
        contents = {
            CLASSIFIER_NAME: skops.dumps(fitted.classifier),
            CHECK_NAME: save({"features": features, "scores": np.ascontiguousarray(scores)}),
        }
        for name, content in contents.items():
            with whole_file(folder / name, overwrite=True) as file:
                file.write(content)
        write_object(folder / CONFIG_NAME, config)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error_reason(error)})") from error


def load_probe(
    folder: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None, device: str = "cpu"
) -> Probe:
    """Load a probe that ``vggish-pt probe --out`` saved, without unpickling.

    A probe that was fitted with another version of scikit-learn is used, with a warning, if it gives the saved scores
    for the clips that are saved with it.

    Args:
        folder: the folder.
        weights: new address of the weights, if they were in a model folder that was moved; None for the saved address.
        device: device on which VGGish runs.

    Raises:
        CheckpointError: the folder holds no probe, or is damaged, from a newer version, or unusable with this version
            of scikit-learn.
        WeightsError: the weights are not available, or differ from those that computed the probe's features.
        MissingDependencyError: skops is not installed.
    """
    folder = Path(folder)
    config = _read_config(folder)
    classifier = read_pipeline(folder / CLASSIFIER_NAME, config)
    check_scores(folder / CHECK_NAME, config, classifier)
    settings = FeatureSettings.from_dict(config["features"])
    if weights is not None:
        settings = replace(settings, weights=os.fspath(weights))
    extractor = FeatureExtractor(settings, device=device)
    weights_here = extractor.weights()
    if weights_here is not None and weights_here["sha256"] != config["weights"]["sha256"]:
        raise WeightsError(
            f"{folder}: fitted with weights {config['weights']['name']!r}, but {settings.weights} holds other weights; "
            "name the right ones (load_probe(folder, weights=...)), or run vggish-pt probe again"
        )
    return Probe(config, classifier, extractor)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    try:
        config = read_object(path, max_bytes=_MAX_CONFIG_BYTES)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: not a probe's folder ({CONFIG_NAME}: {error_reason(error)}); "
            "vggish-pt probe DATA --out FOLDER makes one"
        ) from None
    if config.get("format") != FORMAT:
        raise CheckpointError(f'{path}: not a probe (its "format" is not "{FORMAT}")')
    check_format_version(config, FORMAT_VERSION, str(path))
    try:
        labels, dimensions = config["labels"], config["dimensions"]
        settings = FeatureSettings.from_dict(config["features"])
        check_classifier(config["classifier"])
        weights = config["weights"]
        valid = (
            isinstance(labels, list)
            and len(labels) > 1
            and all(isinstance(label, str) for label in labels)
            and isinstance(config["multilabel"], bool)
            and isinstance(dimensions, int)
            and isinstance(config["versions"], dict)
            and (settings.kind != "vggish" or (isinstance(weights, dict) and {"name", "sha256"} <= weights.keys()))
        )
    except (KeyError, SettingsError) as error:
        raise CheckpointError(f"{path}: a setting is missing or invalid ({error}); the folder is damaged") from None
    if not valid:
        raise CheckpointError(f"{path}: a setting has the wrong type; the folder is damaged")
    return config
