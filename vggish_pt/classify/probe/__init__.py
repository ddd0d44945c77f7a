"""Probing: cross-validation of simple classifiers on fixed features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggish_pt.classify.data.splits import Fold, cross_validation, scheme
from vggish_pt.classify.evaluation.metrics import Metrics, classification_metrics
from vggish_pt.classify.probe.estimators import (
    check_classifier,
    class_scores,
    fit,
    gives_probabilities,
    make_classifier,
)
from vggish_pt.classify.probe.features import FeatureExtractor, FeatureSettings
from vggish_pt.classify.probe.results import Fitted as Fitted
from vggish_pt.classify.probe.results import ProbeProgress as ProbeProgress
from vggish_pt.classify.probe.results import ProbeResult as ProbeResult
from vggish_pt.classify.probe.results import ProbeRow as ProbeRow
from vggish_pt.classify.probe.results import Watch as Watch
from vggish_pt.errors import AudioError, SettingsError

if TYPE_CHECKING:
    from vggish_pt.classify.data.examples import LabelledSet
    from vggish_pt.errors import VGGishError
    from vggish_pt.model import VGGish

_MAX_NAMED = 5  # errors that a message quotes


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
    """Cross-validate classifiers on features of labelled sounds.

    Features of a clip are computed once for each kind. Rounds follow the folds, splits or groups of the data; otherwise
    folds are drawn at random, stratified by class; see :func:`vggish_pt.classify.data.splits.cross_validation`.
    Standardisation is fitted within each round to the training clips.

    Args:
        data: the clips, from :func:`~vggish_pt.classify.data.labelled.read_labelled`.
        features: kinds of features, each once.
        classifiers: names; see :data:`vggish_pt.classify.probe.estimators.NAMES`.
        folds: number of rounds; None for 5, or for the number that the data give.
        seed: random seed of drawn folds and of forests.
        model: the VGGish to use instead of loading the weights that ``features`` name.
        device: device on which VGGish runs.
        workers: threads that decode, and threads of forests; results do not depend on them.
        skip_unreadable: True leaves out clips that cannot be read; otherwise they are an error.
        keep: True fits the best row to all clips, for saving.
        watch: called with each :class:`ProbeProgress`.

    Raises:
        SettingsError: invalid settings, or data that cannot be split.
        AudioError: clips that cannot be read; the message names the first ones.
        WeightsError: the weights do not exist.
    """
    _check_request(features, classifiers)
    cross_validation(data, folds=folds, seed=seed)  # faults of the data are found before audio is read
    watch = watch or (lambda _: None)
    tables: list[_Table] = []
    failures: list[tuple[str, VGGishError]] = []
    for settings in features:
        extractor = FeatureExtractor(settings, model=model if settings.kind == "vggish" else None, device=device)
        table, errors = _feature_table(extractor, data, workers, watch, keep=keep)
        if errors:
            _report(data, errors, watch, skip=skip_unreadable)
            failures += [(data.examples[place].item.path, error) for place, error in errors.items()]
            data = data.without(errors)
            tables = [other.without(errors) for other in tables]
        tables.append(table.without(errors))
    validation = _CrossValidation(data, data.targets(), cross_validation(data, folds=folds, seed=seed), seed, workers)
    rows: list[ProbeRow] = []
    best: tuple[ProbeRow, _Table] | None = None
    for table in tables:
        for name in classifiers:
            row = validation.row(table, name)
            watch(ProbeProgress("row", table.settings.name, row=row))
            rows.append(row)
            if keep and not table.settings.from_seed and (best is None or row.rank > best[0].rank):
                best = row, table
    fitted = None if best is None else validation.fit_all(*best)
    rounds = tuple(fold.name for fold in validation.folds)
    return ProbeResult(data, scheme(data), rounds, seed, tuple(rows), tuple(failures), fitted)


def _check_request(features: Sequence[FeatureSettings], classifiers: Sequence[str]) -> None:
    for name in classifiers:
        check_classifier(name)
    if not features or not classifiers:
        raise SettingsError("a probe needs at least one kind of features and one classifier")
    for names in ([settings.name for settings in features], list(classifiers)):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SettingsError(f"{twice} is given twice; name it once")


@dataclass(frozen=True)
class _Table:
    """Features of all clips: (n, d), with the settings and the weights that computed them."""

    settings: FeatureSettings
    values: NDArray[np.float32]
    weights: dict[str, str] | None

    def without(self, errors: dict[int, VGGishError]) -> _Table:
        """Return the table without the rows of clips that failed."""
        return _Table(self.settings, np.delete(self.values, list(errors), axis=0), self.weights) if errors else self


def _feature_table(
    extractor: FeatureExtractor, data: LabelledSet, workers: int, watch: Watch, *, keep: bool
) -> tuple[_Table, dict[int, VGGishError]]:
    settings = extractor.settings
    weights = extractor.weights() if keep and not settings.from_seed else None
    values, errors = extractor.table(
        data.items,
        workers=workers,
        watch=lambda done, total: watch(ProbeProgress("features", settings.name, done, total)),
    )
    return _Table(settings, values, weights), errors


def _report(data: LabelledSet, errors: dict[int, VGGishError], watch: Watch, *, skip: bool) -> None:
    for error in errors.values():
        watch(ProbeProgress("unreadable", text=str(error)))
    first = "; ".join(str(error) for error in list(errors.values())[:_MAX_NAMED])
    if len(errors) == len(data):
        raise AudioError(f"{data.name}: none of its {len(data)} sounds can be used: {first}")
    if not skip:
        more = f"; and {len(errors) - _MAX_NAMED} more" if len(errors) > _MAX_NAMED else ""
        raise AudioError(
            f"{data.name}: {len(errors)} of {len(data)} sounds cannot be used: {first}{more}; repair or remove them, "
            "or leave them out (--skip-unreadable)"
        )


@dataclass(frozen=True)
class _CrossValidation:
    data: LabelledSet
    targets: NDArray[np.int64]
    folds: Sequence[Fold]
    seed: int
    workers: int

    def row(self, table: _Table, name: str) -> ProbeRow:
        """Cross-validate a classifier on a table of features."""
        values, rounds, truths, scores = table.values, [], [], []
        threshold = 0.5
        for fold in self.folds:
            classifier = self._fitted(name, values[fold.train], self.targets[fold.train])
            threshold = 0.5 if gives_probabilities(classifier) else 0.0
            scores.append(class_scores(classifier, values[fold.test]))
            truths.append(self.targets[fold.test])
            rounds.append(self._metrics(truths[-1], scores[-1], threshold))
        pooled = self._metrics(np.concatenate(truths), np.concatenate(scores), threshold)
        return ProbeRow(table.settings, values.shape[1], name, tuple(rounds), pooled)

    def fit_all(self, row: ProbeRow, table: _Table) -> Fitted:
        """Fit the classifier of a row to all clips."""
        classifier = self._fitted(row.classifier, table.values, self.targets)
        # One clip of each class, of at most 16 classes.
        examples = table.values[np.unique(self.targets.argmax(axis=0))[:16]]
        check = examples, class_scores(classifier, examples)
        return Fitted(row, classifier, tuple(self.data.labels), check, table.weights)

    def _fitted(self, name: str, features: NDArray[np.float32], targets: NDArray[np.int64]) -> object:
        multilabel = self.data.multilabel
        classifier = make_classifier(name, multilabel=multilabel, seed=self.seed, workers=self.workers)
        fit(classifier, features, targets, multilabel=multilabel)
        return classifier

    def _metrics(self, targets: NDArray[np.int64], scores: NDArray[np.float64], threshold: float) -> Metrics:
        data = self.data
        return classification_metrics(targets, scores, data.labels, multilabel=data.multilabel, threshold=threshold)
