"""Probes: features, cross-validation, and the folder they are saved in."""

from __future__ import annotations

import copy
import io
import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf

from vggish_pt.audio.clip import Clip
from vggish_pt.classify import FeatureSettings, load_probe, read_labelled, save_probe
from vggish_pt.classify.probe import probe
from vggish_pt.classify.probe.baselines import clip_statistics
from vggish_pt.classify.probe.estimators import NAMES, class_scores, fit, make_classifier
from vggish_pt.classify.probe.features import FeatureExtractor, feature_grid, load_model
from vggish_pt.classify.probe.table import csv_text, plain, write_probe
from vggish_pt.errors import AudioError, CheckpointError, OutputError, SettingsError, WeightsError
from vggish_pt.inference.pooling import pool_windows

RATE = 16_000
CLASSES = ("click", "noise", "tone")


def sound(kind, number, rng):
    """A second that is easily told from those of other kinds."""
    time = np.arange(RATE) / RATE
    if kind == "tone":
        return 0.3 * np.sin(2 * np.pi * (400 + 50 * number) * time)
    if kind == "noise":
        return 0.1 * rng.standard_normal(RATE)
    return 0.8 * (np.arange(RATE) % (2000 + 100 * number) < 5)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Three classes of six sounds; the first digit of the name is the fold, 1 to 3."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(1)
    for kind in CLASSES:
        (folder / kind).mkdir()
        for number in range(6):
            sf.write(folder / kind / f"{number % 3 + 1}-{number}.wav", sound(kind, number, rng), RATE)
    return folder


@pytest.fixture(scope="module")
def data(sounds):
    return read_labelled(sounds, fold_from=r"^(\d)-")


@pytest.fixture(scope="module")
def small(small_folder):
    return FeatureSettings(weights=str(small_folder))


@pytest.fixture(scope="module")
def result(data, small):
    return probe(data, [small, FeatureSettings("log-mel")], ["logistic", "knn"])


# Features


@pytest.mark.parametrize(("layer", "pooling"), [("embedding", "mean"), ("conv4", "max"), ("fc1", "mean+std")])
def test_features_are_pooled_embeddings(data, small, small_model, layer, pooling):
    settings = replace(small, layer=layer, pooling=pooling, hop=0.02)
    table, failures = FeatureExtractor(settings).table(data.items[:2])
    expected = [
        pool_windows(small_model.embed(item.path, layer=layer, hop=0.02).values, pooling) for item in data.items[:2]
    ]
    assert not failures and table.dtype == np.float32
    np.testing.assert_allclose(table, np.stack(expected), rtol=1e-4, atol=1e-5)


def test_features_of_a_part_of_a_file(small, small_model, tmp_path, rng):
    samples = rng.standard_normal(4 * RATE) * 0.1
    sf.write(tmp_path / "a.wav", samples, RATE, subtype="DOUBLE")
    table, _ = FeatureExtractor(small).table([Clip("here", source=str(tmp_path / "a.wav"), start=1.0, end=2.0)])
    expected = small_model.embed(samples[RATE : 2 * RATE], RATE).values.mean(0)
    np.testing.assert_allclose(table[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("log-mel", 128), ("mfcc", 40), ("cqt", 160)])
def test_baselines(data, rng, name, size):
    extractor = FeatureExtractor(FeatureSettings(name))
    table, failures = extractor.table(data.items[:3], workers=2)
    assert table.shape == (3, size) and table.dtype == np.float32 and not failures
    assert np.array_equal(table, extractor.table(data.items[:3], workers=0)[0])
    assert np.isfinite(clip_statistics(np.zeros(1, np.float32), name)).all()


def test_log_mel_is_what_the_network_hears(small_model, rng):
    import torch

    waveform = rng.standard_normal(400 + 959 * 160) * 0.1
    frames = small_model.frontend(torch.from_numpy(waveform)).reshape(-1, 64).numpy()
    expected = np.concatenate([frames.mean(0), frames.std(0)])
    # librosa's frames are those of 512 samples, in whose middle the window of 400 lies: 56 samples later.
    later = np.concatenate([np.zeros(56), waveform, np.zeros(56)]).astype(np.float32)
    np.testing.assert_allclose(clip_statistics(later, "log-mel"), expected, atol=2e-3)


def test_random_weights_come_from_the_seed():
    import torch

    first, again, other = (load_model(FeatureSettings(weights="random", seed=seed)) for seed in (5, 5, 6))
    assert torch.equal(first.network.conv1.weight, again.network.conv1.weight)
    assert not torch.equal(first.network.conv1.weight, other.network.conv1.weight)


@pytest.mark.parametrize(
    "wrong", [{"kind": "chroma"}, {"pooling": "min"}, {"layer": "conv9"}, {"hop": 0.001}, {"pad": "no"}, {"seed": -1}]
)
def test_features_that_there_are_not(wrong):
    with pytest.raises(SettingsError):
        FeatureSettings(**wrong)


