"""A saved probe: features, classifier and labels in a folder, so that it can say what is heard in other files.

The folder holds ``probe.json`` (settings, labels, versions, figures), ``classifier.skops`` (the scikit-learn pipeline,
in skops' format, which is read without unpickling) and ``check.safetensors`` (features of a few clips and what the
classifier said of them).
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.clip import Clip
from vggish_pt.classify.probe import Fitted, network_digest
from vggish_pt.classify.probe.estimators import check_classifier, class_scores, gives_probabilities, make_classifier
from vggish_pt.classify.probe.features import FeatureExtractor, FeatureSettings
from vggish_pt.errors import CheckpointError, OutputError, SettingsError, VGGishError, WeightsError
from vggish_pt.nn.config import check_format_version
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.optional import require
from vggish_pt.utils.versions import versions

FORMAT = "vggish_pt_probe"
FORMAT_VERSION = 1
CONFIG_NAME = "probe.json"
CLASSIFIER_NAME = "classifier.skops"
CHECK_NAME = "check.safetensors"

# Types that skops does not trust by itself, all of scikit-learn: compiled ones, whose state is checked below.
_TRUSTED = ("sklearn.tree._tree.Tree",)
_LIBRARIES = ("scikit-learn", "skops", "numpy", "librosa", "torch")
_MAX_CONFIG_BYTES = 1 << 26
_AGREE = 1e-6  # of the largest score


@dataclass(frozen=True)
class ProbePrediction:
    """What a probe says of one file.

    Attributes:
        scores: (classes,) float64: probabilities, or of an SVM decisions, larger for more likely.
        labels: names of the classes.
        predicted: the class with the highest score; multi-label, all that are more likely than not, maybe none.
        source: the file.
    """

    scores: NDArray[np.float64]
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    source: str = field(default="", compare=False)

    @property
    def best(self) -> str:
        """The class with the highest score."""
        return self.labels[int(self.scores.argmax())]


class Probe:
    """Features and a classifier that was fitted to them; from :func:`load_probe`.

    Attributes:
        labels: names of the classes.
        multilabel: whether a file may have several.
        features: which features.
        name: of the classifier.
        classifier: the scikit-learn pipeline, from features to classes (numbers of labels).
        config: all that ``probe.json`` says, the figures of cross-validation among it.
    """

    def __init__(self, config: dict[str, Any], classifier: Any, extractor: FeatureExtractor) -> None:
        self.labels = tuple(config["labels"])
        self.multilabel: bool = config["multilabel"]
        self.features = extractor.settings
        self.name: str = config["classifier"]
        self.classifier = classifier
        self.config = config
        self._extractor = extractor

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
        """What is heard in audio files.

        Args:
            files: one path, or many; many in, a list out.
            workers: threads that decode ahead; 0 for none.

        Raises:
            AudioError: a file that cannot be read; the message names it.
        """
        one = isinstance(files, str | os.PathLike)
        many: Iterable[str | os.PathLike[str]] = [files] if isinstance(files, str | os.PathLike) else files
        found = []
        with closing(self.predict_iter(many, workers=workers)) as results:
            for result in results:
                if isinstance(result, VGGishError):
                    raise result
                found.append(result)
        return found[0] if one else found

    def predict_iter(
        self, files: Iterable[str | os.PathLike[str]], *, workers: int = 1
    ) -> Generator[ProbePrediction | VGGishError, None, None]:
        """Like :meth:`predict`, one at a time, in order; a file that cannot be read gives its error."""
        items = [Clip(os.fspath(file), place) for place, file in enumerate(files)]
        with closing(self._extractor.vectors(items, workers=workers)) as vectors:
            for item, vector in zip(items, vectors, strict=True):
                if isinstance(vector, VGGishError):
                    yield vector
                    continue
                scores = class_scores(self.classifier, vector[None])[0]
                yield ProbePrediction(scores, self.labels, self._predicted(scores), item.path)

    def _predicted(self, scores: NDArray[np.float64]) -> tuple[str, ...]:
        if not self.multilabel:
            return (self.labels[int(scores.argmax())],)
        threshold = 0.5 if gives_probabilities(self.classifier) else 0.0
        return tuple(label for label, score in zip(self.labels, scores, strict=True) if score >= threshold)


def save_probe(fitted: Fitted, folder: Path) -> None:
    """Writes a fitted row of a probe into a folder, which is made if need be; one that is there is replaced.

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
        "versions": versions(*_LIBRARIES),
        "figures": {key: row.to_dict()[key] for key in ("mean", "spread", "rounds")},
    }
    features, scores = fitted.check
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).unlink(missing_ok=True)  # written last: a folder without it is no probe
        _write(folder / CLASSIFIER_NAME, skops.dumps(fitted.classifier))
        _write(folder / CHECK_NAME, save({"features": features, "scores": np.ascontiguousarray(scores)}))
        _write(folder / CONFIG_NAME, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error


def load_probe(
    folder: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None, device: str = "cpu"
) -> Probe:
    """Reads a probe that ``vggish-pt probe --out`` saved. Nothing is unpickled.

    With another version of scikit-learn than it was made with, it is used as long as it gives the same scores of the
    clips that are saved with it, with a warning.

    Args:
        folder: the folder.
        weights: where the weights lie now, if they were in a model folder that was moved; None for where they were.
        device: where VGGish runs.

    Raises:
        CheckpointError: no probe's folder, a damaged one, one of a newer version, or one that this scikit-learn cannot
            use; the message says what to do.
        WeightsError: the weights cannot be had, or are not those that the probe was made with.
        MissingDependencyError: skops is not installed.
    """
    folder = Path(folder)
    config = _read_config(folder)
    classifier = _read_classifier(folder, config)
    _check_scores(folder, config, classifier)
    settings = FeatureSettings.from_dict(config["features"])
    if weights is not None:
        settings = replace(settings, weights=os.fspath(weights))
    extractor = FeatureExtractor(settings, device=device)
    if extractor.model is not None and network_digest(extractor.model) != config["weights"]["sha256"]:
        raise WeightsError(
            f"{folder}: made with weights {config['weights']['name']!r}, and those of {settings.weights} are others; "
            "name the right ones (load_probe(folder, weights=...)), or run vggish-pt probe again"
        )
    return Probe(config, classifier, extractor)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: not a probe's folder ({CONFIG_NAME}: {error.strerror or error}); "
            "vggish-pt probe DATA --out FOLDER makes one"
        ) from None
    try:
        config = json.loads(raw) if len(raw) <= _MAX_CONFIG_BYTES else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(f"{path}: no probe's settings; the folder is damaged, or something else")
    check_format_version(config, FORMAT_VERSION, str(path))
    try:
        labels, dimensions, versions = config["labels"], config["dimensions"], config["versions"]
        settings = FeatureSettings.from_dict(config["features"])
        check_classifier(config["classifier"])
        weights = config["weights"]
        sound = (
            isinstance(labels, list)
            and len(labels) > 1
            and all(isinstance(label, str) for label in labels)
            and isinstance(config["multilabel"], bool)
            and isinstance(dimensions, int)
            and isinstance(versions, dict)
            and (settings.kind != "vggish" or (isinstance(weights, dict) and {"name", "sha256"} <= weights.keys()))
        )
    except (KeyError, SettingsError) as error:
        raise CheckpointError(f"{path}: it lacks or misstates something ({error}); the folder is damaged") from None
    if not sound:
        raise CheckpointError(f"{path}: a value of a wrong type; the folder is damaged")
    return config


