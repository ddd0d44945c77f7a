"""The scripts in ``conversion/``, with TensorFlow where it is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vggish_pt.pretrained.convert import convert
from vggish_pt.pretrained.folder import WEIGHTS_NAME

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
]
REPOSITORY = Path(__file__).resolve().parent.parent


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(REPOSITORY / "conversion" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_right_conversion_passes_and_a_wrong_one_fails(tmp_path: Path) -> None:
    checkpoint, folder = tmp_path / "random.ckpt", tmp_path / "model"
    written = run("random_checkpoint.py", checkpoint, "--format", "v2", "--fc-width", "16", "--optimizer")
    assert written.returncode == 0, written.stderr
    report = convert(checkpoint, folder, final_relu=True)
    assert len(report.slots) == 36  # two of Adam's for each of 18 variables
    assert set(report.ignored) == {"beta1_power", "beta2_power", "global_step"}

    np.save(tmp_path / "examples.npy", np.random.default_rng(1).uniform(-4.6, 3, (2, 96, 64)).astype(np.float32))
    arguments = (checkpoint, folder, "--examples", tmp_path / "examples.npy")
    good = run("compare_with_tensorflow.py", *arguments)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "none (of 18)" in good.stdout
    assert [line.split()[0] for line in good.stdout.splitlines()[2:9]] == [
        "conv1", "conv2", "conv3", "conv4", "fc1", "fc2", "embedding"
    ]  # fmt: skip

    # The last value of the file, wherever it belongs, doubled and more: a tensor is unequal and layers differ.
    weights = bytearray((folder / WEIGHTS_NAME).read_bytes())
    weights[-4:] = np.float32(100.0).tobytes()
    (folder / WEIGHTS_NAME).write_bytes(weights)
    bad = run("compare_with_tensorflow.py", *arguments)
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert "none (of 18)" not in bad.stdout
    assert "FAILED" in bad.stdout
