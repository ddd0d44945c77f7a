"""The tasks that embeddings are judged by: that the answers are right, and that the evaluation tells good from bad."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vggish_pt import VGGish, VGGishConfig
from vggish_pt.constants import SAMPLE_RATE
from vggish_pt.errors import AudioError

sys.path.insert(0, str(Path(__file__).parents[2] / "weights" / "synthetic"))

import evaluate
import tasks
from recordings import Recordings

FOLDER = Path(__file__).parents[2] / "weights" / "synthetic"
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def pitch():
    return tasks.pitch(rng())


@pytest.fixture(scope="module")
def tempo():
    return tasks.tempo(rng())


def test_pitches_are_those_of_their_notes(pitch):
    for place in range(0, len(pitch.waves), 7):
        wave = pitch.waves[place].astype(np.float64)
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
        strongest = spectrum.argmax() * SAMPLE_RATE / len(wave)
        wanted = 130.81 * 2 ** (pitch.labels[place] / 4)
        order = max(1, round(strongest / wanted))
        # To a twentieth of an octave, vibrato and the spectrum's grain.
        assert strongest / order == pytest.approx(wanted, rel=0.05), place


def test_tempos_are_those_asked_for(tempo):
    for place in range(0, len(tempo.waves), 5):
        wave = tempo.waves[place]
        loudness = np.square(wave[: len(wave) // 80 * 80]).reshape(-1, 80).sum(1)
        rises = np.flatnonzero((loudness[2:] > 0.05 * loudness.max()) & (loudness[2:] > 8 * loudness[:-2]))
        beats = rises[np.flatnonzero(np.diff(rises, prepend=-99) > 20)] * 80 / SAMPLE_RATE
        period = 60 / np.geomspace(60, 240, 8)[tempo.labels[place]]
        assert np.median(np.diff(beats)) == pytest.approx(period, rel=0.06), place


@pytest.mark.parametrize("name", ["pitch", "tempo"])
def test_every_class_is_fitted_to_and_tested_with(name, request):
    task = request.getfixturevalue(name)
    assert len(task.waves) == len(task.labels) == len(task.tested)
    for part in (task.tested, ~task.tested):
        counts = np.bincount(task.labels[part])
        assert counts.min() == counts.max() > 7
    assert all(np.abs(wave).max() == pytest.approx(0.3) for wave in task.waves)


def test_same_seed_same_task(tempo):
    again, other = tasks.tempo(rng()), tasks.tempo(np.random.default_rng(1))
    assert all(np.array_equal(a, b) for a, b in zip(tempo.waves, again.waves, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(tempo.waves, other.waves, strict=True))


@needs_espeak
def test_digits_are_spoken_by_other_voices_than_those_fitted_to():
    task = tasks.digits(rng())
    assert len(task.waves) == 14 * 10 * 4
    assert set(tasks._HEARD).isdisjoint(tasks._UNHEARD)
    seconds = np.array([len(wave) / SAMPLE_RATE for wave in task.waves])
    assert 0.3 < seconds.min() < seconds.max() < 2.5
    assert len({wave.tobytes() for wave in task.waves}) == len(task.waves)  # no two alike


@needs_espeak
def test_mixtures_hold_what_their_labels_say():
    task = tasks.mixtures(rng())
    assert task.labels.shape == (360, 5)
    assert set(task.labels[~task.tested].sum(1)) == {1, 2}
    assert set(task.labels[task.tested].sum(1)) == {2, 3}
    hums = np.array([np.abs(np.fft.rfft(wave))[: 3 * 70].max() for wave in task.waves])  # nothing else is below 70 Hz
    has = task.labels[:, list(tasks._SOURCES).index(tasks._hum)] == 1
    assert np.median(hums[has]) > 10 * np.median(hums[~has])


@pytest.mark.parametrize(("name", "decibels"), [("noise 10 dB", 10), ("noise 0 dB", 0)])
def test_noise_is_as_loud_as_it_says(name, decibels, tempo):
    wave = tempo.waves[0]
    noise = tasks.CONDITIONS[name](wave, rng()) - wave
    assert 10 * np.log10(np.square(wave).mean() / np.square(noise).mean()) == pytest.approx(decibels, abs=0.1)


def test_quiet_is_twenty_decibels_down(tempo):
    np.testing.assert_allclose(tasks.CONDITIONS["quiet"](tempo.waves[0], rng()), tempo.waves[0] / 10, rtol=1e-6)


def test_noise_depends_on_the_place_alone(tempo):
    first, again = (evaluate.changed(tempo.waves[:3], "noise 0 dB") for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0] - tempo.waves[0], first[1] - tempo.waves[1])


def test_answers_in_the_features_give_all_and_noise_gives_chance(tempo):
    # Features are asked of what is fitted to, and then of what is tested with under each condition.
    parts = iter([~tempo.tested] + [tempo.tested] * len(tasks.CONDITIONS))

    def knowing(_):
        return np.eye(8, dtype=np.float32)[tempo.labels[next(parts)]]

    assert evaluate.on_task(tempo, knowing)[0] == 1

    def ignorant(waves):
        return np.random.default_rng(len(waves)).standard_normal((len(waves), 16)).astype(np.float32)

    assert evaluate.on_task(tempo, ignorant)[0] < 0.3  # 0.125 by chance


def test_average_precision_is_that_of_ranked_scores():
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5)
    classifier = evaluate.fitted(labels.astype(np.float32), labels)
    assert evaluate.figure(classifier, labels.astype(np.float32), labels) == 1
    assert evaluate.figure(classifier, 1 - labels.astype(np.float32), labels) < 0.7


def test_recordings_are_judged_by_the_fold_they_are_in():
    waves = [np.full(16_000, value, np.float32) for value in range(10)]
    recordings = Recordings(waves, np.array(["a", "b"] * 5), np.repeat([1, 2, 3, 4, 5], 2))
    asked = []

    def knowing(of):
        asked.append(of)
        values = np.array([round(float(np.median(wave))) for wave in of])
        return np.where((values % 2 == 0) ^ (values >= 8), 1, -1)[:, None].astype(np.float32)  # fold 5 the other way

    told = evaluate.predictions(recordings, knowing, [tasks.CLEAN])
    scores = {condition: evaluate.by_fold(recordings, found) for condition, found in told.items()}
    assert scores == {tasks.CLEAN: [1, 1, 1, 1, 0]}
    assert len(asked) == 1  # nothing is computed twice
    taken = evaluate.confusions(recordings, told[tasks.CLEAN])
    assert taken == {"a": {"a": 4, "b": 1}, "b": {"b": 4, "a": 1}}


def test_classes_are_told_one_by_one(capsys):
    waves = [np.full(16_000, value, np.float32) for value in range(20)]
    labels = np.array(["good", "bad"] * 10)
    recordings = Recordings(waves, labels, np.repeat([1, 2, 3, 4, 5], 4))

    def features(of):  # tells them apart, but for two bad ones
        values = np.array([round(float(np.median(wave))) for wave in of])
        return np.where((values % 2 == 0) | np.isin(values, (3, 15)), 1, -1)[:, None].astype(np.float32)

    told = evaluate.predictions(recordings, features, [tasks.CLEAN])
    evaluate.print_classes(recordings, "mine", told[tasks.CLEAN])
    header, _, first, second = capsys.readouterr().out.strip().splitlines()
    assert header == "| mine: class | clips | recognised | taken for |"
    assert first == "| good | 10 | 10 |  |"
    assert second == "| bad | 10 | 8 | good 2 |"


def test_half_rounds_every_layer_and_models_keep_their_names(tmp_path):
    names = [str(tmp_path / folder / "model") for folder in ("one", "other")]
    for name in names:
        VGGish(VGGishConfig(fc_width=8)).save_pretrained(name)
    compared = evaluate.all_features(names, ["embedding"], half=True, others=False)
    assert list(compared) == [f"{name}{kind}, embedding" for name in names for kind in ("", " in float16")]
    for label, features in compared.items():
        exact = [torch.equal(p, p.half().float()) for p in features.args[0].network.parameters()]
        assert all(exact) if "float16" in label else not any(exact)


def test_folders_that_hold_no_recordings_are_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "dog").mkdir()
    for folder in (tmp_path, tmp_path / "missing", tmp_path / "dog"):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--esc10", str(folder)])
        with pytest.raises(SystemExit) as leave:
            evaluate.main()
        assert str(leave.value).startswith(f"evaluate.py: {folder}") and len(str(leave.value).splitlines()) == 1
        assert capsys.readouterr() == ("", "")
    run = subprocess.run([sys.executable, str(FOLDER / "ablate.py"), str(tmp_path)], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"ablate.py: {tmp_path}") and len(run.stderr.splitlines()) == 1


def test_a_recording_that_is_damaged_is_named(tmp_path):
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "1-a.wav").write_bytes(b"RIFF....WAVE")
    with pytest.raises(AudioError, match=r"1-a\.wav"):
        Recordings.read(tmp_path)


def test_command_prints_a_table_for_each_task():
    command = [sys.executable, str(FOLDER / "evaluate.py"), "--task", "pitch", "--layer", "embedding", "--no-others"]
    run = subprocess.run([*command, "--weights", str(FOLDER)], capture_output=True, text=True, check=True)
    header, _, row = run.stdout.strip().splitlines()
    assert header == "| pitch | as it is | quiet | noise 10 dB | noise 0 dB |"
    figures = [float(cell) for cell in row.strip("| ").split(" | ")[1:]]
    assert 0.15 < figures[0] <= 1  # 0.063 by chance
    assert "192 of them tested with" in run.stderr
