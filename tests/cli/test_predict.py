"""``vggish-pt predict`` as a process."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from vggish_pt.classify import VGGishClassifier
from vggish_pt.classify.evaluation.events import EventSettings, find_events

LABELS = ["dog, small", "=cmd|' /C calc'!A0", 'say "hm"\nloudly', "<b>ü</b>"]


@pytest.fixture(scope="module")
def run_folder(classifier_folder):
    return classifier_folder(LABELS)


@pytest.fixture(scope="module")
def several(classifier_folder):
    """A classifier of any number of labels."""
    return classifier_folder(["a", "b", "c"], multilabel=True, kind="attention")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Three files: 5 s, a tenth of a second, and one in a folder below with the first one's name."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(4)
    time = np.arange(16_000 * 5) / 16_000
    swell = np.sin(2 * np.pi * 440 * time) * (time % 2 > 1) + 0.05 * rng.standard_normal(len(time))
    sf.write(folder / "five.wav", swell * 0.5, 16_000)
    sf.write(folder / "short.wav", rng.standard_normal(1_600) * 0.1, 16_000)
    (folder / "below").mkdir()
    sf.write(folder / "below" / "FIVE.flac", rng.standard_normal(44_100 * 2) * 0.1, 44_100)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files(warm_cli, run_folder, sounds, tmp_path):
    result = warm_cli("predict", run_folder, sounds, "--out", "x.csv", "--top", "0")
    assert result.returncode == 0, result.stderr
    rows = table(tmp_path / "x.csv")
    assert list(rows[0]) == ["path", "rank", "label", "score"]
    model = VGGishClassifier.from_pretrained(run_folder)
    for path in ("below/FIVE.flac", "five.wav", "short.wav"):
        own = [row for row in rows if row["path"] == str(sounds / path)]
        expected = dict(zip(LABELS, model.predict(sounds / path).scores.tolist(), strict=True))
        assert {row["label"]: float(row["score"]) for row in own} == pytest.approx(expected, abs=1e-5)
        assert [row["rank"] for row in own] == ["1", "2", "3", "4"]
        scores = [float(row["score"]) for row in own]
        assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1)
    again = warm_cli("predict", run_folder, sounds, "--out", "x.csv")
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    few = warm_cli("predict", run_folder, sounds, "--out", "x.csv", "--overwrite", "--quiet", "--batch-size", "2")
    assert (few.returncode, few.stderr) == (0, "")
    best = table(tmp_path / "x.csv")
    assert [(r["path"], r["label"]) for r in best] == [(r["path"], r["label"]) for r in rows if int(r["rank"]) <= 3]


def test_windows(warm_cli, several, sounds, tmp_path):
    for name in ("w.csv", "w.json"):
        result = warm_cli("predict", several, sounds / "five.wav", "--out", name, "--windows", "--top", "0")
        assert result.returncode == 0, result.stderr
    expected = VGGishClassifier.from_pretrained(several).predict(sounds / "five.wav")
    rows = table(tmp_path / "w.csv")
    assert len(rows) == 3 * len(expected.start)
    for row in rows:
        number = int(row["window"])
        assert float(row["start"]) == pytest.approx(expected.start[number].item(), abs=1e-9)
        assert float(row["end"]) == pytest.approx(expected.end[number].item(), abs=1e-9)
        score = expected.window_scores[number, "abc".index(row["label"])].item()
        assert float(row["score"]) == pytest.approx(score, abs=1e-5)
    read = json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))
    assert (read["labels"], read["multilabel"], read["view"]) == (["a", "b", "c"], True, "windows")
    (file,) = read["files"]
    assert file["duration"] == 5
    assert [w["scores"]["a"] for w in file["windows"]] == [float(r["score"]) for r in rows if r["label"] == "a"]


@pytest.mark.parametrize("kind", ["one label", "several labels"])
def test_events(warm_cli, run_folder, several, sounds, tmp_path, kind):
    folder = several if kind == "several labels" else run_folder
    how = {"threshold": 0.5, "low": 0.4, "min_duration": 0.4, "max_gap": 0.3, "median": 3}
    options = [word for name, value in how.items() for word in (f"--{name.replace('_', '-')}", value)]
    common = ("predict", folder, sounds / "five.wav", sounds / "short.wav", "--hop", "0.24", "--events", *options)
    for name in ("e.csv", "e.json"):
        result = warm_cli(*common, "--out", name)
        assert result.returncode == 0, result.stderr
    model = VGGishClassifier.from_pretrained(folder)
    found = model.predict(sounds / "five.wav", hop=0.24)
    expected = find_events(
        found.window_scores,
        found.start,
        found.end,
        model.labels,
        multilabel=model.multilabel,
        settings=EventSettings(**how),
        last=5.0,
    )
    assert expected
    rows = [row for row in table(tmp_path / "e.csv") if row["path"].endswith("five.wav")]
    assert [(r["label"], float(r["onset"]), float(r["offset"])) for r in rows] == [
        (event.label, pytest.approx(event.onset, abs=1e-4), pytest.approx(event.offset, abs=1e-4)) for event in expected
    ]
    read = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert [file["path"] for file in read["files"]] == [str(sounds / "five.wav"), str(sounds / "short.wav")]
    assert [event["peak"] for event in read["files"][0]["events"]] == [float(row["peak"]) for row in rows]
    assert all(event["offset"] <= 0.1 for event in read["files"][1]["events"])


def test_figures(warm_cli, several, sounds, tmp_path):
    pytest.importorskip("matplotlib")
    result = warm_cli("predict", several, sounds, "--out", "x.json", "--plot", "drawn", "--threshold", "0.4")
    assert result.returncode == 0, result.stderr
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == ["FIVE-2.png", "five.png", "short.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    again = warm_cli("predict", several, sounds, "--out", "y.json", "--plot", "drawn")
    assert again.returncode == 1
    assert "is not empty" in again.stderr
    assert not (tmp_path / "y.json").exists()


def test_parts_of_a_manifest(warm_cli, run_folder, sounds, tmp_path):
    (tmp_path / "m.csv").write_text(f"path,start,end\n{sounds / 'five.wav'},1.0,2.5\n{sounds / 'five.wav'},,\n")
    result = warm_cli("predict", run_folder, "m.csv", "--out", "x.json", "--windows")
    assert result.returncode == 0, result.stderr
    part, whole = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["files"]
    assert (part["segment_start"], part["segment_end"], part["duration"]) == (1.0, 2.5, 1.5)
    assert (whole["segment_start"], whole["segment_end"], whole["duration"]) == (None, None, 5)
    assert part["windows"][0]["start"] == 1.0
    assert warm_cli("predict", run_folder, "m.csv", "--out", "x.csv").returncode == 0
    assert [row["segment_start"] for row in table(tmp_path / "x.csv")] == ["1.0"] * 3 + [""] * 3


def test_bad_files_are_listed(run_cli, warm_cli, run_folder, sounds, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    (tmp_path / "empty.wav").touch()
    result = warm_cli(
        "predict", run_folder, "bad.wav", sounds / "five.wav", "empty.wav", "missing.wav", "--out", "x.csv"
    )
    assert result.returncode == 3
    assert "3 failed; x.csv.errors.csv names each" in result.stderr
    assert {row["path"] for row in table(tmp_path / "x.csv")} == {str(sounds / "five.wav")}
    errors = table(tmp_path / "x.csv.errors.csv")
    assert [row["path"] for row in errors] == ["bad.wav", "empty.wav", "missing.wav"]
    assert {row["type"] for row in errors} == {"AudioError"}
    nothing = run_cli("predict", run_folder, "bad.wav", "--out", "y.csv")
    assert nothing.returncode == 1
    assert not (tmp_path / "y.csv").exists() and (tmp_path / "y.csv.errors.csv").exists()
    good = warm_cli("predict", run_folder, sounds / "five.wav", "--out", "x.csv", "--overwrite")
    assert good.returncode == 0
    assert not (tmp_path / "x.csv.errors.csv").exists()


@pytest.mark.parametrize(
    "args, code, message",
    [
        (("--out", "x.txt"), 2, "ends in .csv or .json"),
        (("--out", "x.csv", "--windows", "--events"), 2, "choose one of them"),
        (("--out", "x.csv", "--min-duration", "1"), 2, "--min-duration is a rule for events; add --events"),
        (("--out", "x.csv", "--events", "--top", "2"), 2, "--top is for scores"),
        (("--out", "x.csv", "--events", "--threshold", "2"), 2, "threshold must be from 0 to 1"),
        (("--out", "x.csv", "--hop", "0.015"), 2, "hop must be"),
        (("--out", "x.csv", "--pad", "all"), 2, "pad must be"),
        (("--out", "nowhere/x.csv"), 1, "nowhere"),
        (("--out", "x.csv", "--device", "tpu"), 2, "device must be"),
        (("--out", "x.csv", "--plot", "file"), 1, "cannot be used for figures"),
    ],
)
def test_wrong_usage_is_one_line(warm_cli, run_folder, sounds, tmp_path, args, code, message):
    (tmp_path / "file").touch()
    result = warm_cli("predict", run_folder, sounds / "short.wav", *args)
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (code, 1), result.stderr
    assert message in result.stderr
    assert not (tmp_path / "x.csv").exists()


def test_run_folders_that_are_none(warm_cli, run_folder, small_folder, sounds, tmp_path):
    newer = tmp_path / "newer"
    newer.mkdir()
    config = json.loads((run_folder / "config.json").read_text(encoding="utf-8"))
    (newer / "config.json").write_text(json.dumps({**config, "format_version": 99}), encoding="utf-8")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (newer, "written by a newer vggish_pt (format 99"),
        (unfinished, "continue it with vggish-pt train --resume"),
        (small_folder, "an extractor's weights, not a classifier"),
        (tmp_path / "empty", "not a classifier's folder"),
        ("nowhere", "no such run folder"),
    ):
        result = warm_cli("predict", folder, sounds / "short.wav", "--out", "x.csv")
        assert (result.returncode, len(result.stderr.strip().splitlines())) == (1, 1), result.stderr
        assert message in result.stderr
        assert not (tmp_path / "x.csv").exists()


def test_weights_that_are_broken(warm_cli, run_folder, sounds, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(run_folder, tmp_path / "broken")
    tensors = load_file(run_folder / "model.safetensors")
    tensors["head.output.weight"][:] = float("nan")
    save_file(tensors, tmp_path / "broken" / "model.safetensors")
    for options in (("--out", "x.csv"), ("--out", "x.json", "--windows")):
        result = warm_cli("predict", "broken", sounds / "short.wav", *options, "--quiet")
        assert (result.returncode, len(result.stderr.strip().splitlines())) == (1, 1), result.stderr
        assert "scores are not finite" in result.stderr
    (tmp_path / "raw").write_bytes(bytes(40_000))
    result = warm_cli("stream", "--classifier", "broken", "--sample-rate", "16000", stdin=tmp_path / "raw")
    assert (result.returncode, result.stdout, "scores are not finite" in result.stderr) == (1, "", True)
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_what_is_no_file_is_not_replaced(warm_cli, run_folder, sounds, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to("pipe.csv")
    for name in ("pipe.csv", "link.csv"):
        result = warm_cli("predict", run_folder, sounds / "short.wav", "--out", name, "--overwrite")
        assert (result.returncode, "is no regular file" in result.stderr) == (1, True)
    assert (tmp_path / "pipe.csv").is_fifo()


def test_names_of_figures(tmp_path):
    from vggish_pt.classify.evaluation.figure_folder import FigureFolder

    folder = FigureFolder(tmp_path / "drawn")
    names = [
        "a/x.wav",
        "b/X.flac",
        "x.ogg",
        "../../etc/passwd",
        "..",
        "shard.tar::k/1.wav",
        "\\xff$.wav",
        "<b>.wav",
        "",
    ]
    found = [folder.path(name) for name in names]
    assert all(path.parent == tmp_path / "drawn" for path in found)
    assert len({path.name.casefold() for path in found}) == len(names)
    assert [path.name for path in found[:4]] == ["x.png", "X-2.png", "x-3.png", "passwd.png"]
    assert all("<" not in path.name and "\\" not in path.name for path in found)
    assert len(folder.path("y" * 5000 + ".wav").name) < 110
