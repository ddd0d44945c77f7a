"""Training of the head only: it learns, the backbone stays, and a kill changes nothing."""

from __future__ import annotations

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
from vggish_pt.classify.training.head import HEAD_LR
from vggish_pt.classify.training.optimization import make_schedule
from vggish_pt.classify.training.settings import TrainSettings
from vggish_pt.classify.training.train import RunOptions, train
from vggish_pt.errors import SettingsError

LABELS = ["high", "low"]
MEMORY = RunOptions(device="cpu", cache="memory")
ALONE = TrainSettings(
    head=HeadConfig("mlp", features="fused:conv2", hidden=16, dropout=0.3), head_epochs=12, epochs=0, windows=2
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[LabelledFile]:
    """Tones above and below 1 kHz, of one window and of several."""
    folder, made = tmp_path_factory.mktemp("tones"), []
    rng = np.random.default_rng(0)
    for number in range(20):
        label = LABELS[number % 2]
        time = np.arange(int((1 + number % 3) * 16_000)) / 16_000
        tone = 0.2 * np.sin(2 * np.pi * (3000 if label == "high" else 300) * rng.uniform(0.8, 1.2) * time)
        path = folder / f"{number}.wav"
        soundfile.write(path, tone + 0.05 * rng.standard_normal(len(time)), 16_000)
        made.append(LabelledFile(Clip(str(path), number), (label,)))
    return made


def run(clips, small_folder, out: Path, settings: TrainSettings = ALONE, **more):
    backbone = VGGish.from_pretrained(small_folder)
    return train(clips[:12], clips[12:], LABELS, out, settings, backbone=backbone, options=MEMORY, **more)


@pytest.mark.parametrize("kind", ["linear", "mlp", "attention"])
def test_the_head_learns_and_the_backbone_stays(clips, small_folder, tmp_path, kind):
    told = []
    settings = replace(ALONE, head=replace(ALONE.head, kind=kind))
    metrics = run(
        clips, small_folder, tmp_path / "run", settings, watch=lambda e: told.append((e.kind, e.done, e.total))
    )
    assert metrics["validation"]["accuracy"] == 1
    assert (metrics["epochs"], metrics["steps"], metrics["kept"]) == (0, 0, "best")
    assert [row["epoch"] for row in history(tmp_path / "run")] == ["0"]
    assert [done for name, done, total in told if name == "head" and total == 12] == list(range(1, 13))
    before = VGGish.from_pretrained(small_folder).state_dict()
    after = VGGishClassifier.from_pretrained(tmp_path / "run").backbone.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_same_seed_same_result(clips, small_folder, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(clips, small_folder, tmp_path / name, replace(ALONE, seed=seed))
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert a == b != c


def test_ten_steps_and_the_logged_rate(clips, small_folder, tmp_path):
    # With ten steps, a tenth of them is one step of warm-up, less one by which torch divides.
    metrics = run(clips, small_folder, tmp_path / "run", replace(ALONE, head_epochs=10))
    (row,) = history(tmp_path / "run")
    assert metrics["epochs"] == 0 and np.isfinite(float(row["train_loss"]))
    assert (float(row["lr_head"]), float(row["lr_backbone"])) == (HEAD_LR, 0.0)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.25, 0.3, 0.5])
def test_one_cycle_of_any_number_of_steps(share):
    for steps in range(1, 101):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        options = {"pct_start": share, "total_steps": max(2, steps)}
        settings = replace(ALONE, schedule_options=options)
        schedule = make_schedule(optimizer, settings, steps, higher_is_better=True)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after("step")
        assert all(0 < rate <= 0.1 for rate in rates), (share, steps, rates)


def test_a_cycle_of_warm_up_only_is_refused():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    settings = replace(ALONE, schedule_options={"pct_start": 1.0})
    with pytest.raises(SettingsError, match=r"pct_start must be a number from 0 to below 1, not 1\.0"):
        make_schedule(optimizer, settings, 8, higher_is_better=True)


@pytest.mark.parametrize("place", [("head", 5), ("epoch", 0), ("step", 2)])
def test_killed_and_resumed(clips, small_folder, tmp_path, place):
    settings = replace(ALONE, epochs=2, frozen_blocks=1, batch_size=4)

    def kill(event) -> None:
        if (event.kind, event.done) == place:
            raise Killed

    run(clips, small_folder, tmp_path / "whole", settings)
    with pytest.raises(Killed):
        run(clips, small_folder, tmp_path / "run", settings, watch=kill)
    run(clips, small_folder, tmp_path / "run", settings, resume=True)
    assert history(tmp_path / "run") == history(tmp_path / "whole")
    assert [row["epoch"] for row in history(tmp_path / "run")] == ["0", "1", "2"]
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_the_head_alone_is_kept_where_it_is_best(clips, small_folder, tmp_path):
    # A rate that destroys what was learnt.
    settings = replace(ALONE, epochs=2, lr=0.5, backbone_lr_factor=1.0, schedule="none", batch_size=4)
    metrics = run(clips, small_folder, tmp_path / "run", settings)
    rows = history(tmp_path / "run")
    assert float(rows[0]["val_loss"]) < float(rows[2]["val_loss"])
    assert (metrics["kept"], metrics["epoch"]) == ("best", 0)
    assert metrics["validation"]["accuracy"] == 1
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000


def test_several_labels(clips, small_folder, tmp_path):
    both = [replace(clip, labels=tuple(LABELS)) if i % 5 == 0 else clip for i, clip in enumerate(clips)]
    metrics = run(both, small_folder, tmp_path / "run", multilabel=True)
    assert np.isfinite(metrics["validation"]["mean_average_precision"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0, "head_epochs": 0}, "epochs must be a whole number from 1"),
        ({"head_epochs": -1}, "head_epochs must be a whole number from 0"),
        ({"weights": "none", "head_epochs": 3}, "leave head_epochs at 0"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(SettingsError, match=message):
        TrainSettings(**wrong)


def test_only_so_many_features_are_kept(clips, small_folder, tmp_path, monkeypatch):
    from vggish_pt.classify.training import head as head_first

    monkeypatch.setattr(head_first, "_MAX_BYTES", 1)
    monkeypatch.setattr(head_first, "_BATCH", 4)
    counts = []
    batches = head_first._batches
    monkeypatch.setattr(head_first, "_batches", lambda f, *a: counts.append(len(f)) or batches(f, *a))
    metrics = run(clips, small_folder, tmp_path / "run")
    assert set(counts) == {4}
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
