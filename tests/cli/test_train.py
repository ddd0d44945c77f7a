"""``vggish-pt train`` as a process: output, run folder, kill and resumption, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import REPOSITORY

QUICK = ("--frozen-blocks", "3", "--windows", "1", "--batch-size", "4", "--device", "cpu", "--gain", "6")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds") / "tones"
    rng = np.random.default_rng(0)
    for label, frequency in (("high", 3000), ("low", 300)):
        (folder / label).mkdir(parents=True)
        for number in range(5):
            tone = 0.2 * np.sin(2 * np.pi * frequency * rng.uniform(0.9, 1.1) * np.arange(16_000) / 16_000)
            soundfile.write(folder / label / f"{number + 1}-{label}.wav", tone, 16_000)
    return folder


def test_folds_and_lines_in_a_log(run_cli, sounds, small_folder, tmp_path):
    folds = ("--fold-from", r"^(\d)-", "--validation-fold", "2", "--test-fold", "5")
    done = run_cli("train", sounds, "--out", "run", "--weights", small_folder, "--epochs", "2", *folds, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "2 classes, 10 clips: 6 for training, 2 for validation, 2 for testing" in done.stderr
    assert "epoch 2 of 2: train loss" in done.stderr and "val accuracy" in done.stderr and "left" in done.stderr
    parts = [line.rsplit(",", 1) for line in (tmp_path / "run" / "split.csv").read_text().splitlines()[1:]]
    assert {Path(path.split(",")[0]).name[0] for path, part in parts if part == "test"} == {"5"}
    assert {Path(path.split(",")[0]).name[0] for path, part in parts if part == "validation"} == {"2"}
    other = run_cli(
        *("train", sounds, "--out", "run", "--weights", small_folder, "--epochs", "3", *folds, *QUICK, "--resume")
    )
    assert other.returncode == 2 and "epochs: 2 → 3" in other.stderr


def test_the_head_alone_says_nothing_but_what_it_must(run_cli, sounds, small_folder, tmp_path):
    alone = ("--head", "mlp", "--hidden", "8", "--head-epochs", "30", "--epochs", "0", "--device", "cpu")
    done = run_cli("train", sounds, "--out", "run", "--weights", small_folder, *alone, "--precision", "bf16")
    assert done.returncode == 0, done.stderr
    assert "head only: train loss" in done.stderr
    assert "run: weights of the head-only stage, of 0 epochs; validation: accuracy" in done.stderr
    assert "Mixed Precision" not in done.stderr  # Lightning's own remarks
    again = ("--overwrite", "--quiet", "--precision", "bf16")
    done = run_cli("train", sounds, "--out", "run", "--weights", small_folder, *alone, *again)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_killed_and_resumed(sounds, small_folder, tmp_path):
    """After SIGKILL at any time, resuming gives the weights of an undisturbed run, bit for bit."""
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from vggish_pt.cli import main; main()", "train", str(sounds)]
    command += [
        "--weights",
        str(small_folder),
        "--epochs",
        "6",
        "--checkpoint",
        "0",
        "--validation-share",
        "0.2",
        *QUICK,
    ]

    def start(out: str, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, "--out", out, *more], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)

    whole = start("whole")
    assert whole.communicate(timeout=240)[1] and whole.returncode == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    process = start("run")
    deadline = time.monotonic() + 240
    while not last.exists():  # it has made a step
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = start("run", "--resume")
    said = resumed.communicate(timeout=240)[1].decode()
    assert resumed.returncode == 0 and "resuming at step" in said
    for name in ("model.safetensors", "labels.txt"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found, expected = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "whole"))
    assert found["validation"] == expected["validation"] and found["steps"] == expected["steps"]


def test_from_scratch_and_files_that_cannot_be_read(run_cli, sounds, small_folder, tmp_path):
    (tmp_path / "data").mkdir()
    for label in ("high", "low"):
        (tmp_path / "data" / label).symlink_to(sounds / label)
    manifest = tmp_path / "data" / "list.csv"
    rows = [f"{label}/{n}-{label}.wav,{label}" for label in ("high", "low") for n in (1, 2, 3)]
    manifest.write_text("path,label\n" + "\n".join([*rows, "gone.wav,low"]) + "\n")
    arguments = ("train", manifest, "--out", "run", "--weights", small_folder, "--epochs", "1", *QUICK)
    arguments += ("--validation-share", "0", "--backbone", "frozen")
    failed = run_cli(*arguments)
    assert failed.returncode == 1 and "gone.wav" in failed.stderr and "--skip-unreadable" in failed.stderr
    done = run_cli(*arguments, "--skip-unreadable", "--overwrite")
    assert done.returncode == 3, done.stderr
    assert "1 files could not be read" in done.stderr and (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs"),
        (["--head", "transformer"], "head must be one of"),
        (["--optimizer-option", "momentum"], "KEY=VALUE"),
        (["--snr", "5"], "two numbers"),
        (["--resume", "--overwrite"], "use one of them"),
        (["--validation-fold", "1"], "--fold-from"),
        (["--noise", "nowhere"], "nowhere"),
    ],
)
def test_wrong_usage(run_cli, sounds, small_folder, tmp_path, arguments, message):
    done = run_cli("train", sounds, "--out", "run", "--weights", small_folder, *QUICK, *arguments)
    assert done.returncode in (1, 2) and message in done.stderr and done.stderr.count("\n") <= 2, done.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_one_class_only(run_cli, sounds, tmp_path):
    done = run_cli("train", sounds / "high" / "..", "--out", "run", "--weights", "synthetic", "--features", "nose")
    assert done.returncode == 2 and "layer must be one of" in done.stderr
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "high").symlink_to(sounds / "high")
    done = run_cli("train", "single", "--out", "run", "--weights", "synthetic")
    assert done.returncode == 2 and "one class only" in done.stderr
