"""Probing: how well simple classifiers tell classes apart from features that stay as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.classify.data.splits import Fold, Scheme, cross_validation, scheme
from vggish_pt.classify.evaluation.metrics import Metrics, classification_metrics
from vggish_pt.classify.probe.estimators import (
    check_classifier,
    class_scores,
    fit,
    gives_probabilities,
    make_classifier,
)
from vggish_pt.classify.probe.features import FeatureExtractor, FeatureSettings
from vggish_pt.errors import AudioError, SettingsError

if TYPE_CHECKING:
    from vggish_pt.classify.data.labelled import LabelledSet
    from vggish_pt.errors import VGGishError
    from vggish_pt.model import VGGish

_SHOWN = 5


@dataclass(frozen=True)
class ProbeProgress:
    """What probing tells those who watch it.

    Attributes:
        kind: "features" (``done`` of ``total`` sounds), "unreadable" (``text``), or "row" (``row``).
        name: of the features.
        done: how many.
        total: of how many.
        row: a row of the table that is ready.
        text: a sentence.
    """

    kind: str
    name: str = ""
    done: int = 0
    total: int = 0
    row: ProbeRow | None = None
    text: str = ""


Watch = Callable[[ProbeProgress], None]


@dataclass(frozen=True)
class ProbeRow:
    """One kind of features with one classifier.

    Attributes:
        features: which features.
        dimensions: numbers in a sound's vector.
        classifier: name of the classifier.
        rounds: figures of each round of cross-validation.
        pooled: figures of all clips that were tested with, each scored by a classifier that had not seen it.
    """

    features: FeatureSettings
    dimensions: int
    classifier: str
    rounds: tuple[Metrics, ...]
    pooled: Metrics

    @property
    def headline(self) -> str:
        """The figure that ranks rows: accuracy, or of several labels the mean average precision."""
        return "mean_average_precision" if self.pooled.multilabel else "accuracy"

    def values(self, figure: str | None = None) -> list[float]:
        """A figure of each round.

        Args:
            figure: as :meth:`~vggish_pt.classify.evaluation.metrics.Metrics.summary` calls it; None for the headline.
        """
        return [metrics.summary()[figure or self.headline] for metrics in self.rounds]

    def mean(self, figure: str | None = None) -> float:
        """The mean of a figure over rounds; NaN if a round does not have it."""
        values = self.values(figure)
        return sum(values) / len(values)  # of both infinities NaN, where fsum raises

    def spread(self, figure: str | None = None) -> float:
        """The (sample) standard deviation of a figure over rounds; NaN of one round."""
        values = self.values(figure)
        return float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else math.nan

    def to_dict(self) -> dict[str, Any]:
        """In JSON types; None for what is not defined."""
        figures = [name for name in self.rounds[0].summary() if all(name in m.summary() for m in self.rounds)]
        return {
            "features": self.features.name,
            "settings": self.features.to_dict(),
            "dimensions": self.dimensions,
            "classifier": self.classifier,
            "mean": {name: _number(self.mean(name)) for name in figures},
            "spread": {name: _number(self.spread(name)) for name in figures},
            "rounds": {name: [_number(value) for value in self.values(name)] for name in figures},
            "pooled": self.pooled.to_dict(),
        }


@dataclass(frozen=True)
class ProbeResult:
    """What probing found.

    Attributes:
        data: the clips that were used.
        scheme: how they were divided: "fold", "split", "group" or "stratified".
        rounds: names of the rounds.
        seed: of what was drawn.
        rows: by features, then by classifier, in the order in which they were asked for.
        failures: clips that could not be used, and why; they are not among ``data``.
        fitted: the best row that can be saved, with its classifier fitted to all clips; None if no row can.
    """

    data: LabelledSet
    scheme: Scheme
    rounds: tuple[str, ...]
    seed: int
    rows: tuple[ProbeRow, ...]
    failures: tuple[tuple[str, VGGishError], ...]
    fitted: Fitted | None = field(default=None, repr=False)

    @property
    def best(self) -> ProbeRow:
        """The row with the highest mean; of equals, the first."""
        return max(self.rows, key=lambda row: _rank(row.mean()))

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "data": self.data.name,
            "clips": len(self.data),
            "labels": self.data.labels,
            "multilabel": self.data.multilabel,
            "scheme": self.scheme,
            "rounds": list(self.rounds),
            "seed": self.seed,
            "figure": self.rows[0].headline,
            "rows": [row.to_dict() for row in self.rows],
            "failures": [{"path": path, "reason": str(error)} for path, error in self.failures],
        }


@dataclass(frozen=True)
class Fitted:
    """A classifier that was fitted to all clips of a set.

    Attributes:
        row: what cross-validation says of it.
        classifier: the scikit-learn pipeline.
        labels: names of the classes.
        check: (m, d) features of some clips, and their scores (m, classes): a saved pipeline that is loaded
            elsewhere must give the same.
        weights: which weights the features are of: name, licence, and SHA-256 of the file; None for a baseline.
    """

    row: ProbeRow
    classifier: Any
    labels: tuple[str, ...]
    check: tuple[NDArray[np.float32], NDArray[np.float64]]
    weights: dict[str, str] | None


def probe(
    data: LabelledSet,
    features: Sequence[FeatureSettings] = (FeatureSettings(),),
    classifiers: Sequence[str] = ("logistic",),
    *,
    folds: int | None = None,
    seed: int = 0,
    model: VGGish | None = None,
    device: str = "cpu",
    workers: int = 1,
    skip_unreadable: bool = False,
    keep: bool = True,
    watch: Watch | None = None,
) -> ProbeResult:
    """Cross-validates classifiers on features of labelled sounds.

    Each sound is turned into features once for each kind of them. Rounds go by fold, split or group where the data give
    them, else by chance with each class shared out evenly; see :func:`vggish_pt.classify.data.splits.cross_validation`.
    Standardisation is learned within each round from the clips that are learned from.

    Args:
        data: the sounds, as :func:`~vggish_pt.classify.data.labelled.read_labelled` gives them.
        features: which features, each kind once.
        classifiers: names; see :data:`vggish_pt.classify.probe.estimators.NAMES`.
        folds: number of rounds; None for 5, or for what the data give.
        seed: of rounds that are drawn and of forests.
        model: the VGGish to use instead of loading the weights that ``features`` name.
        device: where VGGish runs.
        workers: threads that decode, and that forests use; results do not depend on them.
        skip_unreadable: whether to go on without sounds that cannot be read; otherwise they are an error.
        keep: whether to fit the best row to all clips, to be saved.
        watch: is told how far it is.

    Raises:
        SettingsError: settings, or data that cannot be divided; the message says why.
        AudioError: sounds that cannot be read, of which it names the first ones.
        WeightsError: no such weights.
    """
    watch = watch or (lambda _: None)
    for name in classifiers:
        check_classifier(name)
    if not features or not classifiers:
        raise SettingsError("a probe needs one kind of features and one classifier at least")
    for names in ([settings.name for settings in features], list(classifiers)):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SettingsError(f"{twice} is asked for twice; name it once")
    cross_validation(data, folds=folds, seed=seed)  # whatever is wrong with the data is found before audio is read
    failures: list[tuple[str, VGGishError]] = []
    rows: list[ProbeRow] = []
    best: tuple[ProbeRow, NDArray[np.float32], dict[str, str] | None] | None = None
    tables: list[NDArray[np.float32]] = []
    origins: list[dict[str, str] | None] = []
    for settings in features:
        extractor = FeatureExtractor(settings, model=model if settings.kind == "vggish" else None, device=device)
        origins.append(_origin(extractor) if keep and not settings.from_seed else None)

        def progress(done: int, total: int, name: str = settings.name) -> None:
            watch(ProbeProgress("features", name, done, total))

        table, errors = extractor.table(data.items, workers=workers, watch=progress)
        if errors:
            _report(data, errors, watch, skip=skip_unreadable)
            failures += [(data.examples[place].item.path, error) for place, error in errors.items()]
            data = data.without(errors)
            tables = [np.delete(other, list(errors), axis=0) for other in tables]
            table = np.delete(table, list(errors), axis=0)
        tables.append(table)
    splits = cross_validation(data, folds=folds, seed=seed)
    targets = data.targets()
    for settings, table, origin in zip(features, tables, origins, strict=True):
        for name in classifiers:
            row = _cross_validate(data, targets, splits, settings, table, name, seed, workers)
            watch(ProbeProgress("row", settings.name, row=row))
            rows.append(row)
            better = best is None or _rank(row.mean()) > _rank(best[0].mean())
            if keep and not settings.from_seed and better:
                best = row, table, origin
    fitted = None if best is None else _fit_all(data, targets, *best, seed, workers)
    rounds = tuple(split.name for split in splits)
    return ProbeResult(data, scheme(data), rounds, seed, tuple(rows), tuple(failures), fitted)


def _report(data: LabelledSet, errors: dict[int, VGGishError], watch: Watch, *, skip: bool) -> None:
    for error in errors.values():
        watch(ProbeProgress("unreadable", text=str(error)))
    shown = "; ".join(str(error) for error in list(errors.values())[:_SHOWN])
    if len(errors) == len(data):
        raise AudioError(f"{data.name}: none of its {len(data)} sounds can be used: {shown}")
    if not skip:
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise AudioError(
            f"{data.name}: {len(errors)} of {len(data)} sounds cannot be used: {shown}{more}; repair or remove them, "
            "or go on without them (--skip-unreadable)"
        )


def _origin(extractor: FeatureExtractor) -> dict[str, str] | None:
    if extractor.model is None:
        return None
    config = extractor.model.config
    return {"name": config.name, "license": config.license, "sha256": network_digest(extractor.model)}


def network_digest(model: VGGish) -> str:
    """SHA-256 of a network's parameters, by which its weights are known wherever they came from."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _cross_validate(
    data: LabelledSet,
    targets: NDArray[np.int64],
    splits: Sequence[Fold],
    settings: FeatureSettings,
    table: NDArray[np.float32],
    name: str,
    seed: int,
    workers: int,
) -> ProbeRow:
    rounds, truths, scores = [], [], []
    threshold = 0.5
    for split in splits:
        classifier = make_classifier(name, multilabel=data.multilabel, seed=seed, workers=workers)
        fit(classifier, table[split.train], targets[split.train], multilabel=data.multilabel)
        threshold = 0.5 if gives_probabilities(classifier) else 0.0
        scores.append(class_scores(classifier, table[split.test]))
        truths.append(targets[split.test])
        rounds.append(_measure(truths[-1], scores[-1], data, threshold))
    pooled = _measure(np.concatenate(truths), np.concatenate(scores), data, threshold)
    return ProbeRow(settings, table.shape[1], name, tuple(rounds), pooled)


def _measure(targets: NDArray[np.int64], scores: NDArray[np.float64], data: LabelledSet, threshold: float) -> Metrics:
    return classification_metrics(targets, scores, data.labels, multilabel=data.multilabel, threshold=threshold)


def _fit_all(
    data: LabelledSet,
    targets: NDArray[np.int64],
    row: ProbeRow,
    table: NDArray[np.float32],
    weights: dict[str, str] | None,
    seed: int,
    workers: int,
) -> Fitted:
    classifier = make_classifier(row.classifier, multilabel=data.multilabel, seed=seed, workers=workers)
    fit(classifier, table, targets, multilabel=data.multilabel)
    # A clip of each class, and some of them if there are many.
    shown = table[np.unique(targets.argmax(axis=0))[:16]]
    return Fitted(row, classifier, tuple(data.labels), (shown, class_scores(classifier, shown)), weights)


def _rank(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
