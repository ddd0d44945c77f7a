"""``vggish-pt evaluate`` as a process."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import soundfile as sf

from vggish_pt.classify import VGGishClassifier
from vggish_pt.classify.evaluation.metrics import classification_metrics

LABELS = ["dog, small", "=rain", "tone"]


@pytest.fixture(scope="module")
def run_folder(classifier_folder):
    return classifier_folder(LABELS)


@pytest.fixture(scope="module")
def several(classifier_folder):
    return classifier_folder(["a", "b"], multilabel=True)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder with two sounds of each of two classes."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(4)
    for label in LABELS[:2]:
        (folder / label).mkdir()
        for number in range(2):
            sf.write(folder / label / f"{number}.wav", rng.standard_normal(16_000) * 0.1 * (number + 1), 16_000)
    return folder


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_folder(warm_cli, run_folder, sounds, tmp_path):
    result = warm_cli("evaluate", run_folder, sounds, "--out", "found")
    assert result.returncode == 0, result.stderr
    model = VGGishClassifier.from_pretrained(run_folder)
    paths = [sounds / label / f"{number}.wav" for label in sorted(LABELS[:2]) for number in range(2)]
    scores = np.stack([model.predict(path).scores.numpy() for path in paths])
    targets = [LABELS.index(path.parent.name) for path in paths]
    expected = classification_metrics(targets, scores, LABELS)
    read = json.loads((tmp_path / "found" / "metrics.json").read_text(encoding="utf-8"))
    assert read["accuracy"] == expected.accuracy
    assert read["mean_average_precision"] == pytest.approx(expected.mean_average_precision)
    assert read["without_examples"] == ["tone"]
    assert read["classifier"] == str(run_folder) and read["examples"] == 4
    assert f"accuracy {expected.accuracy:.3f}" in result.stdout
    assert "no clips of tone: left out of all means" in result.stdout
    for label, one in zip(LABELS, expected.per_class, strict=True):
        (line,) = [line for line in result.stdout.splitlines() if line.strip().startswith(label)]
        cells = line.removeprefix(f"  {label}").split()
        assert cells[0] == str(one.support)
        assert cells[4] == ("-" if label == "tone" else f"{one.average_precision:.3f}")
    predictions = rows(tmp_path / "found" / "predictions.csv")
    assert [row["path"] for row in predictions] == [str(path) for path in paths]
    assert [row["labels"] for row in predictions] == [path.parent.name for path in paths]
    assert [row["predicted"] for row in predictions] == [LABELS[place] for place in scores.argmax(axis=1)]
    found = [[float(row[f"score: {label}"]) for label in LABELS] for row in predictions]
    np.testing.assert_allclose(found, scores, atol=1e-5)
    for name in ("confusion.png", "reliability.png"):
        assert (tmp_path / "found" / name).read_bytes().startswith(b"\x89PNG")
    again = warm_cli("evaluate", run_folder, sounds, "--out", "found")
    assert (again.returncode, "exists already" in again.stderr) == (1, True)


def test_several_labels_and_parts(warm_cli, several, sounds, tmp_path):
    path = sounds / LABELS[0] / "0.wav"
    (tmp_path / "m.csv").write_text(f'path,labels,start,end\n"{path}",a;b,0,0.5\n"{path}",b,0.5,1\n', encoding="utf-8")
    result = warm_cli("evaluate", several, "m.csv", "--out", "found", "--threshold", "0.9")
    assert result.returncode == 0, result.stderr
    read = json.loads((tmp_path / "found" / "metrics.json").read_text(encoding="utf-8"))
    assert (read["multilabel"], read["threshold"], len(read["confusion"][0])) == (True, 0.9, 3)
    assert read["auc"] is None or read["auc"] >= 0  # b is in every clip
    first, second = rows(tmp_path / "found" / "predictions.csv")
    assert (first["start"], first["end"], first["labels"]) == ("0.0", "0.5", "a;b")
    scores = {label: float(second[f"score: {label}"]) for label in "ab"}
    assert second["predicted"] == ";".join(label for label in "ab" if scores[label] >= 0.9)


def test_labels_that_the_classifier_does_not_know(warm_cli, run_folder, sounds, tmp_path):
    path = sounds / LABELS[0] / "0.wav"
    (tmp_path / "m.csv").write_text(f'path,label\n"{path}",tone\n"{sounds / LABELS[0] / "1.wav"}",cat\n')
    result = warm_cli("evaluate", run_folder, "m.csv")
    assert result.returncode == 2
    assert "the classifier does not know 'cat'" in result.stderr and "--ignore-unknown-labels" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    ignoring = warm_cli("evaluate", run_folder, "m.csv", "--ignore-unknown-labels")
    assert ignoring.returncode == 0
    assert "1 clips left out" in ignoring.stderr
    (tmp_path / "n.csv").write_text(f'path,label\n"{path}",cat\n')
    nothing = warm_cli("evaluate", run_folder, "n.csv", "--ignore-unknown-labels")
    assert nothing.returncode == 2
    assert "no clip has a label that the classifier knows" in nothing.stderr


def test_several_labels_for_a_classifier_of_one(warm_cli, run_folder, sounds, tmp_path):
    path = sounds / LABELS[0] / "0.wav"
    (tmp_path / "m.csv").write_text(f'path,labels\n"{path}",tone;=rain\n')
    result = warm_cli("evaluate", run_folder, "m.csv")
    assert result.returncode == 2
    assert "1 clips have several labels" in result.stderr


def test_unreadable_clips(warm_cli, run_folder, sounds, tmp_path):
    good, bad = sounds / LABELS[0] / "0.wav", tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    (tmp_path / "m.csv").write_text(f'path,label\n"{good}",tone\n{bad},tone\n')
    result = warm_cli("evaluate", run_folder, "m.csv", "--out", "found", "--quiet")
    assert result.returncode == 1
    assert "1 of 2 clips cannot be read" in result.stderr and "--skip-unreadable" in result.stderr
    assert str(bad) in result.stderr
    assert list((tmp_path / "found").iterdir()) == []
    skipping = warm_cli("evaluate", run_folder, "m.csv", "--out", "found", "--skip-unreadable")
    assert skipping.returncode == 3
    read = json.loads((tmp_path / "found" / "metrics.json").read_text(encoding="utf-8"))
    assert (read["examples"], read["unreadable"]) == (1, 1)
    assert [row["path"] for row in rows(tmp_path / "found" / "errors.csv")] == [str(bad)]
    (tmp_path / "all.csv").write_text(f"path,label\n{bad},tone\n")
    nothing = warm_cli("evaluate", run_folder, "all.csv", "--skip-unreadable")
    assert nothing.returncode == 1
    assert "none of its 1 clips can be read" in nothing.stderr


def test_splits_and_folds(warm_cli, run_folder, sounds, tmp_path):
    paths = [sounds / label / f"{number}.wav" for label in LABELS[:2] for number in range(2)]
    table = "".join(
        f'"{path}","{path.parent.name}",{place % 2},{("train", "test")[place // 2]}\n'
        for place, path in enumerate(paths)
    )
    (tmp_path / "m.csv").write_text(f"path,label,fold,split\n{table}", encoding="utf-8")
    for options, expected in (
        (("--split", "test"), paths[2:]),
        (("--fold", "1"), paths[1::2]),
        (("--split", "test", "--fold", "1"), paths[3:]),
    ):
        result = warm_cli("evaluate", run_folder, "m.csv", "--out", "found", "--overwrite", *options)
        assert result.returncode == 0, result.stderr
        assert [row["path"] for row in rows(tmp_path / "found" / "predictions.csv")] == [str(p) for p in expected]
    for options, message in (
        (("--fold", "7"), "no clip has the fold '7' (there are 0, 1)"),
        (("--split", "validation"), "no clip has the split 'validation' (there are test, train)"),
        (("--split", "rest"), "split must be one of"),
    ):
        result = warm_cli("evaluate", run_folder, "m.csv", *options)
        assert (result.returncode, message in result.stderr) == (2, True), result.stderr


def test_the_split_of_the_training_is_known(warm_cli, classifier_folder, sounds, tmp_path):
    folder = classifier_folder(LABELS, seed=5)
    seen, unseen = (sounds / LABELS[0] / f"{number}.wav" for number in range(2))
    text = f'path,start,end,labels,part\n"{seen}",,,x,training\n"{unseen}",,,x,test\n'
    (folder / "split.csv").write_text(text, encoding="utf-8")
    result = warm_cli("evaluate", folder, sounds)
    assert result.returncode == 0, result.stderr
    assert "trained on 1 of these 4 clips" in result.stderr
    result = warm_cli("evaluate", folder, sounds, "--split", "test", "--out", "found")
    assert result.returncode == 0, result.stderr
    assert [row["path"] for row in rows(tmp_path / "found" / "predictions.csv")] == [str(unseen)]
    assert "trained on" not in result.stderr
    (folder / "split.csv").write_text("path,part\nx,?\n", encoding="utf-8")
    damaged = warm_cli("evaluate", folder, sounds)
    assert (damaged.returncode, "split.csv: damaged" in damaged.stderr) == (1, True)


def test_data_that_is_none(warm_cli, run_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for data, message in (("empty", "no sub-folders"), ("nowhere", "no such folder or manifest")):
        result = warm_cli("evaluate", run_folder, data)
        assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
        assert message in result.stderr
    (tmp_path / "file").touch()
    (tmp_path / "m.csv").write_text("path,label\nx.wav,tone\n")
    result = warm_cli("evaluate", run_folder, "m.csv", "--out", "file/found")
    assert (result.returncode, "cannot be created" in result.stderr) == (1, True)