def _read_classifier(folder: Path, config: dict[str, Any]) -> Any:
    path = folder / CLASSIFIER_NAME
    skops = require("skops.io", "reading a probe")
    try:
        with zipfile.ZipFile(path) as archive:
            # Stored as it is, so that no small file asks for much memory.
            packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
        untrusted = sorted(set(skops.get_untrusted_types(file=path)) - set(_TRUSTED)) if not packed else []
    except Exception as error:  # skops and zipfile raise many kinds for damage
        raise CheckpointError(f"{path}: cannot be read ({_line(error)}); the folder is damaged") from None
    if packed or untrusted:
        what = f"types that no probe has ({', '.join(untrusted[:5])})" if untrusted else "compressed parts"
        raise CheckpointError(f"{path}: holds {what}; it was not written by vggish-pt probe, and is not loaded")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's, one for each part; ours follows, and is checked
            classifier = skops.load(path, trusted=list(_TRUSTED))
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be loaded ({_line(error)}); {_advice(config)}") from None
    if not _is_expected(classifier, config):
        raise CheckpointError(
            f"{path}: not the classifier of {config['dimensions']} features that {CONFIG_NAME} promises; it was "
            "damaged or exchanged"
        )
    return classifier


def _is_expected(classifier: Any, config: dict[str, Any]) -> bool:
    """Whether it is built as :func:`make_classifier` builds, with trees that lead nowhere else."""
    multilabel, dimensions = config["multilabel"], config["dimensions"]
    template = make_classifier(config["classifier"], multilabel=multilabel)
    try:
        if type(classifier) is not type(template) or classifier.n_features_in_ != dimensions:
            return False
        if [(name, type(step)) for name, step in classifier.steps] != [(n, type(s)) for n, s in template.steps]:
            return False
        last = classifier.steps[-1][1]
        parts = last.estimators_ if multilabel else [last]
        expected = type(template.steps[-1][1].estimator if multilabel else template.steps[-1][1])
        count = len(parts) if multilabel else len(last.classes_)
        if count != len(config["labels"]) or any(type(part) is not expected for part in parts):
            return False
        if config["classifier"] == "forest":
            trees = [tree.tree_ for part in parts for tree in part.estimators_]
            return all(_tree_is_sound(tree, dimensions) for tree in trees)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _tree_is_sound(tree: Any, dimensions: int) -> bool:
    """Whether going down a tree, in compiled code that does not look, stays within it and ends."""
    from sklearn.tree._tree import Tree

    if type(tree) is not Tree or tree.n_features != dimensions:
        return False
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    place = np.arange(tree.node_count)
    inner = left != -1
    children = [side[inner] for side in (left, right)]
    return (
        tree.node_count > 0
        and len(tree.value) == tree.node_count
        and bool((right[~inner] == -1).all())
        and all(bool(((side > place[inner]) & (side < tree.node_count)).all()) for side in children)
        and bool(((feature[inner] >= 0) & (feature[inner] < dimensions)).all())
    )


