"""Results of probing: rows of the table, the fitted classifier, and progress events."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.classify.data.splits import Scheme
from vggish_pt.classify.evaluation.metrics import Metrics
from vggish_pt.classify.probe.features import FeatureSettings

if TYPE_CHECKING:
    from vggish_pt.classify.data.examples import LabelledSet
    from vggish_pt.errors import VGGishError


@dataclass(frozen=True)
class ProbeProgress:
    """Progress of a probe.

    Attributes:
        kind: "features" (``done`` of ``total`` clips are computed), "unreadable" (``text``), or "row" (``row``).
        name: name of the features.
        done: number of clips whose features are computed.
        total: number of all clips.
        row: a complete row of the table.
        text: a sentence for the user.
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
    """Result of one kind of features with one classifier.

    Attributes:
        features: settings of the features.
        dimensions: length of a clip's feature vector.
        classifier: name of the classifier.
        rounds: metrics of each round of cross-validation.
        pooled: metrics of the test clips of all rounds, each scored by a classifier that was not trained on it.
    """

    features: FeatureSettings
    dimensions: int
    classifier: str
    rounds: tuple[Metrics, ...]
    pooled: Metrics

    @property
    def headline(self) -> str:
        """Name of the figure that ranks rows: accuracy, or for multi-label data the mean average precision."""
        return "mean_average_precision" if self.pooled.multilabel else "accuracy"

    def values(self, figure: str | None = None) -> list[float]:
        """Return a figure of each round.

        Args:
            figure: a name of :meth:`~vggish_pt.classify.evaluation.metrics.Metrics.summary`; None for the headline.
        """
        return [metrics.summary()[figure or self.headline] for metrics in self.rounds]

    def mean(self, figure: str | None = None) -> float:
        """Return the mean of a figure over rounds; NaN if it is not defined in a round."""
        values = self.values(figure)
        return sum(values) / len(values)  # of both infinities NaN, where fsum raises

    def spread(self, figure: str | None = None) -> float:
        """Return the sample standard deviation of a figure over rounds; NaN for a single round."""
        values = self.values(figure)
        return float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else math.nan

    @property
    def rank(self) -> float:
        """Mean of the headline by which rows are compared; minus infinity if it is not defined."""
        mean = self.mean()
        return -math.inf if math.isnan(mean) else mean

    def to_dict(self) -> dict[str, Any]:
        """Return the row in JSON types, with None for undefined figures."""
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
    """Result of a probe.

    Attributes:
        data: the clips that were used.
        scheme: rule of the cross-validation: "fold", "split", "group" or "stratified".
        rounds: names of the rounds.
        seed: random seed.
        rows: by features, then by classifier, in the order of the arguments.
        failures: paths and errors of clips that could not be used; these clips are not in ``data``.
        fitted: the best row that can be saved, with its classifier fitted to all clips; None if no row can be saved.
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
        """Row with the highest mean; the first of equal ones."""
        return max(self.rows, key=lambda row: row.rank)

    def to_dict(self) -> dict[str, Any]:
        """Return the result in JSON types."""
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
    """Classifier fitted to all clips of a set.

    Attributes:
        row: result of its cross-validation.
        classifier: the scikit-learn pipeline.
        labels: names of the classes.
        check: (m, d) features of some clips and their scores (m, classes); a saved pipeline must give the same scores
            after loading.
        weights: name, licence and SHA-256 of the weights that computed the features; None for a baseline.
    """

    row: ProbeRow
    classifier: Any
    labels: tuple[str, ...]
    check: tuple[NDArray[np.float32], NDArray[np.float64]]
    weights: dict[str, str] | None


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