# Classifiers


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("multilabel", [False, True])
def test_the_prediction_has_the_highest_score(name, multilabel, rng):
    targets = np.eye(3, dtype=np.int64)[rng.integers(0, 3, 60)]
    features = (targets @ rng.standard_normal((3, 5)) + rng.standard_normal((60, 5))).astype(np.float32)
    if multilabel:
        targets |= rng.integers(0, 2, (60, 3)) * np.array([1, 0, 0])
    classifier = make_classifier(name, multilabel=multilabel)
    fit(classifier, features, targets, multilabel=multilabel)
    scores, predicted = class_scores(classifier, features), classifier.predict(features.astype(np.float64))
    assert scores.shape == (60, 3)
    if multilabel:
        assert np.array_equal(scores > (0 if name == "svm" else 0.5), predicted.astype(bool))
    else:
        assert np.array_equal(scores.argmax(axis=1), predicted)


def test_two_classes_have_two_scores(rng):
    features, targets = rng.standard_normal((20, 4)).astype(np.float32), np.eye(2, dtype=np.int64)[[0, 1] * 10]
    classifier = make_classifier("svm")
    fit(classifier, features, targets, multilabel=False)
    scores = class_scores(classifier, features)
    assert scores.shape == (20, 2) and np.array_equal(scores[:, 0], -scores[:, 1])


# Probing


