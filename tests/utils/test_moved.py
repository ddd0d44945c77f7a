"""Old addresses that the documentation named give the same things as the new ones, with a warning."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from vggish_pt.utils.moved import MOVED

# Names that pages, README and examples imported or documented under their old modules.
DOCUMENTED = [
    "settings.EmbedSettings",
    "embedding.embed_items",
    "embedding.use_processes",
    "embedding.Embeddings",
    "devices.choose_devices",
    "devices.replicas",
    "windows.Pad",
    "windows.hop_frames",
    "layers.LAYERS",
    "fusion.fuse",
    "network.Network",
    "frontend.LogMel",
    "resample.ResamplerName",
    "item.Item",
    "item.Opener",
    "inputs.find_items",
    "inputs.Items",
    "manifest.Manifest",
    "manifest.Row",
    "manifest.BadRow",
    "job.Job",
    "job.run",
    "job.Result",
    "job.Watcher",
    "dump.outcomes",
    "dump.Done",
    "output.Failure",
    "output.Rows",
    "report.write_report",
    "picture.save",
    "memory.keep_freed_memory",
    "hear_fused.load_model",
    "waveform.load_waveform",
    "ray_engine.outcomes_on_ray",
    "stream.push_many",
    "classify.metrics.Metrics",
    "classify.events.Event",
    "classify.events.EventSettings",
    "classify.evaluate.evaluate",
    "classify.evaluate.Evaluation",
    "classify.predict.prediction_events",
    "classify.pictures.timeline",
    "classify.splits.Split",
    "classify.splits.Parts",
    "classify.features.FeatureSettings",
    "classify.probe_folder.load_probe",
    "classify.train.train",
    "classify.train.Event",
    "classify.train_settings.TrainSettings",
    "classify.train_settings.AugmentSettings",
    "classify.run_options.RunOptions",
]


@pytest.fixture(autouse=True)
def _forget():
    """Import each old module anew, and leave the package's attributes as they were."""
    yield
    for name in MOVED:
        if sys.modules.pop(f"vggish_pt.{name}", None):
            parent, _, child = f"vggish_pt.{name}".rpartition(".")
            vars(sys.modules[parent]).pop(child, None)


@pytest.mark.parametrize("name", MOVED)
def test_old_modules_warn_and_name_the_new_address(name):
    with pytest.warns(DeprecationWarning, match=f"vggish_pt.{name} is now vggish_pt.{MOVED[name].public};") as caught:
        module = importlib.import_module(f"vggish_pt.{name}")
    assert len(caught) == 1
    public = importlib.import_module(f"vggish_pt.{MOVED[name].public}")
    for new in MOVED[name].renamed.values():
        assert hasattr(public, new) or any(
            hasattr(importlib.import_module(f"vggish_pt.{m}"), new) for m in MOVED[name].modules
        )
    with pytest.raises(AttributeError, match="has moved to"):
        _ = module.no_such_name


@pytest.mark.parametrize("name", DOCUMENTED)
@pytest.mark.filterwarnings("ignore:vggish_pt:DeprecationWarning")
def test_documented_names_are_still_there(name):
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(f"vggish_pt.{module}"), attribute) is not None


def test_new_names_are_hidden_by_no_old_module():
    code = (
        "from vggish_pt.classify.train import train as old\n"
        "from vggish_pt.classify import train\n"
        "try: train()\n"
        "except TypeError as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "required positional argument" in shown


def test_the_warning_points_at_the_import():
    code = "import warnings\nwarnings.simplefilter('error')\nimport vggish_pt.item"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert failed.returncode and "vggish_pt.item is now vggish_pt.audio" in failed.stderr