def _check_scores(folder: Path, config: dict[str, Any], classifier: Any) -> None:
    """Makes sure that the classifier says of some clips what it said when it was saved."""
    from safetensors import SafetensorError, safe_open

    path = folder / CHECK_NAME
    try:
        with safe_open(path, framework="np") as file:
            features, expected = file.get_tensor("features"), file.get_tensor("scores")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({_line(error)}); the folder is damaged") from None
    if features.ndim != 2 or features.shape[1] != config["dimensions"]:
        raise CheckpointError(f"{path}: features of shape {features.shape}; the folder is damaged")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = class_scores(classifier, features)
        same = scores.shape == expected.shape and np.allclose(scores, expected, 0, _AGREE * np.abs(expected).max())
    except Exception as error:  # of a part that this scikit-learn does not know, say
        raise CheckpointError(f"{folder}: the classifier fails ({_line(error)}); {_advice(config)}") from None
    if not same:
        raise CheckpointError(f"{folder}: the classifier gives other scores than when it was saved; {_advice(config)}")
    made, here = config["versions"].get("scikit-learn"), version("scikit-learn")
    if made != here:
        warnings.warn(
            f"{folder}: made with scikit-learn {made}, and {here} is installed; scores of {len(features)} saved clips "
            "agree, so it is used",
            stacklevel=3,
        )


def _advice(config: dict[str, Any]) -> str:
    made, here = str(config["versions"].get("scikit-learn")), version("scikit-learn")
    if made == here:
        return "the folder is damaged; run vggish-pt probe again"
    return (
        f"it was made with scikit-learn {made}, and {here} is installed: run vggish-pt probe again, or "
        f"pip install scikit-learn=={made}"
    )


def _write(path: Path, content: bytes) -> None:
    with whole_file(path, overwrite=True) as file:
        file.write(content)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
