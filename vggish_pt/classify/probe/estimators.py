"""scikit-learn's classifiers by name, ready for features of any scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.errors import SettingsError, TrainingError

NAMES = ("logistic", "svm", "forest", "knn")
"""``logistic``: logistic regression, C=0.1. ``svm``: support vector machine with an RBF kernel, C=10. ``forest``: a
random forest of 500 trees. ``knn``: the majority of the 5 nearest clips. Features are standardised but for forests."""

_NEIGHBOURS = 5


def check_classifier(name: str) -> str:
    """Returns ``name`` if there is such a classifier.

    Raises:
        SettingsError: there is not.
    """
    if name not in NAMES:
        raise SettingsError(f"a classifier must be one of {', '.join(NAMES)}, not {name!r}")
    return name


def make_classifier(name: str, *, multilabel: bool = False, seed: int = 0, workers: int = 1) -> Any:
    """A pipeline that has not been fitted.

    Args:
        name: one of :data:`NAMES`.
        multilabel: one classifier for each label against the rest, instead of one for all.
        seed: of the forest; the others draw nothing.
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
        # Ties go to the larger decision, so that the prediction always is the class with the highest score.
        "svm": lambda: SVC(C=10, break_ties=not multilabel),
        "forest": lambda: RandomForestClassifier(500, random_state=seed, n_jobs=max(1, workers)),
        "knn": lambda: KNeighborsClassifier(_NEIGHBOURS, algorithm="brute"),
    }
    classifier = make[check_classifier(name)]()
    if multilabel:
        classifier = OneVsRestClassifier(classifier)
    return make_pipeline(classifier) if name == "forest" else make_pipeline(StandardScaler(), classifier)


def fit(classifier: Any, features: NDArray[np.float32], targets: NDArray[np.int64], *, multilabel: bool) -> None:
    """Fits a pipeline of :func:`make_classifier`.

    Args:
        classifier: the pipeline.
        features: (n, d).
        targets: (n, classes), 0 or 1; each class is there.
        multilabel: as it was made.

    Raises:
        TrainingError: the classifier cannot learn from this.
    """
    fewer = {key: min(_NEIGHBOURS, len(features)) for key in classifier.get_params() if key.endswith("n_neighbors")}
    classifier.set_params(**fewer)
    try:
        classifier.fit(features.astype(np.float64), targets if multilabel else targets.argmax(axis=1))
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"the classifier cannot learn from {len(features)} clips ({reason}); add clips") from None


def class_scores(classifier: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a fitted pipeline says of some clips.

    Args:
        classifier: the pipeline.
        features: (n, d).

    Returns:
        (n, classes): probabilities; of an SVM, decisions (larger for more likely; multi-label, above 0 for yes).
    """
    values = features.astype(np.float64)
    if gives_probabilities(classifier):
        scores = np.asarray(classifier.predict_proba(values), dtype=np.float64)
    else:
        scores = np.asarray(classifier.decision_function(values), dtype=np.float64)
        if scores.ndim == 1:  # of two classes, the decision for the second
            scores = np.stack([-scores, scores], axis=1)
    return scores


def gives_probabilities(classifier: Any) -> bool:
    """Whether scores are probabilities, so that a label is predicted from 0.5 on; else from 0 on."""
    return hasattr(classifier, "predict_proba")
