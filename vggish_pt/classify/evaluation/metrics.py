"""Metrics of a classifier's scores on labelled clips, over all classes and for each class.

Undefined values are NaN and are left out of means: a class without clips has no recall, average precision or AUC;
:attr:`Metrics.without_examples` names such classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggish_pt.errors import SettingsError
from vggish_pt.utils.json_file import object_text

DEFAULT_THRESHOLD = 0.5
BINS = 15


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class against all others.

    Attributes:
        label: name of the class.
        support: number of clips of the class.
        predicted: number of clips that are predicted as the class.
        correct: number of these that are of the class.
        precision: correct / predicted; 0 if the class is never predicted.
        recall: correct / support.
        f1: harmonic mean of precision and recall.
        average_precision: area under the precision-recall curve, in steps.
        auc: area under the ROC curve; NaN also if every clip is of the class.
    """

    label: str
    support: int
    predicted: int
    correct: int
    precision: float
    recall: float
    f1: float
    average_precision: float
    auc: float


@dataclass(frozen=True)
class Reliability:
    """Calibration of scores in bins of equal width (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

    Single-label, a clip counts once, with the score of the predicted class. Multi-label, it counts once for each class.

    Attributes:
        edges: limits of the bins, one more than bins.
        count: number of scores in each bin.
        score: mean score of each bin; NaN for an empty bin.
        frequency: share of each bin that is correct (single-label) or has the class (multi-label); NaN for an empty
            bin.
        error: expected calibration error: the mean of ``|score - frequency|``, weighted by ``count``.
    """

    edges: tuple[float, ...]
    count: tuple[int, ...]
    score: tuple[float, ...]
    frequency: tuple[float, ...]
    error: float


