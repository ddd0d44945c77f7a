"""scikit-learn classifiers by name, for features of any scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.errors import SettingsError, TrainingError
from vggish_pt.utils.text import first_line

NAMES = ("logistic", "svm", "forest", "knn")
"""``logistic``: logistic regression, C=0.1. ``svm``: support vector machine with an RBF kernel, C=10. ``forest``: a
random forest of 500 trees. ``knn``: the majority of the 5 nearest clips. All but forests standardise the features."""

_NEIGHBOURS = 5


def check_classifier(name: str) -> str:
    """Return ``name`` if a classifier has it.

    Raises:
        SettingsError: no classifier has this name.
    """
    if name not in NAMES:
        raise SettingsError(f"a classifier must be one of {', '.join(NAMES)}, not {name!r}")
    return name


def make_classifier(name: str, *, multilabel: bool = False, seed: int = 0, workers: int = 1) -> Any:
    """Return a pipeline that is not fitted.

    Args:
        name: one of :data:`NAMES`.
        multilabel: True for one classifier per label (one against the rest), False for one classifier of all labels.
        seed: random seed of a forest; the others use no random numbers.
        workers: threads of the forest; results do not depend on them.

    Raises:
        SettingsError: no such classifier.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    make: dict[str, Callable[[], Any]] = {
        "logistic": lambda: LogisticRegression(C=0.1, max_iter=5000),
        # With break_ties, the prediction is always the class with the highest score.
        "svm": lambda: SVC(C=10, break_ties=not multilabel),
        "forest": lambda: RandomForestClassifier(500, random_state=seed, n_jobs=max(1, workers)),
        "knn": lambda: KNeighborsClassifier(_NEIGHBOURS, algorithm="brute"),
    }
    classifier = make[check_classifier(name)]()
    if multilabel:
        classifier = OneVsRestClassifier(classifier)
    return make_pipeline(classifier) if name == "forest" else make_pipeline(StandardScaler(), classifier)


def fit(classifier: Any, features: NDArray[np.float32], targets: NDArray[np.int64], *, multilabel: bool) -> None:
    """Fit a pipeline of :func:`make_classifier`.

    Args:
        classifier: the pipeline.
        features: (n, d).
        targets: (n, classes), 0 or 1; each class has a clip.
        multilabel: as given to :func:`make_classifier`.

    Raises:
        TrainingError: scikit-learn refuses the features or targets.
    """
    neighbours = min(_NEIGHBOURS, len(features))
    classifier.set_params(**{key: neighbours for key in classifier.get_params() if key.endswith("n_neighbors")})
    try:
        classifier.fit(features.astype(np.float64), targets if multilabel else targets.argmax(axis=1))
    except ValueError as error:
        raise TrainingError(
            f"the classifier cannot learn from {len(features)} clips ({first_line(error)}); add clips"
        ) from None


def class_scores(classifier: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the scores of clips with a fitted pipeline.

    Args:
        classifier: the pipeline.
        features: (n, d).

    Returns:
        (n, classes): probabilities; for an SVM the values of its decision function (larger means more likely;
            multi-label, a label is predicted above 0).
    """
    values = features.astype(np.float64)
    if gives_probabilities(classifier):
        scores = np.asarray(classifier.predict_proba(values), dtype=np.float64)
    else:
        scores = np.asarray(classifier.decision_function(values), dtype=np.float64)
        if scores.ndim == 1:  # with two classes, SVC gives the decision for the second only
            scores = np.stack([-scores, scores], axis=1)
    return scores


def gives_probabilities(classifier: Any) -> bool:
    """Return True if scores are probabilities (threshold 0.5), False if they are decisions (threshold 0)."""
    return hasattr(classifier, "predict_proba")
