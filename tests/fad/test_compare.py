"""`compare_sets`: one call in Python that does what ``vggish-pt fad`` does."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from vggish_pt.errors import AudioError, OutputError, SettingsError
from vggish_pt.fad import Statistics, bootstrap, compare_sets, frechet_distance, per_file, statistics_of

pytestmark = pytest.mark.filterwarnings("ignore::vggish_pt.errors.AudioWarning")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `a` and `b` of 4 clips, of 2 windows each; the last of `b` is broken."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for name in "ab":
        (folder / name).mkdir()
        for i in range(4):
            soundfile.write(folder / name / f"{i}.wav", 0.1 * rng.standard_normal(32_000), 16_000)
    (folder / "b" / "4.wav").write_bytes(b"RIFF or not")
    return folder


class Log:
    """A watcher that remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, total: int, before: Any) -> None:
        self.calls.append(f"begin {total}")

    def note(self, line: str) -> None:
        self.calls.append(f"note {line}")

    def fail(self, failure: Any) -> None:
        self.calls.append(f"fail {failure.path}")

    def watch(self, outcome: Any) -> None:
        self.calls.append(type(outcome).__name__)


def test_everything_at_once(sounds: Path, small_model: Any, small_folder: Path, tmp_path: Path) -> None:
    names = str(sounds / "a"), str(sounds / "b")
    log = Log()
    result = compare_sets(
        *names,
        weights=str(small_folder),
        bootstrap_samples=10,
        scores=True,
        seed=7,
        save_statistics=tmp_path / "a.npz",
        watcher=log,
    )
    a, b = ([r.values.numpy() for r in small_model.embed(sorted((sounds / n).glob("[0-3].wav")))] for n in "ab")
    reference = statistics_of(a)
    assert result.fad == pytest.approx(frechet_distance(reference, statistics_of(b)), rel=1e-5)
    expected = bootstrap(reference, b, 10, seed=7)
    assert result.interval is not None and result.scores is not None and result.infinite is None
    assert result.interval.low == pytest.approx(expected.low, rel=1e-4)
    assert [score.fad for score in result.scores] == pytest.approx(per_file(reference, b), rel=1e-4)
    assert [Path(score.path).name for score in result.scores] == [f"{i}.wav" for i in range(4)]
    assert [Path(failure.path).name for failure in result.failures] == ["4.wav"]
    assert log.calls == ["begin 9", *["EmbeddedClip"] * 8, "Failure"]
    assert Statistics.load(tmp_path / "a.npz").windows == result.reference.statistics.windows == 8

    result.write_scores(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], int(row["windows"]), float(row["fad"])) for row in rows] == [tuple(s) for s in result.scores]
    with pytest.raises(OutputError, match="exists already"):
        result.write_scores(tmp_path / "scores.csv")
    report = result.to_dict()
    assert report["per_file"] == {"files": 4, "without_score": 0}
    assert report["evaluation"] == {"name": names[1], "windows": 8, "files": 4}
    assert report["bootstrap"]["seed"] == 7


def test_a_set_and_itself(sounds: Path, small_folder: Path) -> None:
    report = compare_sets(str(sounds / "a"), str(sounds / "a"), weights=str(small_folder)).to_dict()
    assert report["fad"] < 1e-6
    assert report["reference"] == report["evaluation"]
    assert len(report["warnings"]) == 2


def test_a_manifest_is_a_set(sounds: Path, small_folder: Path, tmp_path: Path) -> None:
    rows = "".join(f"{sounds}/a/{i}.wav\n" for i in range(2))
    (tmp_path / "list.csv").write_text(f"path\n{rows}")
    result = compare_sets(str(sounds / "a"), str(tmp_path / "list.csv"), weights=str(small_folder))
    assert result.evaluation is not None and result.evaluation.statistics.files == 2


def test_what_cannot_work_is_refused_first(sounds: Path, tmp_path: Path) -> None:
    a, b = str(sounds / "a"), str(sounds / "b")
    for arguments, message in (
        ({"evaluation": b, "bootstrap_samples": 5}, "at least 10 samples"),
        ({"infinite": True}, "infinite needs an evaluation set"),
        ({"evaluation": b, "save_statistics": tmp_path / "a.npy"}, "statistics are saved as .npz"),
        ({"evaluation": b, "device": "gpu"}, "device must be"),
    ):
        with pytest.raises(SettingsError, match=message):
            compare_sets(a, weights="no such weights", **arguments)
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(OutputError, match="exists already"):
        compare_sets(a, weights="no such weights", save_statistics=tmp_path / "a.npz")
    with pytest.raises(AudioError, match="matches no audio file"):
        compare_sets(a, str(sounds / "c*"), weights="no such weights")
