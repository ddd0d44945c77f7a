"""How good scores are: targets and scores of clips → figures, as a whole and for each class.

What is undefined is NaN, and stays out of means: a class of which there is no clip has no recall, average precision or
AUC; :attr:`Metrics.without_examples` names such classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggish_pt.errors import SettingsError

DEFAULT_THRESHOLD = 0.5
BINS = 15


@dataclass(frozen=True)
class ClassMetrics:
    """Figures of one class against all others.

    Attributes:
        label: its name.
        support: how many clips have it.
        predicted: how many clips it was predicted for.
        correct: how many of these have it.
        precision: correct / predicted; 0 if it was never predicted.
        recall: correct / support.
        f1: harmonic mean of the two.
        average_precision: area under the precision-recall curve, in steps.
        auc: area under the ROC curve; NaN too if every clip has the class.
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
    """Whether scores mean what they say: clips in bins of equal width by score (Guo et al., "On Calibration of Modern
    Neural Networks", ICML 2017).

    Single-label, a clip counts once, with the score of the class that was chosen. Multi-label, it counts once for each
    class.

    Attributes:
        edges: limits of the bins, one more than there are bins.
        count: how many lie in each.
        score: their mean score; NaN for an empty bin.
        frequency: the share of them that was right (single-label), or had the class (multi-label); NaN likewise.
        error: expected calibration error: the mean of ``|score - frequency|``, weighted by ``count``.
    """

    edges: tuple[float, ...]
    count: tuple[int, ...]
    score: tuple[float, ...]
    frequency: tuple[float, ...]
    error: float


@dataclass(frozen=True)
class Metrics:
    """Figures of a classifier on labelled clips. Macro means weigh each class equally.

    Attributes:
        multilabel: whether a clip may have any number of labels.
        examples: how many clips.
        labels: names of the classes, in the order of the scores.
        threshold: from which score on a label counts as predicted; used for multi-label only.
        accuracy: share of clips whose predicted labels are exactly the true ones.
        macro_precision: mean over classes.
        macro_recall: mean over classes; single-label, also called balanced accuracy.
        macro_f1: mean over classes.
        mean_average_precision: mAP, the mean of average precisions over classes.
        auc: mean over classes.
        d_prime: ``sqrt(2) * inverse normal CDF(auc)`` of the mean AUC; formula of Hershey et al., "CNN Architectures
            for Large-Scale Audio Classification" (ICASSP 2017). Infinite for an AUC of 1.
        per_class: in the order of the labels.
        confusion: single-label: how many clips of class i were taken for class j, in row i, column j. Multi-label: a
            row for each class: clips that have it and were found, that have it and were missed, and false alarms.
        reliability: None if the scores are no probabilities.
        without_examples: classes that no clip has; they stay out of all means.
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
        """The figures of the whole by name, in the order in which they are shown."""
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
        """All of it in JSON types: what is NaN or infinite is None, as JSON has no such numbers."""
        cleaned: dict[str, Any] = _clean(asdict(self))
        return cleaned

    def to_json(self) -> str:
        """The text of a ``metrics.json``."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def classification_metrics(
    targets: ArrayLike,
    scores: ArrayLike,
    labels: Sequence[str],
    *,
    multilabel: bool = False,
    threshold: float = DEFAULT_THRESHOLD,
) -> Metrics:
    """Compares scores with what is true.

    Args:
        targets: (n,) whole numbers, the class of each clip; or (n, classes), 1 where a clip has a class, else 0.
            Single-label, each row has one 1.
        scores: (n, classes), larger for more likely; NaN and infinity are refused.
        labels: names of the classes.
        multilabel: whether a clip may have any number of labels.
        threshold: multi-label, from which score on a label counts as predicted. Ranking figures (average precision,
            AUC) do not depend on it.

    Raises:
        SettingsError: arrays that do not fit each other, no clips, or scores that are not finite.
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
    """The distance of two normal distributions of unit variance whose ROC curve has this area beneath it.

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
        score, right = scores[predicted], true[predicted]  # one of each row, in the order of rows
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
