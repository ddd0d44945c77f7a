"""Training: its run folder, its results, and equal results after a kill and resumption."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from training_runs import Killed, LabelledFile, history, weights

from vggish_pt import VGGish
from vggish_pt.audio.clip import Clip
from vggish_pt.classify import HeadConfig, VGGishClassifier
from vggish_pt.classify.training.progress import TrainingProgress
from vggish_pt.classify.training.settings import AugmentSettings, TrainSettings
from vggish_pt.classify.training.train import RunOptions, train
from vggish_pt.errors import AudioError, CheckpointError, OutputError, SettingsError, TrainingError

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


def tone(label: str, seed: int, seconds: float = 1.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(2500, 5000) if label == "high" else rng.uniform(150, 500)
    time = np.arange(int(seconds * 16_000)) / 16_000
    return 0.2 * np.sin(2 * np.pi * frequency * time) + 0.01 * rng.standard_normal(len(time))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[LabelledFile]:
    folder = tmp_path_factory.mktemp("tones")
    made = []
    for number in range(12):
        label = LABELS[number % 2]
        path = folder / f"{label}-{number}.wav"
        soundfile.write(path, tone(label, number), 16_000)
        made.append(LabelledFile(Clip(str(path), number), (label,)))
    return made


def killed_at(step: int):
    def watch(event: TrainingProgress) -> None:
        if event.kind == "step" and event.done == step:
            raise Killed

    return watch


def run(clips, small_folder, out: Path, settings: TrainSettings = QUICK, **more):
    backbone = VGGish.from_pretrained(small_folder)
    options = more.pop("options", MEMORY)
    return train(clips[:8], clips[8:], LABELS, out, settings, backbone=backbone, options=options, **more)


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


# Everything whose state a resumption must carry over, at once. Gradual: conv4 joins in the second epoch.
INVOLVED = replace(
    QUICK,
    head=HeadConfig("attention", features="fused:conv4", hidden=8),
    backbone="gradual",
    unfreeze_at=(1,),
    epochs=4,
    batch_size=2,
    accumulate=3,
    optimizer="SGD",
    optimizer_options={"momentum": 0.9},
    lr=1e-3,
    schedule="CosineAnnealingLR",
    swa=0.5,
    early_stopping=3,
    class_weights="balanced",
    label_smoothing=0.1,
    precision="bf16",
)


def test_all_state_is_resumed(clips, small_folder, tmp_path):
    run(clips, small_folder, tmp_path / "whole", INVOLVED)
    out, often = tmp_path / "run", replace(MEMORY, checkpoint_steps=1, workers=1, cache="disk")
    for place, step in enumerate((7, 11)):  # in the middle of an epoch, and of the average
        with pytest.raises(Killed):
            run(clips, small_folder, out, INVOLVED, options=often, resume=place > 0, watch=killed_at(step))
    metrics = run(clips, small_folder, out, INVOLVED, options=often, resume=True)
    assert metrics["kept"] == "averaged"
    assert weights(out) == weights(tmp_path / "whole")
    assert history(out) == history(tmp_path / "whole")


def test_blocks_are_unfrozen_from_the_top(clips, small_folder, tmp_path):
    begun = VGGish.from_pretrained(small_folder).network.state_dict()

    def changed(settings: TrainSettings, name: str) -> set[str]:
        run(clips, small_folder, tmp_path / name, settings)
        model = VGGishClassifier.from_pretrained(tmp_path / name)
        now = model.backbone.network.state_dict()
        return {key[:5] for key in now if not torch.equal(now[key], begun[key])}

    short = replace(QUICK, epochs=2, keep="last", frozen_blocks=0)
    assert changed(replace(short, backbone="frozen"), "frozen") == set()
    assert changed(replace(short, backbone="gradual", unfreeze_at=(0, 1, 2)), "gradual") == {"conv3", "conv4"}
    assert changed(replace(short, frozen_blocks=3), "kept") == {"conv4"}


def test_several_labels(clips, small_folder, tmp_path):
    both = [replace(clip, labels=("high", "low")) if i % 4 == 0 else clip for i, clip in enumerate(clips)]
    metrics = run(both, small_folder, tmp_path / "run", replace(QUICK, class_weights="balanced"), multilabel=True)
    assert metrics["metric"] == "mean_average_precision"
    model = VGGishClassifier.from_pretrained(tmp_path / "run")
    assert model.multilabel and model.predict(both[0].item.path).scores.max() < 1


def test_without_validation_the_last_weights_are_kept(clips, small_folder, tmp_path):
    backbone = VGGish.from_pretrained(small_folder)
    metrics = train(clips, [], LABELS, tmp_path / "run", replace(QUICK, epochs=1), backbone=backbone, options=MEMORY)
    assert metrics["kept"] == "last" and "validation" not in metrics


def test_early_stopping(clips, small_folder, tmp_path):
    settings = replace(QUICK, epochs=30, backbone="frozen", lr=1e-7, early_stopping=1, metric="macro_f1")
    stopped = []
    metrics = run(clips, small_folder, tmp_path / "run", settings, watch=lambda e: stopped.append(e.kind))
    assert metrics["stopped_early"] and metrics["epochs"] < 30 and "stopped" in stopped


def test_two_devices_side_by_side(clips, small_folder, tmp_path):
    settings = replace(QUICK, devices=2, head_epochs=2, epochs=1, batch_size=2, backbone="frozen")
    metrics = run(clips, small_folder, tmp_path / "run", settings)
    assert metrics["steps"] == 2  # 8 clips, 2 devices, 2 clips each
    assert [row["epoch"] for row in history(tmp_path / "run")] == ["0", "1"]
    assert VGGishClassifier.from_pretrained(tmp_path / "run").labels == LABELS


def test_a_loss_that_is_not_finite(clips, small_folder, tmp_path):
    settings = replace(QUICK, lr=1000.0, clip=0.0, schedule="none", epochs=20, optimizer="SGD", frozen_blocks=0)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in epoch \d+, batch \d.*\.wav.*--lr"):
        run(clips, small_folder, tmp_path / "run", settings)


def test_other_settings_and_other_data_are_refused(undisturbed, clips, small_folder):
    before = weights(undisturbed)
    with pytest.raises(SettingsError, match=r"augment\.gain: 6 → 3; lr: 0\.0005 → 0\.01"):
        run(
            clips,
            small_folder,
            undisturbed,
            replace(QUICK, lr=0.01, augment=replace(QUICK.augment, gain=3)),
            resume=True,
        )
    with pytest.raises(SettingsError, match="data: "):
        run(clips[::-1], small_folder, undisturbed, resume=True)
    with pytest.raises(OutputError, match=r"holds a training already.*--resume"):
        run(clips, small_folder, undisturbed)
    assert weights(undisturbed) == before
    assert run(clips, small_folder, undisturbed, resume=True)["epochs"] == 3  # finished: nothing is done again
    assert weights(undisturbed) == before


def stopped_run(clips, small_folder, out: Path) -> None:
    with pytest.raises(Killed):
        run(clips, small_folder, out, options=replace(MEMORY, checkpoint_steps=1), watch=killed_at(2))


def test_damaged_and_newer_runs(clips, small_folder, tmp_path):
    stopped_run(clips, small_folder, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    torch.save({**state, "checkpoint_version": 99}, last)
    with pytest.raises(CheckpointError, match="newer vggish_pt"):
        run(clips, small_folder, tmp_path / "run", resume=True)
    torch.save({**state, "model": {}}, last)
    with pytest.raises(CheckpointError, match="does not fit"):
        run(clips, small_folder, tmp_path / "run", resume=True)
    last.write_bytes(b"PK\3\4 no checkpoint")
    with pytest.raises(CheckpointError, match="damaged"):
        run(clips, small_folder, tmp_path / "run", resume=True)
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "format_version": 99}))
    with pytest.raises(CheckpointError, match="newer vggish_pt"):
        run(clips, small_folder, tmp_path / "run", resume=True)


def test_a_checkpoint_is_not_unpickled(clips, small_folder, tmp_path):
    stopped_run(clips, small_folder, tmp_path / "run")
    trap = tmp_path / "trap"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (trap,))

    torch.save({"checkpoint_version": 1, "model": Evil()}, tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(CheckpointError, match="damaged"):
        run(clips, small_folder, tmp_path / "run", resume=True)
    assert not trap.exists()


def test_unreadable_files(clips, small_folder, tmp_path):
    gone = replace(clips[1], item=Clip(str(tmp_path / "gone.wav"), 1))
    some = [clips[0], gone, *clips[2:]]
    with pytest.raises(AudioError, match=r"1 of 12 files cannot be read.*gone\.wav.*--skip-unreadable"):
        run(some, small_folder, tmp_path / "run", replace(QUICK, epochs=1))
    skip = replace(MEMORY, skip_unreadable=True)
    told = []
    metrics = run(
        some, small_folder, tmp_path / "run", replace(QUICK, epochs=1), options=skip, overwrite=True, watch=told.append
    )
    assert metrics["epochs"] == 1 and [e.text for e in told if e.kind == "unreadable"] != []
    with pytest.raises(AudioError, match="none of the 12 files can be read"):
        lost = [replace(clip, item=Clip(f"{clip.item.path}.gone", i)) for i, clip in enumerate(clips)]
        run(lost, small_folder, tmp_path / "lost", options=skip)


def test_clips_that_cannot_be_learned_from(clips, small_folder, tmp_path):
    backbone = VGGish.from_pretrained(small_folder)

    def attempt(clips, labels) -> None:
        train(clips, [], labels, tmp_path / "run", QUICK, backbone=backbone, options=MEMORY)

    with pytest.raises(TrainingError, match="one class only"):
        attempt(clips, ["high"])
    with pytest.raises(TrainingError, match="no training clip has the label 'middle'"):
        attempt(clips, [*LABELS, "middle"])
    with pytest.raises(TrainingError, match="at least 2 clips"):
        attempt(clips[:1], LABELS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizer": "Adamm"}, r"optimizer must be one of .*AdamW"),
        ({"optimizer_options": {"momentum": 1}}, "optimizer AdamW: .*momentum"),
        ({"schedule": "OneCycle"}, "schedule must be none or one of .*OneCycleLR"),
        ({"schedule": "StepLR"}, "schedule StepLR: .*step_size"),
    ],
)
def test_names_of_torch(clips, small_folder, tmp_path, wrong, message):
    with pytest.raises(SettingsError, match=message):
        run(clips, small_folder, tmp_path / "run", replace(QUICK, **wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"swa": 1.0},
        {"backbone": "thawed"},
        {"unfreeze_at": (3, 1)},
        {"weights": "none", "backbone": "frozen"},
        {"precision": "fp16"},
        {"seed": -1},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(SettingsError):
        replace(TrainSettings(), **wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"gain": -1}, {"snr": (5.0,)}, {"snr": (9.0, 5.0)}, {"noise_share": 2}, {"mixup": -0.1}, {"mask_bands": 64}],
)
def test_augmentation_settings_are_checked(wrong):
    with pytest.raises(SettingsError):
        AugmentSettings(**wrong)


def test_two_trainings_in_one_folder(clips, small_folder, tmp_path):
    def second(event: TrainingProgress) -> None:
        if event.kind == "step":
            with pytest.raises(OutputError, match="another training is running"):
                run(clips, small_folder, tmp_path / "run", resume=True)
            raise Killed

    with pytest.raises(Killed):
        run(clips, small_folder, tmp_path / "run", watch=second)


def test_the_callers_randomness_is_left_alone(clips, small_folder, tmp_path):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    run(clips, small_folder, tmp_path / "run", replace(QUICK, epochs=1, backbone="frozen"))
    assert torch.equal(state, torch.get_rng_state())
