"""Training: what it writes, that it learns, and that neither a kill nor a resumption changes the result."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vggish_pt import VGGish
from vggish_pt.classify import HeadConfig, VGGishClassifier
from vggish_pt.classify.train import Event, RunOptions, train
from vggish_pt.classify.train_settings import AugmentSettings, TrainSettings
from vggish_pt.errors import AudioError, CheckpointError, OutputError, SettingsError, TrainingError
from vggish_pt.item import Item

LABELS = ["high", "low"]
# Only the last block and the head are trained: enough to be moved by every setting, and quick.
QUICK = TrainSettings(
    head=HeadConfig("linear", features="fused:conv4"),
    frozen_blocks=3,
    epochs=3,
    batch_size=4,
    windows=1,
    backbone_lr_factor=0.1,
    augment=AugmentSettings(gain=6, time_shift=0.2, mixup=0.3),
)
MEMORY = RunOptions(device="cpu", cache="memory")


@dataclass(frozen=True)
class Clip:
    item: Item
    labels: tuple[str, ...]


def tone(label: str, seed: int, seconds: float = 1.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(2500, 5000) if label == "high" else rng.uniform(150, 500)
    time = np.arange(int(seconds * 16_000)) / 16_000
    return 0.2 * np.sin(2 * np.pi * frequency * time) + 0.01 * rng.standard_normal(len(time))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("tones")
    made = []
    for number in range(12):
        label = LABELS[number % 2]
        path = folder / f"{label}-{number}.wav"
        soundfile.write(path, tone(label, number), 16_000)
        made.append(Clip(Item(str(path), number), (label,)))
    return made


class Killed(Exception):
    pass


def killed_at(step: int):
    def watch(event: Event) -> None:
        if event.kind == "step" and event.done == step:
            raise Killed

    return watch


def run(clips, small_folder, out: Path, settings: TrainSettings = QUICK, **more):
    backbone = VGGish.from_pretrained(small_folder)
    options = more.pop("options", MEMORY)
    return train(clips[:8], clips[8:], LABELS, out, settings, backbone=backbone, options=options, **more)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def undisturbed(clips, small_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(clips, small_folder, out)
    return out


def test_run_folder(undisturbed, clips):
    names = {path.name for path in undisturbed.iterdir()} - {".lock"}
    assert names == {
        *("config.json", "model.safetensors", "labels.txt", "README.md", "metrics.json", "versions.json"),
        *("split.csv", "curve.png", "logs", "checkpoints"),
    }
    config = json.loads((undisturbed / "config.json").read_text())
    assert (config["model_type"], config["format_version"]) == ("vggish_pt_classifier", 1)
    assert config["training"]["settings"]["epochs"] == 3
    assert (undisturbed / "labels.txt").read_text().split() == LABELS
    with (undisturbed / "split.csv").open() as file:
        parts = [row["part"] for row in csv.DictReader(file)]
    assert parts == ["training"] * 8 + ["validation"] * 4
    assert [row["step"] for row in history(undisturbed)] == ["2", "4", "6"]
    assert "torch" in json.loads((undisturbed / "versions.json").read_text())
    assert any(path.name.startswith("events.out.tfevents") for path in (undisturbed / "logs").iterdir())


def test_what_is_kept_is_the_best_epoch(undisturbed):
    metrics = json.loads((undisturbed / "metrics.json").read_text())
    figures = [float(row["val_accuracy"]) for row in history(undisturbed)]
    assert metrics["kept"] == "best" and figures[metrics["epoch"] - 1] == max(figures)
    assert metrics["validation"]["accuracy"] == max(figures)


def test_predictions_are_those_of_validation(undisturbed, clips):
    model = VGGishClassifier.from_pretrained(undisturbed)
    found = [p.best for p in model.predict_iter([clip.item.path for clip in clips[8:]])]
    accuracy = np.mean([best == clip.labels[0] for best, clip in zip(found, clips[8:], strict=True)])
    assert accuracy == json.loads((undisturbed / "metrics.json").read_text())["validation"]["accuracy"]


def test_same_seed_same_result(undisturbed, clips, small_folder, tmp_path):
    run(clips, small_folder, tmp_path / "again", options=replace(MEMORY, cache="disk"))
    assert weights(tmp_path / "again") == weights(undisturbed)
    assert history(tmp_path / "again") == history(undisturbed)


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_killed_and_resumed(undisturbed, clips, small_folder, tmp_path, step):
    out = tmp_path / "run"
    often = replace(MEMORY, checkpoint_steps=1)
    with pytest.raises(Killed):
        run(clips, small_folder, out, options=often, watch=killed_at(step))
    assert not (out / "model.safetensors").exists()
    run(clips, small_folder, out, options=often, resume=True)
    assert weights(out) == weights(undisturbed)
    assert history(out) == history(undisturbed)
