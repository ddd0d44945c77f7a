"""``vggish-pt probe`` as a process."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import soundfile as sf

RATE = 16_000


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Two classes of four sounds; the first digit of the name is the fold, 1 or 2."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(2)
    for kind in ("noise", "tone"):
        (folder / kind).mkdir()
        for number in range(4):
            time = np.arange(RATE) / RATE
            tone = np.sin(2 * np.pi * (500 + 100 * number) * time)
            samples = tone if kind == "tone" else rng.standard_normal(RATE)
            sf.write(folder / kind / f"{number % 2 + 1}-{number}.wav", samples * 0.1, RATE)
    return folder


def test_table_figure_and_saved_probe(run_cli, sounds, small_folder, tmp_path):
    (sounds / "notes.txt").write_text("")
    done = run_cli(
        *("probe", sounds, "--weights", small_folder, "--layer", "embedding", "--layer", "conv2"),
        *("--classifier", "logistic", "--classifier", "knn", "--fold-from", r"^(\d)-"),
        *("--out", "out", "--confusion", "matrix.svg"),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "|",
        "features",
        "|",
        "numbers",
        "|",
        "classifier",
        "|",
        "accuracy",
        "|",
        "macro",
        "F1",
        "|",
    ]
    assert [line.split("|")[3].strip() for line in lines[2:6]] == ["logistic", "knn"] * 2
    assert "conv2, mean" in lines[4] and "±" in lines[2]
    assert lines[6] == "2 classes, 8 clips; mean ± standard deviation over folds, by the 2 folds given"
    (sounds / "notes.txt").unlink()
    assert "1 files without an audio ending are left out" in done.stderr and "saved: " in done.stderr
    names = {"probe.json", "classifier.skops", "check.safetensors", "results.json", "results.csv", "confusion.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert (tmp_path / "matrix.svg").read_bytes().startswith(b"<?xml")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rounds"] == ["fold 1", "fold 2"]

    from vggish_pt.classify import load_probe

    assert load_probe(tmp_path / "out").predict(sounds / "tone" / "1-0.wav").best == "tone"
    again = run_cli("probe", sounds, "--weights", small_folder, "--out", "out")
    assert again.returncode == 1 and "--overwrite" in again.stderr
    replaced = run_cli("probe", sounds, "--weights", small_folder, "--folds", "2", "--out", "out", "--overwrite", "-q")
    assert replaced.returncode == 0 and replaced.stderr == ""
    assert json.loads((tmp_path / "out" / "results.json").read_text())["scheme"] == "stratified"


def test_baselines_beside_it(run_cli, sounds):
    options = ("--weights", "random", "--layer", "conv1", "--compare", "--fold-from", r"^(\d)-", "--seed", 3)
    told = json.loads(run_cli("probe", sounds, *options, "--json").stdout)
    names = ["random conv1, mean", "log-mel, mean+std", "mfcc, mean+std", "cqt, mean+std"]
    assert [row["features"] for row in told["rows"]] == names and told["seed"] == 3
    assert [row["dimensions"] for row in told["rows"]] == [64, 128, 40, 160]
    assert max(row["mean"]["accuracy"] for row in told["rows"]) > 0.7


def test_table_as_csv(run_cli, sounds, small_folder):
    done = run_cli("probe", sounds, "--weights", small_folder, "--fold-from", r"^(\d)-", "--csv")
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert float(row["accuracy_mean"]) == (float(row["accuracy fold 1"]) + float(row["accuracy fold 2"])) / 2


def test_files_that_cannot_be_read(run_cli, sounds, small_folder, tmp_path):
    lines = ["path,label"] + [f"{path},{path.parent.name}" for path in sorted(sounds.glob("*/*.wav"))]
    (tmp_path / "m.csv").write_text("\n".join([*lines, "gone.wav,tone"]))
    options = ("probe", "m.csv", "--weights", small_folder, "--folds", "2")
    refused = run_cli(*options)
    assert refused.returncode == 1 and refused.stdout == ""
    assert "gone.wav: no such file" in refused.stderr and "--skip-unreadable" in refused.stderr
    done = run_cli(*options, "--skip-unreadable")
    assert done.returncode == 3 and "1 files could not be read" in done.stderr
    assert "8 clips, 1 unreadable left out" in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--classifier", "bayes"], "one of logistic"),
        (["--layer", "conv9"], "layer must be"),
        (["--pooling", "min"], "pooling must be"),
        (["--json", "--csv"], "use one of them"),
        (["--weights", "random", "--out", "x"], "cannot be saved"),
        (["--confusion", "x.gif"], "must end in"),
        (["--folds", "9"], "use fewer folds"),
        (["--fold-from", "x"], "finds no fold"),
        (["--device", "tpu"], "device must be"),
    ],
)
def test_wrong_usage(run_cli, sounds, tmp_path, options, says):
    done = run_cli("probe", sounds, *options)
    assert done.returncode == 2 and done.stdout == "" and says in done.stderr
    assert len(done.stderr.splitlines()) == 1 and list(tmp_path.iterdir()) == []


def test_bad_data(run_cli, tmp_path):
    (tmp_path / "one" / "dog").mkdir(parents=True)
    sf.write(tmp_path / "one" / "dog" / "a.wav", np.zeros(RATE), RATE)
    done = run_cli("probe", "one")
    assert done.returncode == 2 and "one class only (dog)" in done.stderr
