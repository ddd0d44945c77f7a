from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import soundfile as sf

from vggish_pt.classify import EventSettings, VGGishClassifier, predict_to_file
from vggish_pt.errors import OutputError, SettingsError


@pytest.fixture(scope="module")
def run_folder(classifier_folder):
    return classifier_folder(["a", "b", "c"])


@pytest.fixture
def sound(tmp_path):
    sf.write(tmp_path / "x.wav", np.random.default_rng(1).standard_normal(32_000) * 0.1, 16_000)
    return tmp_path / "x.wav"


class Watcher:
    def __init__(self) -> None:
        self.calls = []

    def begin(self, total, before):
        self.calls.append(("begin", total, before.files))

    def note(self, line):
        self.calls.append(("note", line))

    def fail(self, failure):
        self.calls.append(("fail", failure.path))

    def watch(self, outcome):
        self.calls.append(("watch", getattr(outcome, "path", None) or outcome.source))


def test_a_table_and_its_summary(run_folder, sound, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    names = [str(sound), str(tmp_path / "bad.wav"), str(tmp_path / "no*.wav")]
    watcher = Watcher()
    summary = predict_to_file(run_folder, names, tmp_path / "x.csv", top=1, watcher=watcher, device="cpu")
    assert (summary.files, [failure.path for failure in summary.failures]) == (1, [names[2], names[1]])
    assert watcher.calls == [("fail", names[2]), ("begin", 2, 0), ("watch", names[0]), ("watch", names[1])]
    with (tmp_path / "x.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["label"] == VGGishClassifier.from_pretrained(run_folder).predict(sound).best
    with (tmp_path / "x.csv.errors.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [names[2], names[1]]


def test_events_with_settings_of_the_prediction(run_folder, sound, tmp_path):
    options = {"view": "events", "events": EventSettings(threshold=0.0), "hop": 0.24}
    assert predict_to_file(run_folder, [str(sound)], str(tmp_path / "x.json"), **options).files == 1
    (file,) = json.loads((tmp_path / "x.json").read_text())["files"]
    assert file["events"] and file["events"][-1]["offset"] == 1.935  # the end of the last of five windows


def test_nothing_is_written_when_every_input_fails(run_folder, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    summary = predict_to_file(run_folder, [str(tmp_path / "bad.wav")], tmp_path / "x.csv")
    assert (summary.files, len(summary.failures)) == (0, 1)
    assert sorted(path.name for path in tmp_path.glob("x.csv*")) == ["x.csv.errors.csv"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"view": "clips"}, "view must be one of"),
        ({"top": -1}, "top must be"),
        ({"hop": 0.015}, "hop must be"),
        ({"device": "tpu"}, "device must be"),
    ],
)
def test_invalid_settings_are_refused_before_anything_is_read(tmp_path, options, says):
    with pytest.raises(SettingsError, match=says):
        predict_to_file(tmp_path / "nowhere", ["x.wav"], tmp_path / "x.csv", **options)
    with pytest.raises(SettingsError, match=r"ends in \.csv or \.json"):
        predict_to_file(tmp_path / "nowhere", ["x.wav"], tmp_path / "x.txt")
    (tmp_path / "y.csv").touch()
    with pytest.raises(OutputError, match="exists already"):
        predict_to_file(tmp_path / "nowhere", ["x.wav"], tmp_path / "y.csv")
