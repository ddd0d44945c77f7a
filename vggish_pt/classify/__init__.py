"""Classifiers on top of VGGish: probes, training, evaluation, prediction.

Importing this package is cheap: torch and everything heavy load with the first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggish_pt.classify.config import ClassifierConfig, HeadConfig, WindowSettings
    from vggish_pt.classify.model import Prediction, VGGishClassifier

_LAZY = {
    "ClassifierConfig": "vggish_pt.classify.config",
    "HeadConfig": "vggish_pt.classify.config",
    "Prediction": "vggish_pt.classify.model",
    "VGGishClassifier": "vggish_pt.classify.model",
    "WindowSettings": "vggish_pt.classify.config",
}

__all__ = ["ClassifierConfig", "HeadConfig", "Prediction", "VGGishClassifier", "WindowSettings"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
