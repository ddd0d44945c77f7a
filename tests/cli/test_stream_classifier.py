"""``vggish-pt stream --classifier``: the scores of ``predict``, as the sound arrives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
from conftest import REPOSITORY

from vggish_pt.classify import VGGishClassifier

LABELS = ["dog, small", "line\nbreak", "ü"]
SAMPLES = (np.random.default_rng(5).standard_normal(16_000 * 3) * 3000).astype("<i2")


@pytest.fixture(scope="module")
def run_folder(classifier_folder):
    return classifier_folder(LABELS, kind="attention")


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def assert_equal(found, expected, tolerance=1e-5):
    assert [set(line) for line in found] == [{"window", "start", "end", "scores"}] * len(expected.start)
    assert [line["window"] for line in found] == list(range(len(expected.start)))
    np.testing.assert_allclose([line["start"] for line in found], expected.start, rtol=0, atol=1e-12)
    np.testing.assert_allclose([line["end"] for line in found], expected.end, rtol=0, atol=1e-12)
    assert [list(line["scores"]) for line in found] == [LABELS] * len(found)
    scores = [list(line["scores"].values()) for line in found]
    np.testing.assert_allclose(scores, expected.window_scores, rtol=0, atol=tolerance)


def test_scores_are_those_of_predict(warm_cli, run_folder, tmp_path):
    (tmp_path / "raw").write_bytes(SAMPLES.tobytes())
    for options, settings in (((), {}), (("--hop", "0.3", "--pad", "tail"), {"hop": 0.3, "pad": "tail"})):
        command = ("stream", "--classifier", run_folder, "--sample-rate", "16000", *options)
        result = warm_cli(*command, stdin=tmp_path / "raw")
        assert (result.returncode, result.stderr) == (0, "")
        model = VGGishClassifier.from_pretrained(run_folder)
        assert_equal(lines(result.stdout), model.predict(SAMPLES, 16_000, **settings))


def test_the_hop_of_the_training(warm_cli, small_model, tmp_path):
    from vggish_pt.classify import WindowSettings

    model = VGGishClassifier(small_model, LABELS, settings=WindowSettings(hop=0.5, pad="tail")).eval()
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "raw").write_bytes(SAMPLES.tobytes())
    result = warm_cli("stream", "--classifier", "run", "--sample-rate", "16000", stdin=tmp_path / "raw")
    assert (result.returncode, result.stderr) == (0, "")
    expected = model.predict(SAMPLES, 16_000)
    assert len(expected.start) == 6
    assert_equal(lines(result.stdout), expected)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg")
def test_through_ffmpeg(run_folder, tmp_path):
    sf.write(tmp_path / "a.flac", np.stack([SAMPLES, SAMPLES // 2], axis=1), 44_100)
    decoder = subprocess.Popen(
        ["ffmpeg", "-loglevel", "error", "-i", str(tmp_path / "a.flac"), "-f", "wav", "-"], stdout=subprocess.PIPE
    )
    code = "import sys; sys.argv[0] = 'vggish-pt'; from vggish_pt.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "stream", "--classifier", str(run_folder), "--hop", "0.2"],
        stdin=decoder.stdout,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    decoder.stdout.close()
    assert decoder.wait(60) == 0
    assert (result.returncode, result.stderr) == (0, "")
    model = VGGishClassifier.from_pretrained(run_folder)
    assert_equal(lines(result.stdout), model.predict(tmp_path / "a.flac", hop=0.2), 2e-4)


@pytest.mark.parametrize(
    "options, code, message",
    [
        (("--weights", "synthetic"), 2, "--weights does not go with --classifier"),
        (("--layer", "fc1"), 2, "--layer does not go with --classifier"),
        (("--postprocess", "pca"), 2, "--postprocess does not go with --classifier"),
        (("--hop", "7.777"), 2, "hop must be"),
    ],
)
def test_options_that_do_not_go_with_it(warm_cli, run_folder, options, code, message):
    result = warm_cli("stream", "--classifier", run_folder, "--sample-rate", "16000", *options)
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (code, "", 1)
    assert message in result.stderr


def test_no_sound_and_no_run(warm_cli, run_folder):
    nothing = warm_cli("stream", "--classifier", run_folder, "--sample-rate", "16000")  # standard input is empty
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "no samples in it" in nothing.stderr
    nowhere = warm_cli("stream", "--classifier", "nowhere", "--sample-rate", "16000")
    assert (nowhere.returncode, "no such run folder" in nowhere.stderr) == (1, True)
