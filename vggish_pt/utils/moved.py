"""Old addresses of modules that the documentation named before 0.1. They work until 0.2, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

_PACKAGE = "vggish_pt."


class _Address(NamedTuple):
    public: str
    modules: Sequence[str]
    renamed: Mapping[str, str] = MappingProxyType({})


# Each without "vggish_pt.": old module: the address to use instead, the modules that hold its names, new names.
MOVED = {
    "classify.classifiers": _Address("classify.probe.estimators", ["classify.probe.estimators"]),
    "classify.evaluate": _Address("classify", ["classify.evaluation.evaluate"], {"choose": "select_clips"}),
    "classify.events": _Address("classify", ["classify.evaluation.events"], {"Event": "SoundEvent"}),
    "classify.features": _Address("classify", ["classify.probe.features"]),
    "classify.metrics": _Address("classify", ["classify.evaluation.metrics"]),
    "classify.pictures": _Address("classify", ["classify.evaluation.figures"]),
    "classify.predict": _Address("classify", ["classify.evaluation.predict"], {"predict_items": "predict_clips"}),
    "classify.probe_folder": _Address("classify", ["classify.probe.folder"]),
    "classify.run_options": _Address("classify", ["classify.training.settings"]),
    "classify.splits": _Address("classify", ["classify.data.splits"], {"Split": "Fold", "Parts": "Split"}),
    "classify.train": _Address(
        "classify", ["classify.training.train", "classify.training.progress"], {"Event": "TrainingProgress"}
    ),
    "classify.train_settings": _Address("classify", ["classify.training.settings"]),
    "config": _Address("nn", ["nn.config"]),
    "convert": _Address("pretrained.convert", ["pretrained.convert"]),
    "devices": _Address("inference", ["inference.devices"]),
    "dump": _Address(
        "dataset",
        ["dataset.outcomes", "dataset.writing", "dataset.engines.local"],
        {"Done": "EmbeddedClip", "outcomes": "local_outcomes"},
    ),
    "embedding": _Address("inference", ["inference.pipeline", "inference.embeddings"], {"embed_items": "embed_clips"}),
    "examples": _Address("nn", ["nn.streaming"], {"ExampleStream": "StreamingLogMel"}),
    "frontend": _Address("nn", ["nn.frontend"]),
    "fusion": _Address("nn", ["nn.fusion"]),
    "hear_fused": _Address("hear.fused", ["hear.fused"]),
    "inputs": _Address("dataset", ["dataset.inputs"], {"Items": "Clips", "find_items": "find_clips"}),
    "item": _Address("audio", ["audio.clip"], {"Item": "Clip"}),
    "job": _Address("dataset", ["dataset.job"], {"Job": "EmbedJob"}),
    "layers": _Address("nn", ["nn.layers"]),
    "manifest": _Address("dataset", ["dataset.inputs.manifest"]),
    "memory": _Address("classify", ["classify.training.memory"]),
    "network": _Address("nn", ["nn.network"]),
    "output": _Address("dataset", ["dataset.outputs"], {"Layout": "Schema", "RunFolder": "DatasetFolder"}),
    "picture": _Address("plot", ["utils.figures"], {"check_picture": "check_figure"}),
    "pooling": _Address("inference", ["inference.pooling"]),
    "postprocess": _Address("nn", ["nn.postprocess"]),
    "ray_engine": _Address("dataset", ["dataset.engines.ray_engine"]),
    "report": _Address("dataset", ["dataset.report"]),
    "resample": _Address("audio", ["audio.resample"]),
    "settings": _Address("inference", ["inference.settings"]),
    "stream": _Address("inference", ["inference.stream"]),
    "waveform": _Address("audio", ["audio.waveform"]),
    "windows": _Address("nn", ["nn.windows"]),
    "workers": _Address("inference", ["inference.processes"]),
}


class _Moved(ModuleType):
    """A module at an old address; its names are looked up at the new one.

    ``vggish_pt.classify.train`` and ``evaluate`` are functions now, and importing the old modules of those names hides
    them, so that a module is called as the function that took its name.
    """

    def __getattr__(self, name: str) -> Any:
        address = MOVED[self.__name__.removeprefix(_PACKAGE)]
        for module in address.modules:
            found = importlib.import_module(_PACKAGE + module)
            if hasattr(found, address.renamed.get(name, name)):
                return getattr(found, address.renamed.get(name, name))
        raise AttributeError(f"{self.__name__} has moved to {_PACKAGE}{address.public}, which has no {name!r}")

    def __call__(self, *args: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **options)


class _Finder:
    """Find old modules, after Python's own finders, and make them.

    The base classes of ``importlib.abc`` would cost a third of the time to import the package.
    """

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """Return the spec of a module that has moved."""
        known = name.startswith(_PACKAGE) and name.removeprefix(_PACKAGE) in MOVED
        return ModuleSpec(name, self) if known else None  # type: ignore[arg-type]  # it has both of a loader's methods

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the module at the old address, and warn."""
        public = _PACKAGE + MOVED[spec.name.removeprefix(_PACKAGE)].public
        warnings.warn(f"{spec.name} is now {public}; the old address goes in 0.2", DeprecationWarning, stacklevel=2)
        return _Moved(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module empty: names are looked up when they are used."""


def install() -> None:
    """Make old addresses importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