def test_every_clip_is_judged_by_a_classifier_that_did_not_see_it(data, small):
    """Equal to the same thing done with scikit-learn by hand."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)  # labels that cannot be learned, so that a leak would show
    labels = rng.permutation([example.labels[0] for example in data.examples])
    examples = tuple(replace(e, labels=(str(label),)) for e, label in zip(data.examples, labels, strict=True))
    row = probe(replace(data, examples=examples), [small], keep=False).rows[0]
    table, _ = FeatureExtractor(small).table(data.items)
    by_hand = cross_val_score(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)),
        table.astype(np.float64),
        labels,
        cv=PredefinedSplit([int(e.fold) for e in data.examples]),
    )
    assert row.values() == pytest.approx(by_hand)
    assert row.mean() == pytest.approx(by_hand.mean()) and row.spread() == pytest.approx(by_hand.std(ddof=1))
    assert sum(map(sum, row.pooled.confusion)) == len(data)


def test_result(result, data):
    assert result.scheme == "fold" and result.rounds == ("fold 1", "fold 2", "fold 3")
    assert [(row.features.kind, row.classifier) for row in result.rows] == [
        ("vggish", "logistic"),
        ("vggish", "knn"),
        ("log-mel", "logistic"),
        ("log-mel", "knn"),
    ]
    assert result.best.mean() == max(row.mean() for row in result.rows) > 0.9
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["rows"][0]["mean"]["accuracy"] == pytest.approx(result.rows[0].mean())
    assert len(csv_text(result).splitlines()) == 5
    lines = plain(result)
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1


def test_what_draws_is_drawn_from_the_seed(data):
    loose = replace(data, examples=tuple(replace(e, fold=None) for e in data.examples))
    drawn = [probe(loose, [FeatureSettings("mfcc")], folds=2, seed=s, keep=False).to_dict() for s in (1, 1)]
    assert drawn[0] == drawn[1] and drawn[0]["scheme"] == "stratified" and len(drawn[0]["rounds"]) == 2


def test_forests_come_from_the_seed(rng):
    features, targets = rng.standard_normal((30, 4)).astype(np.float32), np.eye(2, dtype=np.int64)[[0, 1] * 15]
    scores = []
    for seed, workers in ((1, 1), (1, 2), (2, 1)):
        forest = make_classifier("forest", seed=seed, workers=workers)
        fit(forest, features, targets, multilabel=False)
        scores.append(class_scores(forest, features))
    assert np.array_equal(scores[0], scores[1]) and not np.array_equal(scores[0], scores[2])


def test_several_labels(tmp_path, rng):
    """Mixtures of two kinds of sound, in which both are found."""
    rows = ["path,labels,fold"]
    for number in range(24):
        kinds = [CLASSES[i] for i in range(3) if (number % 7 + 1) >> i & 1]
        sf.write(tmp_path / f"{number}.wav", sum(sound(kind, number % 4, rng) for kind in kinds) / 2, RATE)
        rows.append(f"{number}.wav,{';'.join(kinds)},{number % 3}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    result = probe(read_labelled(tmp_path / "m.csv"), [FeatureSettings("log-mel")], ["logistic", "svm"])
    assert result.best.headline == "mean_average_precision" and result.best.mean() > 0.9
    assert "mAP" in plain(result)[0]
    save_probe(result.fitted, tmp_path / "out")
    found = load_probe(tmp_path / "out").predict(tmp_path / "6.wav")
    assert found.predicted == ("click", "noise", "tone") and found.scores.shape == (3,)


def test_sounds_that_cannot_be_read(sounds, tmp_path, small):
    folder = tmp_path / "sounds"
    shutil.copytree(sounds, folder)
    (folder / "tone" / "1-9.wav").write_bytes(b"no sound")
    data = read_labelled(folder, fold_from=r"^(\d)-")
    events = []
    with pytest.raises(AudioError, match=r"1 of 19 sounds cannot be used: .*1-9\.wav.*--skip-unreadable"):
        probe(data, [FeatureSettings("log-mel"), small], watch=events.append)
    assert [event.text for event in events if event.kind == "unreadable"]
    features = [small, FeatureSettings("mfcc")]
    result = probe(data, features, skip_unreadable=True, keep=False)
    assert len(result.data) == 18 and [path for path, _ in result.failures] == [str(folder / "tone" / "1-9.wav")]
    without = probe(read_labelled(sounds, fold_from=r"^(\d)-"), features, keep=False)
    assert [row.to_dict() for row in result.rows] == [row.to_dict() for row in without.rows]
    broken = data.select([place for place, e in enumerate(data.examples) if e.labels == ("tone",)])
    for example in data.examples:
        (tmp_path / example.item.path).write_bytes(b"")
    with pytest.raises(AudioError, match="none of its 19 sounds"):
        probe(data, [small], skip_unreadable=True)
    with pytest.raises(SettingsError, match="click"):  # before any sound is opened
        probe(broken, [small])


def test_what_is_asked_for_twice_or_not_there(data, small):
    with pytest.raises(SettingsError, match="given twice"):
        probe(data, [small, small])
    with pytest.raises(SettingsError, match="one of logistic"):
        probe(data, [small], ["bayes"])
    with pytest.raises(SettingsError, match="at least"):
        probe(data, [], [])


def test_a_probe_of_recordings(esc10_dir):
    """Two classes that are easily told apart, by the folds in their file names."""
    paths = [path for kind in ("002*", "004*") for path in sorted(esc10_dir.glob(f"{kind}/[123]-*"))[::6]]
    data = read_labelled(esc10_dir, fold_from=r"^(\d)-")
    chosen = data.select([place for place, e in enumerate(data.examples) if e.item.path in map(str, paths)])
    few = replace(chosen, labels=sorted({e.labels[0] for e in chosen.examples}))
    assert probe(few, [FeatureSettings("log-mel")], keep=False).best.mean() > 0.7


# Saved


@pytest.fixture
def saved(result, tmp_path):
    save_probe(result.fitted, tmp_path / "probe")
    return tmp_path / "probe"


def edit(folder, **values):
    path = folder / "probe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error")
def test_saved_and_loaded(data, small, tmp_path, name):
    result = probe(data, [small], [name])
    save_probe(result.fitted, tmp_path / "probe")
    loaded = load_probe(tmp_path / "probe")
    assert loaded.labels == CLASSES and loaded.features == small and loaded.name == name
    files = [item.path for item in data.items]
    expected = class_scores(result.fitted.classifier, FeatureExtractor(small).table(data.items)[0])
    found = loaded.predict(files, workers=2)
    np.testing.assert_allclose([one.scores for one in found], expected, rtol=1e-6, atol=1e-9)
    assert [one.source for one in found] == files
    assert found[0].predicted == (found[0].best,) == ("click",)
    assert loaded.predict(files[0]).best == "click"


def test_a_file_that_cannot_be_read(saved, sounds, tmp_path):
    loaded = load_probe(saved)
    files = [sounds / "tone" / "1-0.wav", tmp_path / "missing.wav", sounds / "noise" / "1-0.wav"]
    first, error, last = loaded.predict_iter(files)
    assert (first.best, last.best) == ("tone", "noise") and isinstance(error, AudioError)
    with pytest.raises(AudioError, match=r"missing\.wav"):
        loaded.predict(files)


def test_no_random_weights_are_saved(data):
    result = probe(data, [FeatureSettings(weights="random", layer="conv1")])
    assert result.fitted is None and result.rows[0].mean() > 0.5


def test_another_scikit_learn_that_agrees(saved, sounds):
    versions = json.loads((saved / "probe.json").read_text())["versions"]
    edit(saved, versions=versions | {"scikit-learn": "1.2.3"})
    with pytest.warns(UserWarning, match=r"made with scikit-learn 1\.2\.3.*agree"):
        loaded = load_probe(saved)
    assert loaded.predict(sounds / "tone" / "1-0.wav").best == "tone"


def test_another_scikit_learn_that_does_not_agree(saved):
    from safetensors.numpy import load_file, save_file

    versions = json.loads((saved / "probe.json").read_text())["versions"]
    edit(saved, versions=versions | {"scikit-learn": "1.2.3"})
    check = load_file(saved / "check.safetensors")
    save_file({**check, "scores": check["scores"] * 1.01}, saved / "check.safetensors")
    with pytest.raises(CheckpointError, match=r"other scores.*pip install scikit-learn==1\.2\.3"):
        load_probe(saved)


def test_weights_that_are_others_or_were_moved(saved, small_folder, tmp_path):
    settings = json.loads((saved / "probe.json").read_text())["features"]
    assert settings["weights"] == str(small_folder)
    with pytest.raises(WeightsError, match="holds other weights"):
        load_probe(saved, weights="synthetic")
    shutil.copytree(small_folder, tmp_path / "moved")
    edit(saved, features=settings | {"weights": str(tmp_path / "nowhere")})
    with pytest.raises(WeightsError):
        load_probe(saved)
    assert load_probe(saved, weights=tmp_path / "moved").labels == CLASSES


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "not a probe"),
        ({"format_version": 2}, "newer vggish_pt"),
        ({"labels": ["a"]}, "has the wrong type"),
        ({"labels": ["a", "b"]}, "describes"),
        ({"dimensions": 127}, "describes"),
        ({"classifier": "forest"}, "describes"),
        ({"classifier": "bayes"}, "missing or invalid"),
        ({"multilabel": True}, "describes"),
        ({"features": {}}, "missing or invalid"),
        ({"weights": None}, "has the wrong type"),
    ],
)
def test_settings_that_were_changed(saved, change, says):
    edit(saved, **change)
    with pytest.raises(CheckpointError, match=says):
        load_probe(saved)


def test_folders_that_are_damaged_or_none(saved, tmp_path):
    with pytest.raises(CheckpointError, match="not a probe's folder"):
        load_probe(tmp_path / "nothing")
    whole = {path.name: path.read_bytes() for path in saved.iterdir()}
    for name in whole:
        for content in (b"", whole[name][: len(whole[name]) // 2], b"\x00" * 50):
            (saved / name).write_bytes(content)
            with pytest.raises(CheckpointError):
                load_probe(saved)
        (saved / name).write_bytes(whole[name])
    assert load_probe(saved)


def test_nothing_but_classifiers_is_loaded(saved):
    import skops.io

    from vggish_pt.sklearn import VGGishTransformer

    (saved / "classifier.skops").write_bytes(skops.io.dumps(VGGishTransformer()))
    with pytest.raises(CheckpointError, match=r"types that no probe has.*VGGishTransformer"):
        load_probe(saved)


def test_a_small_file_that_would_swell(saved):
    path = saved / "classifier.skops"
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    path.write_bytes(packed.getvalue())
    with pytest.raises(CheckpointError, match="compressed"):
        load_probe(saved)


@pytest.fixture(scope="module")
def forest(data):
    return probe(data, [FeatureSettings("mfcc")], ["forest"]).fitted


@pytest.mark.parametrize(("field", "value"), [("left_child", 0), ("right_child", 10**6), ("feature", 10**6)])
def test_trees_that_lead_astray(forest, tmp_path, field, value):
    """scikit-learn follows them without looking: for ever, or out of memory that is its own."""
    changed = copy.deepcopy(forest)
    tree = changed.classifier.steps[0][1].estimators_[0].tree_
    state = tree.__getstate__()
    state["nodes"][field][0] = value
    tree.__setstate__(state)
    save_probe(changed, tmp_path / "probe")
    with pytest.raises(CheckpointError, match="describes"):
        load_probe(tmp_path / "probe")


def test_where_no_folder_can_be(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_probe(result.fitted, tmp_path / "file" / "probe")


def test_a_grid_of_features():
    grid = feature_grid(["a", "random"], ["conv4", "embedding"], pooling="max")
    assert [(one.weights, one.layer, one.pooling) for one in grid] == [
        (weights, layer, "max") for weights in ("a", "random") for layer in ("conv4", "embedding")
    ]
    compared = feature_grid(["a"], compare=True, resampler="torchaudio", pooling="max")
    assert [(one.kind, one.weights) for one in compared[:2]] == [("vggish", "a"), ("vggish", "random")]
    assert [(one.kind, one.resampler, one.pooling) for one in compared[2:]] == [
        (kind, "torchaudio", "mean") for kind in ("log-mel", "mfcc", "cqt")
    ]


def test_only_probes_of_known_weights_are_written(data, tmp_path):
    result = probe(data, [FeatureSettings("log-mel")], keep=False)
    with pytest.raises(SettingsError, match="no row of this result can be saved"):
        write_probe(result, tmp_path / "probe")
    assert not (tmp_path / "probe").exists()
