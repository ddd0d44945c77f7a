"""Classifiers on top of VGGish: probes, training, evaluation, prediction.

Importing this package is cheap: torch and everything heavy load with the first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggish_pt.classify.config import ClassifierConfig, HeadConfig, WindowSettings
    from vggish_pt.classify.data.labelled import Example, LabelledSet, read_labelled
    from vggish_pt.classify.model import Prediction, VGGishClassifier
    from vggish_pt.classify.probe.features import FeatureSettings
    from vggish_pt.classify.probe.folder import Probe, load_probe, save_probe

_LAZY = {
    "ClassifierConfig": "vggish_pt.classify.config",
    "Example": "vggish_pt.classify.data.labelled",
    "FeatureSettings": "vggish_pt.classify.probe.features",
    "HeadConfig": "vggish_pt.classify.config",
    "LabelledSet": "vggish_pt.classify.data.labelled",
    "Prediction": "vggish_pt.classify.model",
    "Probe": "vggish_pt.classify.probe.folder",
    "VGGishClassifier": "vggish_pt.classify.model",
    "WindowSettings": "vggish_pt.classify.config",
    "load_probe": "vggish_pt.classify.probe.folder",
    "read_labelled": "vggish_pt.classify.data.labelled",
    "save_probe": "vggish_pt.classify.probe.folder",
}

__all__ = [
    "ClassifierConfig",
    "Example",
    "FeatureSettings",
    "HeadConfig",
    "LabelledSet",
    "Prediction",
    "Probe",
    "VGGishClassifier",
    "WindowSettings",
    "load_probe",
    "read_labelled",
    "save_probe",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
