from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch

from vggish_pt import MissingDependencyError
from vggish_pt.classify import Prediction
from vggish_pt.classify.evaluation.events import SoundEvent
from vggish_pt.classify.evaluation.metrics import classification_metrics
from vggish_pt.classify.evaluation.spectrogram import MAX_COLUMNS, spectrogram
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.windows import window_times
from vggish_pt.utils.figures import save

pytest.importorskip("matplotlib")

from vggish_pt.classify.evaluation import figures

HOSTILE = ("a $x_ b", "line\nbreak", "<b>", "=1+1", "\\frac{", "x" * 500)


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def prediction(labels, windows=5, hop=0.96, duration=0.0, seed=0):
    scores = torch.rand(windows, len(labels), generator=torch.Generator().manual_seed(seed))
    start, end = map(torch.from_numpy, window_times(0, windows, hop))
    return Prediction(scores.mean(dim=0), scores, start, end, tuple(labels), "a $ b\n.wav", duration)


def test_confusion_matrix(tmp_path):
    targets = [0, 0, 0, 1, 2, 2]
    scores = np.eye(6)[[0, 0, 1, 1, 2, 5]]
    figure = figures.confusion_matrix(classification_metrics(targets, scores, HOSTILE))
    (axis,) = figure.get_axes()
    np.testing.assert_allclose(axis.images[0].get_array()[0, :2], [2 / 3, 1 / 3])
    assert sorted(text.get_text() for text in axis.texts) == ["1", "1", "1", "1", "2"]
    assert axis.get_title() == "accuracy 0.667, 6 clips"
    save(figure, tmp_path / "confusion.png")


def test_confusion_of_many_classes_names_and_numbers_nothing(tmp_path, rng):
    targets = rng.integers(0, 100, 300)
    metrics = classification_metrics(targets, rng.random((300, 100)), [f"class {i}" for i in range(100)])
    figure = figures.confusion_matrix(metrics)
    (axis,) = figure.get_axes()
    assert not axis.texts
    assert max(figure.get_size_inches()) <= 16
    save(figure, tmp_path / "many.png")


def test_multilabel_confusion(tmp_path):
    metrics = classification_metrics([[1, 0], [1, 1]], [[0.9, 0.8], [0.1, 0.7]], ("a", "b"), multilabel=True)
    figure = figures.confusion_matrix(metrics)
    np.testing.assert_allclose(figure.get_axes()[0].images[0].get_array(), [[0.5, 0.5, 0], [1, 0, 1]])
    save(figure, tmp_path / "found.svg")


@pytest.mark.parametrize("multilabel", [False, True])
def test_reliability_diagram(tmp_path, multilabel):
    targets = [[1, 0], [0, 1]]
    metrics = classification_metrics(targets, [[0.9, 0.1], [0.6, 0.4]], ("a", "b"), multilabel=multilabel)
    figure = figures.reliability_diagram(metrics)
    assert len(figure.get_axes()[0].patches) == 15
    assert f"{metrics.reliability.error:.3f}" in figure.get_axes()[0].get_title()
    save(figure, tmp_path / "reliability.png")
    with pytest.raises(ValueError, match="not probabilities"):
        figures.reliability_diagram(classification_metrics([0], [[5.0, -1.0]], ("a", "b")))


def test_learning_curve(tmp_path):
    history = [
        {"epoch": 1, "train_loss": 2.0, "val_loss": 2.1, "val_accuracy": 0.3, "val_d_prime": 3, "lr_head": 1e-3},
        {"epoch": 2, "train_loss": 1.0, "val_loss": None, "val_accuracy": 0.5, "lr_head": 1e-4, "seconds": 3.0},
    ]
    figure = figures.learning_curve(history)
    loss, validation, rate = figure.get_axes()
    assert [line.get_label() for line in loss.lines] == ["train_loss", "val_loss"]
    assert [len(line.get_xdata()) for line in loss.lines] == [2, 1]
    assert [line.get_label() for line in validation.lines] == ["val_accuracy"]
    assert rate.lines[0].get_ydata().tolist() == [1e-3, 1e-4]
    save(figure, tmp_path / "curve.png")
    assert len(figures.learning_curve([{"epoch": 1, "train_loss": 1.0}]).get_axes()) == 1
    assert figures.learning_curve([]).get_axes()


