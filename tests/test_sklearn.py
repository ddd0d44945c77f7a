"""The scikit-learn transformer, by scikit-learn's own checks and in its own tools."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import soundfile
import torch
from conftest import REPOSITORY
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from vggish_pt import AudioError, SettingsError, VGGish, VGGishError, WeightsError
from vggish_pt.sklearn import VGGishTransformer, _load

# scikit-learn's checks that must fail, with the reason; none does.
EXPECTED_FAILURES: dict[str, str] = {}


def _checks(estimator):
    return list(estimator_checks_generator(estimator, expected_failed_checks=EXPECTED_FAILURES, mark="xfail"))


# Their tables hold numbers around 100, which as samples are worth a warning.
@pytest.mark.filterwarnings("ignore::vggish_pt.errors.AudioWarning")
@pytest.mark.parametrize("index", range(len(_checks(VGGishTransformer()))))
def test_check_estimator(index, small_folder):
    estimator, check = _checks(VGGishTransformer(str(small_folder)))[index]
    check(estimator)


@pytest.fixture
def transformer(small_folder):
    return VGGishTransformer(str(small_folder))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Paths and classes of eight clips, and their samples."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(4)
    paths, classes, sounds = [], [], []
    for i in range(8):
        noise = random.standard_normal(31_000 if i == 7 else 14_000 + 1_000 * i) * 0.2
        tone = 0.3 * np.sin(2 * np.pi * (400 + 50 * i) * np.arange(len(noise)) / 16_000)
        sounds.append((noise if i % 2 else tone + noise / 20).clip(-1, 1).astype(np.float32))
        paths.append(str(folder / f"{i}.wav"))
        classes.append("noise" if i % 2 else "tone")
        soundfile.write(paths[-1], sounds[-1], 16_000, subtype="FLOAT")
    return paths, classes, sounds


@pytest.fixture
def embedded(monkeypatch):
    """Counts clips that go through the model."""
    counts = []
    embed_iter = VGGish.embed_iter

    def counting(self, sources, *args, **kwargs):
        counts.append(len(sources))
        return embed_iter(self, sources, *args, **kwargs)

    monkeypatch.setattr(VGGish, "embed_iter", counting)
    return counts


def test_features_are_the_mean_embedding(transformer, small_model, clips):
    paths, _, sounds = clips
    features = transformer.fit_transform(paths)
    expected = np.stack([r.values.mean(dim=0).numpy() for r in small_model.embed(paths)])
    assert features.dtype == np.float32
    assert features.shape == (8, 128)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    for same in (
        np.array(paths),
        np.array(paths, dtype=object)[:, None],
        [Path(path) for path in paths],
        sounds,
        tuple(torch.from_numpy(s) for s in sounds),
        [np.stack([s, s]) for s in sounds],
    ):
        np.testing.assert_allclose(transformer.transform(same), expected, atol=1e-5)


def test_table_of_waveforms(transformer, small_model, rng):
    table = rng.standard_normal((3, 20_000)) * 0.1
    expected = transformer.transform(list(table))
    np.testing.assert_allclose(transformer.fit_transform(table), expected, atol=1e-6)
    assert transformer.n_features_in_ == 20_000
    pcm = (table * 32_767).astype(np.int16)
    np.testing.assert_allclose(transformer.transform(pcm), expected, atol=0.01)
    fast = clone(transformer).set_params(sample_rate=8_000, pad="tail").transform(table)
    direct = small_model.embed(list(table), 8_000, pad="tail")
    np.testing.assert_allclose(fast, [r.values.mean(dim=0).numpy() for r in direct], atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "pooling", "size"),
    [("embedding", "max", 128), ("fc1", "mean", 16), ("conv3", "mean+std", 512), ("conv4", "mean", 512)],
)
def test_layers_and_pooling(transformer, small_model, clips, layer, pooling, size):
    path = clips[0][7]
    transformer.set_params(layer=layer, pooling=pooling)
    features = transformer.fit_transform([path])[0]
    windows = small_model.embed(path, layer=layer).values
    vectors = windows.mean(dim=(2, 3)) if windows.ndim == 4 else windows
    assert len(vectors) == 2
    a, b = vectors.double().numpy()
    expected = {"mean": (a + b) / 2, "max": np.maximum(a, b), "mean+std": np.concatenate([(a + b) / 2, abs(a - b) / 2])}
    np.testing.assert_allclose(features, expected[pooling], rtol=1e-4, atol=1e-5)
    names = transformer.get_feature_names_out()
    assert len(names) == len(set(names)) == size
    assert names[0] == {"mean+std": "conv3_mean_0"}.get(pooling, f"{layer}_0")


def test_postprocess_and_final_relu(transformer, small_model, clips):
    path = clips[0][7]
    whitened = transformer.set_params(postprocess="pca").transform([path])[0]
    np.testing.assert_allclose(whitened, small_model.embed(path, postprocess="pca").values.mean(dim=0), atol=1e-4)
    rectified = transformer.set_params(postprocess=None, final_relu=True).transform([path])[0]
    np.testing.assert_allclose(rectified, small_model.embed(path).values.relu().mean(dim=0), atol=1e-5)


def test_pandas(transformer, clips):
    pandas = pytest.importorskip("pandas")
    paths, _, _ = clips
    frame = pandas.DataFrame({"path": paths[:2]}, index=["a", "b"])
    features = transformer.set_output(transform="pandas").fit_transform(frame)
    assert list(features.index) == ["a", "b"]
    assert list(features.columns) == list(transformer.get_feature_names_out())
    np.testing.assert_array_equal(features, transformer.transform(frame["path"]))


def test_pickles_hold_no_weights(transformer, clips):
    paths, classes, _ = clips
    pipeline = make_pipeline(transformer, StandardScaler(), LogisticRegression()).fit(paths, classes)
    data = pickle.dumps(pipeline)
    assert len(data) < 20_000
    restored = pickle.loads(data)  # noqa: S301
    np.testing.assert_array_equal(restored.predict_proba(paths), pipeline.predict_proba(paths))
    assert pipeline.score(paths, classes) == 1.0


def test_clones_share_the_weights_of_the_process(transformer, clips, small_folder, tmp_path):
    before = _load.cache_info()
    for copy in (transformer, clone(transformer), pickle.loads(pickle.dumps(transformer))):  # noqa: S301
        copy.transform(clips[0][:1])
    assert _load.cache_info().misses <= before.misses + 1
    # A model that is written again is another one.
    folder = tmp_path / "model"
    shutil.copytree(small_folder, folder)
    first = VGGishTransformer(folder).transform(clips[0][:1])
    model = VGGish.from_pretrained(folder)
    with torch.no_grad():
        model.network.embedding.bias += 1
    model.save_pretrained(folder)
    np.testing.assert_allclose(VGGishTransformer(folder).transform(clips[0][:1]), first + 1, atol=1e-5)


def test_grid_search_embeds_each_fold_once(transformer, clips, tmp_path, embedded):
    paths, classes, _ = clips
    transformer.set_params(memory=str(tmp_path))
    pipeline = Pipeline([("vggish", transformer), ("scale", StandardScaler()), ("classify", LogisticRegression())])
    grid = {"vggish__layer": ["embedding", "conv4"], "classify__C": [0.01, 0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(paths, classes)
    assert search.best_score_ > 0.9
    # For each of two layers: two folds, either of which is fitted and predicted; then all clips for the best.
    assert sorted(embedded) == [4] * 4 + [8]


def test_memory_notices_a_changed_file(transformer, clips, tmp_path, embedded):
    path = tmp_path / "x.wav"
    shutil.copy(clips[0][0], path)
    transformer.set_params(memory=joblib.Memory(tmp_path / "cache", verbose=0))
    first = transformer.transform([path])
    np.testing.assert_array_equal(transformer.transform([path]), first)
    assert embedded == [1]
    shutil.copy(clips[0][1], path)
    assert not np.allclose(transformer.transform([path]), first)
    transformer.set_params(batch_size=1).transform([path])
    assert embedded == [1, 1]
    transformer.set_params(hop=0.5).transform([path])
    assert embedded == [1, 1, 1]


def test_pipeline_memory(transformer, clips, tmp_path, embedded):
    paths, classes, _ = clips
    for c in (0.1, 1.0):
        make_pipeline(transformer, LogisticRegression(C=c), memory=str(tmp_path)).fit(paths, classes)
    assert embedded == [8]


def test_joblib_workers(small_folder, clips):
    """In processes of their own, as a user's script would start them."""
    script = """
import sys
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from vggish_pt.sklearn import VGGishTransformer
folder, *paths = sys.argv[1:]
pipeline = make_pipeline(VGGishTransformer(folder), StandardScaler(), LogisticRegression())
scores = cross_val_score(pipeline, paths, [i % 2 for i in range(len(paths))], cv=2, n_jobs=2, error_score="raise")
print(*scores)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    run = subprocess.run(
        [sys.executable, "-c", script, str(small_folder), *clips[0]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert all(float(score) > 0.6 for score in run.stdout.split())


def test_cross_val_score_of_arrays(transformer, clips):
    _, classes, sounds = clips
    pipeline = make_pipeline(transformer, StandardScaler(), LogisticRegression())
    assert cross_val_score(pipeline, sounds, classes, cv=2).mean() > 0.6


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"layer": "fc3"}, "layer must be"),
        ({"pooling": "median"}, "pooling must be"),
        ({"hop": 0.123}, "hop must be"),
        ({"pad": "zeros"}, "pad must be"),
        ({"postprocess": "whiten"}, "postprocess must be"),
        ({"resampler": "linear"}, "resampler must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"device": "tpu"}, "device must be"),
        ({"layer": "fc1", "postprocess": "pca"}, "postprocess is for the embedding layer"),
    ],
)
def test_bad_parameters(transformer, clips, parameters, message):
    transformer.set_params(**parameters)
    with pytest.raises(SettingsError, match=message):
        transformer.fit(clips[0])
    with pytest.raises(SettingsError, match=message):
        transformer.transform(clips[0])


def test_bad_input(transformer, clips, tmp_path):
    paths, _, sounds = clips
    with pytest.raises(SettingsError, match="list of clips"):
        transformer.fit(paths[0])
    with pytest.raises(SettingsError, match="not both"):
        transformer.fit([paths[0], sounds[0]])
    for nothing in ([], [None, 3], [[1.0, 2.0], [3.0]], 3, None, {}):
        with pytest.raises((ValueError, TypeError)):
            transformer.fit(nothing)
    with pytest.raises(AudioError, match=r"missing\.wav: no such file"):
        transformer.transform([paths[0], tmp_path / "missing.wav"])
    with pytest.raises(AudioError, match=r"0\.wav: shorter than a window"):
        transformer.set_params(pad="drop").transform([paths[7], paths[0]])
    with pytest.raises(VGGishError, match="sample_rate"):
        transformer.set_params(sample_rate=0).transform(sounds[:1])
    with pytest.raises(WeightsError, match="no-such-weights"):
        VGGishTransformer("no-such-weights").transform(paths)