@dataclass(frozen=True)
class Metrics:
    """Metrics of a classifier on labelled clips. Macro averages weight each class equally.

    Attributes:
        multilabel: True if a clip may have any number of labels.
        examples: number of clips.
        labels: names of the classes, in the order of the scores.
        threshold: lowest score of a predicted label; used for multi-label only.
        accuracy: share of clips whose predicted labels are exactly the true ones.
        macro_precision: mean over classes.
        macro_recall: mean over classes; single-label, also called balanced accuracy.
        macro_f1: mean over classes.
        mean_average_precision: mAP, the mean of average precisions over classes.
        auc: mean over classes.
        d_prime: ``sqrt(2) * inverse normal CDF(auc)`` of the mean AUC; formula of Hershey et al., "CNN Architectures
            for Large-Scale Audio Classification" (ICASSP 2017). Infinite for an AUC of 1.
        per_class: metrics of each class, in the order of the labels.
        confusion: single-label, row i and column j hold the number of clips of class i that are predicted as class j.
            Multi-label, a row for each class: hits, misses, and false alarms.
        reliability: calibration of the scores; None if the scores are not probabilities.
        without_examples: classes without clips; they are left out of all means.
    """

    multilabel: bool
    examples: int
    labels: tuple[str, ...]
    threshold: float
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    mean_average_precision: float
    auc: float
    d_prime: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: Reliability | None = None
    without_examples: tuple[str, ...] = field(default=())

    def summary(self) -> dict[str, float]:
        """Return the metrics over all classes by name, in display order."""
        figures = {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "mean_average_precision": self.mean_average_precision,
            "auc": self.auc,
            "d_prime": self.d_prime,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
        }
        if self.reliability is not None:
            figures["calibration_error"] = self.reliability.error
        return figures

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics in JSON types, with None for NaN and infinity, which JSON does not have."""
        cleaned: dict[str, Any] = _clean(asdict(self))
        return cleaned

    def to_json(self) -> str:
        """Return the text of a ``metrics.json``."""
        return object_text(self.to_dict())


def classification_metrics(
    targets: ArrayLike,
    scores: ArrayLike,
    labels: Sequence[str],
    *,
    multilabel: bool = False,
    threshold: float = DEFAULT_THRESHOLD,
) -> Metrics:
    """Compute the metrics of scores.

    Args:
        targets: (n,) integers, the class of each clip; or (n, classes), 1 where a clip has a class, else 0.
            Single-label, each row has one 1.
        scores: (n, classes), larger for more likely; NaN and infinity are refused.
        labels: names of the classes.
        multilabel: True if a clip may have any number of labels.
        threshold: multi-label, the lowest score of a predicted label. Ranking metrics (average precision, AUC) do not
            depend on it.

    Raises:
        SettingsError: the shapes do not match, there are no clips, or scores are not finite.
    """
    true, values = _check(targets, scores, labels, multilabel)
    if multilabel:
        predicted = values >= threshold
    else:
        predicted = np.zeros_like(true)
        predicted[np.arange(len(values)), values.argmax(axis=1)] = True
    per_class = tuple(
        _class_metrics(label, true[:, place], predicted[:, place], values[:, place])
        for place, label in enumerate(labels)
    )
    seen = [one for one in per_class if one.support]
    auc = _mean([one.auc for one in seen])
    return Metrics(
        multilabel=multilabel,
        examples=len(true),
        labels=tuple(labels),
        threshold=float(threshold),
        accuracy=float((true == predicted).all(axis=1).mean()),
        macro_precision=_mean([one.precision for one in seen]),
        macro_recall=_mean([one.recall for one in seen]),
        macro_f1=_mean([one.f1 for one in seen]),
        mean_average_precision=_mean([one.average_precision for one in seen]),
        auc=auc,
        d_prime=d_prime(auc),
        per_class=per_class,
        confusion=_confusion(true, predicted, per_class, multilabel),
        reliability=_reliability(true, predicted, values, multilabel),
        without_examples=tuple(one.label for one in per_class if not one.support),
    )


def d_prime(auc: float) -> float:
    """Return the distance of two normal distributions of unit variance whose ROC curve has a given area.

    Args:
        auc: from 0 to 1; 0.5 gives 0, 1 gives infinity, NaN gives NaN.
    """
    from scipy.special import ndtri

    return float(math.sqrt(2) * ndtri(auc))


def _check(
    targets: ArrayLike, scores: ArrayLike, labels: Sequence[str], multilabel: bool
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    values, given = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if values.ndim != 2 or values.shape[1] != len(labels) or len(labels) == 0:
        raise SettingsError(f"scores must be (clips, {len(labels)}), a column for each label, not {values.shape}")
    if len(values) == 0:
        raise SettingsError("there are no clips to measure a classifier on")
    if not np.isfinite(values).all():
        raise SettingsError("scores hold NaN or infinity; the classifier is broken")
    if given.ndim == 1 and not multilabel and given.dtype.kind in "iu":
        if len(given) != len(values) or given.min() < 0 or given.max() >= len(labels):
            raise SettingsError(f"targets must be {len(values)} numbers of classes, from 0 to {len(labels) - 1}")
        true = np.zeros(values.shape, dtype=np.bool_)
        true[np.arange(len(values)), given] = True
        return true, values
    if given.shape != values.shape or not np.isin(given, (0, 1)).all():
        raise SettingsError(f"targets must be 0 or 1 of shape {values.shape}, or numbers of classes; not {given.shape}")
    true = given.astype(np.bool_)
    if not multilabel and not (true.sum(axis=1) == 1).all():
        raise SettingsError("each clip must have exactly one label; set multilabel for any number")
    return true, values


def _class_metrics(
    label: str, true: NDArray[np.bool_], found: NDArray[np.bool_], scores: NDArray[np.float64]
) -> ClassMetrics:
    from sklearn.metrics import average_precision_score, roc_auc_score

    support, predicted, correct = int(true.sum()), int(found.sum()), int((true & found).sum())
    precision = correct / predicted if predicted else 0.0
    if not support:
        return ClassMetrics(label, 0, predicted, 0, precision if predicted else math.nan, *[math.nan] * 4)
    return ClassMetrics(
        label,
        support,
        predicted,
        correct,
        precision,
        recall=correct / support,
        f1=2 * correct / (support + predicted),
        average_precision=float(average_precision_score(true, scores)),
        auc=float(roc_auc_score(true, scores)) if support < len(true) else math.nan,
    )


def _confusion(
    true: NDArray[np.bool_], predicted: NDArray[np.bool_], per_class: Sequence[ClassMetrics], multilabel: bool
) -> tuple[tuple[int, ...], ...]:
    if multilabel:
        return tuple((one.correct, one.support - one.correct, one.predicted - one.correct) for one in per_class)
    from sklearn.metrics import confusion_matrix

    places = np.arange(true.shape[1])
    matrix = confusion_matrix(true.argmax(axis=1), predicted.argmax(axis=1), labels=places)
    return tuple(tuple(int(count) for count in row) for row in matrix)


def _reliability(
    true: NDArray[np.bool_], predicted: NDArray[np.bool_], scores: NDArray[np.float64], multilabel: bool
) -> Reliability | None:
    if scores.min() < 0 or scores.max() > 1:
        return None
    if multilabel:
        score, right = scores.ravel(), true.ravel()
    else:
        score, right = scores[predicted], true[predicted]  # one score of each row, in the order of rows
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.searchsorted(edges, score, side="left") - 1, 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, score, BINS) / count
        frequency = np.bincount(bins, right, BINS) / count
    error = float(np.nansum(np.abs(mean - frequency) * count) / len(score))
    return Reliability(
        tuple(edges.tolist()), tuple(count.tolist()), tuple(mean.tolist()), tuple(frequency.tolist()), error
    )


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
