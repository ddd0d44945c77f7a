"""``vggish-pt bench``, as a process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from vggish_pt.bench import generated_sound

Cli = Callable[..., Any]
QUICK = ("--device", "cpu", "--seconds", "0.01", "--batch-size", "1", "--batch-size", "2")


def test_text_recommends_what_embed_takes(run_cli: Cli, small_folder: Path, tmp_path: Path) -> None:
    run = run_cli("bench", "--weights", small_folder, *QUICK)
    assert (run.returncode, run.stderr) == (0, "")
    for text in ("processor", "torch", "peak fp32", "front end, float64", "fp32, direct", "fp32, Winograd"):
        assert text in run.stdout
    (options,) = re.findall(r"^recommended: (.*)$", run.stdout, re.MULTILINE)
    soundfile.write(tmp_path / "clip.wav", generated_sound(2.0), 44_100)
    run = run_cli("embed", "clip.wav", "--out", "out.npy", "--weights", small_folder, *options.split())
    assert run.returncode == 0, run.stderr


def test_json(run_cli: Cli, small_folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mine.ogg", generated_sound(2.0), 44_100)
    run = run_cli("bench", "--weights", small_folder, "--audio", "mine.ogg", "--json", *QUICK)
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert report["weights"] == "small"
    assert report["host"][0]["name"] == "decode and resample, OGG"
    assert report["recommended"].keys() == {"device", "precision", "batch_size", "workers", "real_time"}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--device", "tpu"], 2, "device must be"),
        (["--seconds", "0"], 2, "seconds must be above 0"),
        (["--batch-size", "0"], 2, "batch sizes must be"),
        (["--audio", "missing.wav"], 1, "missing.wav"),
    ],
)
def test_errors(run_cli: Cli, small_folder: Path, options: list[str], code: int, message: str) -> None:
    run = run_cli("bench", "--weights", small_folder, *options)
    assert run.returncode == code
    assert run.stdout == ""
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
