"""VGGish audio embeddings in PyTorch.

>>> from vggish_pt import VGGish
>>> model = VGGish.from_pretrained("synthetic")
>>> result = model.embed("dog.wav")          # doctest: +SKIP

Importing this package is cheap: torch and everything heavy load with the first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vggish_pt.errors import (
    AudioError,
    AudioWarning,
    CheckpointError,
    DownloadError,
    MissingDependencyError,
    OutputError,
    OutputWarning,
    SettingsError,
    TrainingError,
    VGGishError,
    WeightsError,
    WorkerError,
)
from vggish_pt.version import __version__

if TYPE_CHECKING:
    from vggish_pt.audio.waveform import load_waveform
    from vggish_pt.dataset.reader import read_dataset
    from vggish_pt.inference.pipeline import Embeddings
    from vggish_pt.inference.stream import EmbeddingStream, push_many
    from vggish_pt.model import VGGish
    from vggish_pt.nn.config import VGGishConfig
    from vggish_pt.nn.frontend import LogMel
    from vggish_pt.nn.network import Network
    from vggish_pt.nn.postprocess import Postprocessor

_LAZY = {
    "VGGish": "vggish_pt.model",
    "VGGishConfig": "vggish_pt.nn.config",
    "EmbeddingStream": "vggish_pt.inference.stream",
    "Embeddings": "vggish_pt.inference.pipeline",
    "LogMel": "vggish_pt.nn.frontend",
    "Network": "vggish_pt.nn.network",
    "Postprocessor": "vggish_pt.nn.postprocess",
    "load_waveform": "vggish_pt.audio.waveform",
    "push_many": "vggish_pt.inference.stream",
    "read_dataset": "vggish_pt.dataset.reader",
}

__all__ = [
    "AudioError",
    "AudioWarning",
    "CheckpointError",
    "DownloadError",
    "EmbeddingStream",
    "Embeddings",
    "LogMel",
    "MissingDependencyError",
    "Network",
    "OutputError",
    "OutputWarning",
    "Postprocessor",
    "SettingsError",
    "TrainingError",
    "VGGish",
    "VGGishConfig",
    "VGGishError",
    "WeightsError",
    "WorkerError",
    "__version__",
    "load_waveform",
    "push_many",
    "read_dataset",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
