from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile as sf

from vggish_pt.classify.data.labelled import read_labelled
from vggish_pt.classify.evaluation.evaluate import evaluate
from vggish_pt.classify.evaluation.predict import load_classifier, predict_clips
from vggish_pt.classify.probe import probe
from vggish_pt.classify.probe.features import FeatureSettings
from vggish_pt.classify.probe.folder import load_probe, save_probe
from vggish_pt.errors import SettingsError

pytest.importorskip("skops")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Four sounds of two seconds of each of two classes."""
    folder = tmp_path_factory.mktemp("probed")
    rng = np.random.default_rng(4)
    time = np.arange(32_000) / 16_000
    for label in ("hiss", "tone"):
        (folder / label).mkdir()
        for number in range(4):
            noise = rng.standard_normal(len(time)) * 0.05
            sound = noise if label == "hiss" else 0.1 * np.sin(2 * np.pi * rng.uniform(300, 900) * time) + noise * 0.05
            sf.write(folder / label / f"{number}.wav", sound, 16_000)
    return folder


def saved(sounds, small_folder, folder, classifier, **features):
    features = {"weights": str(small_folder), **features}
    result = probe(read_labelled(sounds), [FeatureSettings(**features)], [classifier], folds=2)
    save_probe(result.fitted, folder)
    return folder


@pytest.mark.parametrize(
    "classifier, features",
    [("svm", {"layer": "conv3"}), ("logistic", {"pooling": "mean+std", "hop": 0.5})],
)
def test_a_probe_is_a_classifier(sounds, small_folder, tmp_path, classifier, features):
    folder = saved(sounds, small_folder, tmp_path / "probe", classifier, **features)
    model, same = load_classifier(folder), load_probe(folder)
    data = read_labelled(sounds)
    assert (model.labels, model.multilabel) == (["hiss", "tone"], False)
    for item, found in predict_clips(model, data.items):
        expected = same.predict(item.path)
        assert found.best == expected.best
        if classifier != "svm":
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        assert found.scores.sum() == pytest.approx(1)
        assert found.window_scores.shape == (len(found.start), 2)
        assert len(found.start) == (2 if "hop" not in features else 3)
    assert evaluate(model, data).metrics.accuracy == np.mean(
        [same.predict(example.item.path).best == example.labels[0] for example in data.examples]
    )


def test_a_probe_on_the_command_line(warm_cli, sounds, small_folder, tmp_path):
    saved(sounds, small_folder, tmp_path / "probe", "logistic")
    result = warm_cli("predict", "probe", sounds / "tone" / "0.wav", "--out", "x.json", "--windows")
    assert result.returncode == 0, result.stderr
    windows = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["files"][0]["windows"]
    assert len(windows) == 2 and set(windows[0]["scores"]) == {"hiss", "tone"}
    result = warm_cli("evaluate", "probe", sounds)
    assert result.returncode == 0, result.stderr


def test_a_probe_on_other_features(sounds, tmp_path):
    result = probe(read_labelled(sounds), [FeatureSettings("mfcc")], ["logistic"], folds=2)
    save_probe(result.fitted, tmp_path / "probe")
    with pytest.raises(SettingsError, match="mfcc statistics"):
        load_classifier(tmp_path / "probe")
