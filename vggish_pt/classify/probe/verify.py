"""Reading and checking the scikit-learn pipeline of a saved probe, which may come from anyone.

skops loads a pipeline without unpickling, and only types that it trusts. It does not check the state of compiled types:
scikit-learn follows the nodes of a tree without bounds checks, so a crafted tree makes it read memory outside of its
arrays or never return. Such trees are refused here (``test_trees_that_lead_astray``).
"""

from __future__ import annotations

import warnings
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.classify.probe.estimators import class_scores, make_classifier
from vggish_pt.errors import CheckpointError
from vggish_pt.utils.optional import require
from vggish_pt.utils.text import first_line

LIBRARIES = ("scikit-learn", "skops", "numpy", "librosa", "torch")
"""Libraries on which a probe's scores depend."""

# scikit-learn's types that skops does not trust by default: compiled ones, whose state is checked below.
_TRUSTED = ("sklearn.tree._tree.Tree",)
_TOLERANCE = 1e-6  # relative to the largest score


def read_pipeline(path: Path, config: dict[str, Any]) -> Any:
    """Read a pipeline and check that it is built as :func:`~vggish_pt.classify.probe.estimators.make_classifier` does.

    Args:
        path: a file in skops' format.
        config: contents of the probe's ``probe.json``.

    Raises:
        CheckpointError: the file is damaged, holds other types, or another classifier than the configuration names.
        MissingDependencyError: skops is not installed.
    """
    skops = require("skops.io", "reading a probe")
    try:
        with zipfile.ZipFile(path) as archive:
            # Compressed parts are refused, so that a small file cannot need much memory.
            packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
        untrusted = sorted(set(skops.get_untrusted_types(file=path)) - set(_TRUSTED)) if not packed else []
    except Exception as error:  # skops and zipfile raise many kinds for damage
        raise CheckpointError(f"{path}: cannot be read ({first_line(error)}); the folder is damaged") from None
    if packed or untrusted:
        what = f"types that no probe has ({', '.join(untrusted[:5])})" if untrusted else "compressed parts"
        raise CheckpointError(f"{path}: holds {what}; it was not written by vggish-pt probe, and is not loaded")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns for each part; check_scores warns once
            classifier = skops.load(path, trusted=list(_TRUSTED))
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be loaded ({first_line(error)}); {_advice(config)}") from None
    if not _is_expected(classifier, config):
        raise CheckpointError(
            f"{path}: not the classifier of {config['dimensions']} features that probe.json describes; it was "
            "damaged or replaced"
        )
    return classifier


def check_scores(path: Path, config: dict[str, Any], classifier: Any) -> None:
    """Check that a loaded pipeline gives the scores that were saved with it.

    Warns if scikit-learn has another version than the one that fitted the pipeline.

    Args:
        path: the saved features and scores, in safetensors' format.
        config: contents of the probe's ``probe.json``.
        classifier: the pipeline.

    Raises:
        CheckpointError: the file is damaged, or the scores differ.
    """
    features, expected = _read_check(path, config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = class_scores(classifier, features)
        same = scores.shape == expected.shape and np.allclose(scores, expected, 0, _TOLERANCE * np.abs(expected).max())
    except Exception as error:  # for example, of an attribute that this scikit-learn does not have
        raise CheckpointError(f"{path.parent}: the classifier fails ({first_line(error)}); {_advice(config)}") from None
    if not same:
        raise CheckpointError(
            f"{path.parent}: the classifier gives other scores than when it was saved; {_advice(config)}"
        )
    saved, installed = config["versions"].get("scikit-learn"), version("scikit-learn")
    if saved != installed:
        warnings.warn(
            f"{path.parent}: made with scikit-learn {saved}, and {installed} is installed; scores of {len(features)} "
            "saved clips agree, so it is used",
            stacklevel=3,
        )


def _read_check(path: Path, config: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            features, expected = file.get_tensor("features"), file.get_tensor("scores")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({first_line(error)}); the folder is damaged") from None
    if features.ndim != 2 or features.shape[1] != config["dimensions"]:
        raise CheckpointError(f"{path}: features of shape {features.shape}; the folder is damaged")
    return features, expected


def _is_expected(classifier: Any, config: dict[str, Any]) -> bool:
    """Return True if a pipeline has the steps of :func:`make_classifier` and all its trees are valid."""
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
            return all(_tree_is_valid(tree, dimensions) for tree in trees)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _tree_is_valid(tree: Any, dimensions: int) -> bool:
    """Return True if every path through a tree ends and stays within the tree's arrays."""
    from sklearn.tree._tree import Tree

    if type(tree) is not Tree or tree.n_features != dimensions:
        return False
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    node = np.arange(tree.node_count)
    inner = left != -1
    children = [side[inner] for side in (left, right)]
    return (
        tree.node_count > 0
        and len(tree.value) == tree.node_count
        and bool((right[~inner] == -1).all())
        and all(bool(((side > node[inner]) & (side < tree.node_count)).all()) for side in children)
        and bool(((feature[inner] >= 0) & (feature[inner] < dimensions)).all())
    )


def _advice(config: dict[str, Any]) -> str:
    saved, installed = str(config["versions"].get("scikit-learn")), version("scikit-learn")
    if saved == installed:
        return "the folder is damaged; run vggish-pt probe again"
    return (
        f"it was made with scikit-learn {saved}, and {installed} is installed: run vggish-pt probe again, or "
        f"pip install scikit-learn=={saved}"
    )