def test_timeline(tmp_path):
    found = prediction(HOSTILE, duration=4.5)
    events = [SoundEvent(HOSTILE[1], 0.0, 1.9, 0.7, 0.9), SoundEvent(HOSTILE[1], 2.9, 4.5, 0.7, 0.9)]
    waveform = np.zeros(72_000)
    figure = figures.timeline(found, events, spectrogram=spectrogram(LogMel(), waveform, 16_000))
    upper, lower = figure.get_axes()[:2]
    assert upper.images[0].get_array().shape == (64, 450)
    assert lower.get_xlim() == (0, 4.5)
    scores = np.asarray(lower.collections[0].get_array()).reshape(len(HOSTILE), -1)
    np.testing.assert_allclose(scores, found.window_scores.numpy().T)
    bars = [collection for collection in lower.collections[1:] if len(collection.get_paths())]
    assert [len(collection.get_paths()) for collection in bars] == [2]
    assert "a $ b" in figure.get_suptitle()
    save(figure, tmp_path / "timeline.png")
    save(figures.timeline(prediction(["a", "b"], windows=1, duration=0.1)), tmp_path / "one_window.png")


def test_timeline_of_many_labels_shows_those_that_sound():
    labels = [f"label {i:03}" for i in range(300)]
    found = prediction(labels, windows=9_000, hop=0.1)
    found.window_scores[:] = 0.01
    found.window_scores[4_321, 250] = 0.9
    figure = figures.timeline(found, [SoundEvent(labels[123], 1.0, 2.0, 0.5, 0.5)])
    axis = figure.get_axes()[0]
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert len(names) == 20 and {labels[123], labels[250]} <= set(names)
    scores = np.asarray(axis.collections[0].get_array()).reshape(20, -1)
    assert scores.shape[1] <= 2000
    assert scores[names.index(labels[250])].max() == pytest.approx(0.9)  # the highest score is not lost


@pytest.mark.parametrize("seconds", [0.1, 3.0, 61.234])
def test_spectrogram_is_that_of_the_whole(rng, seconds):
    waveform = rng.standard_normal(int(16_000 * seconds)) * 0.1
    found = spectrogram(LogMel(), waveform, 16_000)
    assert (found.start, found.end) == (0, pytest.approx(seconds, abs=1e-3))
    frontend = LogMel()
    frames = frontend.log_mel(torch.from_numpy(np.concatenate([waveform, np.zeros(16_000)]))).numpy()
    per_column = -(-round(seconds * 100) // MAX_COLUMNS)
    per_column = 1 << (per_column - 1).bit_length()
    count = round(seconds * 100) // per_column
    assert len(found.values) in (count, count + 1)
    assert len(found.values) <= MAX_COLUMNS
    expected = frames[: count * per_column].reshape(count, per_column, 64).mean(axis=1)
    np.testing.assert_allclose(found.values[:count], expected, atol=1e-4)


def test_spectrogram_of_a_part(tmp_path, rng):
    import soundfile

    waveform = rng.standard_normal(48_000) * 0.1
    soundfile.write(tmp_path / "a.wav", waveform, 16_000, subtype="DOUBLE")
    found = spectrogram(LogMel(), tmp_path / "a.wav", start=1.0, end=2.5)
    assert (found.start, found.end) == (1.0, 2.5)
    whole = spectrogram(LogMel(), waveform, 16_000)
    np.testing.assert_allclose(found.values[:140], whole.values[100:240], atol=1e-5)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"vggish_pt\[plot\]"):
        figures.learning_curve([])
