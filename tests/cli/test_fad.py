"""``vggish-pt fad``, as a process on real files, and on everything that ``vggish-pt embed`` writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from vggish_pt.errors import AudioError
from vggish_pt.fad import frechet_distance, statistics_of
from vggish_pt.fad.samples import is_dumped, read_sample
from vggish_pt.fad.statistics import Statistics

Cli = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore::vggish_pt.errors.AudioWarning")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `a` (12 clips) and `b` (11), each clip of 2 or 3 windows."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for name, count, level in (("a", 12, 0.05), ("b", 11, 0.2)):
        (folder / name).mkdir()
        for i in range(count):
            clip = level * rng.standard_normal(16_000 * (2 + i % 2)) * np.linspace(0.1, 1, 16_000 * (2 + i % 2))
            soundfile.write(folder / name / f"{i:02}.wav", clip, 16_000)
    return folder


@pytest.fixture(scope="module")
def expected(sounds: Path, small_model: Any) -> float:
    """FAD of `b` against `a` through Python."""
    a, b = (statistics_of(small_model.embed_iter(sorted((sounds / name).iterdir()))) for name in "ab")
    return frechet_distance(a, b)


@pytest.fixture(scope="module")
def dumps(sounds: Path, small_model: Any, small_folder: Path) -> dict[str, Path]:
    """`b` in each of embed's formats, and without names of files."""
    from vggish_pt.audio.clip import Clip
    from vggish_pt.dataset import outputs as output
    from vggish_pt.dataset.engines.local import local_outcomes
    from vggish_pt.dataset.schema import output_schema
    from vggish_pt.dataset.writing import write_file, write_folder
    from vggish_pt.inference.settings import EmbedSettings

    items = [Clip(str(path), place) for place, path in enumerate(sorted((sounds / "b").iterdir()))]
    schema = output_schema(small_model, EmbedSettings(), folder=small_folder)
    found = {}
    for name in ("b.parquet", "folder", "b.npz", "b.npy", "bare.npy"):
        found[name] = path = sounds / "dumps" / name
        form = output.choose_format(path)
        outcomes = local_outcomes(small_model, items, EmbedSettings())
        if form is not None:
            with output.open_output(path, form, schema) as opened:
                write_file(outcomes, opened, [], lambda _: None)
        else:
            with output.open_run(output.open_store(str(path)), schema, output.Session(["b"])) as run:
                run.plan(items)
                write_folder(outcomes, run, lambda _: None)
    (sounds / "dumps" / "bare.npy.index.csv").unlink()
    (sounds / "dumps" / "bare.npy.json").unlink()
    return found


def test_audio_against_audio(run_cli: Cli, sounds: Path, small_folder: Path, expected: float) -> None:
    run = run_cli("fad", "a", "b/*.wav", "--weights", small_folder, cwd=sounds)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("FAD ")
    assert float(lines[0][4:]) == pytest.approx(expected, rel=1e-5)
    assert lines[1:3] == ["reference a: 30 windows of 12 files", "evaluation b/*.wav: 27 windows of 11 files"]
    assert lines[3].startswith("embeddings of 128 values, weights small (sha256 ")
    assert lines[3].endswith("hop 0.96, pad short, resampler soxr, postprocess None")
    warnings = run.stderr.splitlines()
    assert len(warnings) == 2
    assert "warning: reference a: 30 windows are fewer than 129 (128 dimensions + 1)" in warnings[0]
    assert "warning: evaluation b/*.wav: 27 windows are fewer" in warnings[1]


def test_json_with_everything(run_cli: Cli, sounds: Path, small_folder: Path, small_model: Any, tmp_path: Path) -> None:
    args = ("fad", sounds / "a", sounds / "b", "--weights", small_folder, "--json", "--quiet")
    run = run_cli(
        *args,
        "--hop",
        "0.05",
        "--postprocess",
        "pca",
        "--infinite",
        "--bootstrap",
        10,
        "--per-file",
        "s.csv",
        "--seed",
        3,
    )
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    settings = {"hop": 0.05, "postprocess": "pca"}
    a, b = ([r.values.numpy() for r in small_model.embed(sorted((sounds / n).iterdir()), **settings)] for n in "ab")
    assert report["fad"] == pytest.approx(frechet_distance(statistics_of(a), statistics_of(b)), rel=1e-4)
    assert report["evaluation"] == {"name": str(sounds / "b"), "windows": sum(map(len, b)), "files": 11}
    assert report["made_with"]["settings"]["postprocess"] == "pca"
    assert report["bootstrap"]["low"] < report["fad"] < report["bootstrap"]["high"]
    assert report["bootstrap"]["samples"] == 10
    assert report["infinite"]["seed"] == 3
    assert report["infinite"]["points"][-1] == pytest.approx([len(np.concatenate(b)), report["fad"]])
    assert (report["warnings"], report["failures"]) == ([], [])
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(path) for path in sorted((sounds / "b").iterdir())]
    assert [int(row["windows"]) for row in rows] == list(map(len, b))
    for row, values in zip(rows, b, strict=True):
        assert float(row["fad"]) == pytest.approx(frechet_distance(statistics_of(a), statistics_of(values)), rel=1e-4)

    run = run_cli(*args, "--per-file", "s.csv")
    assert run.returncode == 1
    assert run.stderr.startswith("vggish-pt: s.csv: exists already")


def test_statistics_are_made_once(
    run_cli: Cli, sounds: Path, small_folder: Path, expected: float, tmp_path: Path
) -> None:
    run = run_cli("fad", sounds / "a", "--weights", small_folder, "--save-statistics", "a.npz")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("reference ")
    assert Statistics.load(tmp_path / "a.npz").files == 12
    run = run_cli("fad", "a.npz", sounds / "b", "--weights", small_folder, "--json", "--quiet")
    assert json.loads(run.stdout)["fad"] == pytest.approx(expected, rel=1e-5)
    assert json.loads(run.stdout)["reference"] == {"name": "a.npz", "windows": 30, "files": 12}
    run = run_cli("fad", "a.npz", sounds / "b", "--weights", small_folder, "--hop", "0.5", "--pad", "tail")
    assert (run.returncode, run.stdout) == (2, "")
    assert (
        "have different settings: hop 0.96 and 0.5, pad short and tail; embed both with the same settings" in run.stderr
    )
    run = run_cli("fad", "a.npz", sounds / "b", "--weights", "synthetic")
    assert run.returncode == 2
    assert ": weights " in run.stderr
    assert run.stderr.count("\n") == 1
    run = run_cli("fad", sounds / "a", "a.npz", "--weights", small_folder, "--bootstrap", 10)
    assert run.returncode == 2
    assert (
        run.stderr == "vggish-pt: a.npz: bootstrap needs embeddings, not statistics; give the embeddings or the audio\n"
    )


@pytest.mark.parametrize("name", ["b.parquet", "folder", "b.npz", "b.npy", "bare.npy"])
def test_embeddings_of_every_format(
    sounds: Path, small_model: Any, dumps: dict[str, Path], expected: float, name: str
) -> None:
    path = str(dumps[name])
    assert is_dumped(path)
    sample = read_sample(path, keep=True)
    a = statistics_of(small_model.embed_iter(sorted((sounds / "a").iterdir())))
    assert frechet_distance(a, sample.statistics) == pytest.approx(expected, rel=1e-5)
    assert sample.statistics.windows == 27
    if name == "bare.npy":
        assert (sample.statistics.files, sample.paths, sample.statistics.metadata) == (0, [path], None)
    else:
        assert sample.statistics.files == 11
        assert sample.paths == [str(p) for p in sorted((sounds / "b").iterdir())]
        assert [len(values) for values in sample.values] == [2 + i % 2 for i in range(11)]
        assert sample.statistics.metadata is not None
        assert sample.statistics.metadata["weights"]["name"] == "small"
    np.testing.assert_array_equal(np.concatenate(sample.values), np.load(dumps["b.npy"]))
    assert read_sample(path).values == []


def test_embeddings_on_the_command_line(run_cli: Cli, dumps: dict[str, Path]) -> None:
    # No weights are asked for.
    args = ("--weights", "no such weights", "--json", "--quiet")
    run = run_cli("fad", dumps["b.parquet"], dumps["b.npz"], *args)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["fad"] < 1e-9
    run = run_cli("fad", dumps["folder"], dumps["bare.npy"], *args)
    assert json.loads(run.stdout)["evaluation"]["files"] == 0
    run = run_cli("fad", dumps["folder"], dumps["bare.npy"], *args, "--per-file", "s.csv")
    assert run.returncode == 2
    assert "per-file needs the names of the files" in run.stderr
    run = run_cli("fad", dumps["folder"], dumps["b.npy"], *args, "--infinite")
    assert run.returncode == 2
    assert "needs at least 258 in the evaluation set" in run.stderr


def test_some_files_fail(run_cli: Cli, sounds: Path, small_folder: Path, expected: float, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    for path in (sounds / "b").iterdir():
        (folder / path.name).hardlink_to(path)
    (folder / "bad.wav").write_bytes(b"RIFF or not")
    (folder / "empty.flac").write_bytes(b"")
    run = run_cli("fad", sounds / "a", "b", "--weights", small_folder, "--json", "--quiet")
    assert run.returncode == 3
    report = json.loads(run.stdout)
    assert report["fad"] == pytest.approx(expected, rel=1e-5)
    assert [failure["path"] for failure in report["failures"]] == [str(Path("b", n)) for n in ("bad.wav", "empty.flac")]
    lines = run.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"vggish-pt: {Path('b', 'bad.wav')}: ")
    assert lines[2] == "vggish-pt: 2 inputs failed and are left out"

    for path in folder.glob("??.wav"):
        path.unlink()
    run = run_cli("fad", sounds / "a", "b", "--weights", small_folder, "--quiet")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.splitlines()[-1] == "vggish-pt: b: none of its 2 files could be embedded"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("nothing", "{b}"), 1, "nothing: no such file"),
        (("{a}", "nothing/*.wav"), 1, "nothing/*.wav: matches no audio file"),
        (("nothing.npz", "{b}"), 1, "nothing.npz: no such file"),
        (("{a}",), 2, "EVALUATION is missing; see 'vggish-pt fad --help'"),
        (("{a}", "--infinite", "--save-statistics", "x.npz"), 2, "EVALUATION is missing, which --infinite needs"),
        (("{a}", "--save-statistics", "x.npy"), 2, "x.npy: statistics are saved as .npz"),
        (("{a}", "--save-statistics", "none/x.npz"), 1, "none/x.npz: cannot be written"),
        (("{a}", "{b}", "--postprocess", "uint8"), 2, "postprocess must be none or pca, not 'uint8'"),
        (("{a}", "{b}", "--hop", "0.123"), 2, "hop must be"),
        (("{a}", "{b}", "--pad", "all"), 2, "pad must be"),
        (("{a}", "{b}", "--resampler", "sinc"), 2, "resampler must be"),
        (("{a}", "{b}", "--device", "gpu"), 2, "device must be"),
        (("{a}", "{b}", "--bootstrap", "5"), 2, "'--bootstrap'"),
        (("{a}", "{a}/00.wav", "--pad", "drop", "--hop", "60"), 2, "FAD needs at least two windows, not 1; add audio"),
    ],
)
def test_wrong_usage_is_one_line(
    run_cli: Cli, sounds: Path, small_folder: Path, args: tuple[str, ...], code: int, message: str
) -> None:
    named = [arg.format(a=sounds / "a", b=sounds / "b") for arg in args]
    run = run_cli("fad", *named, "--weights", small_folder, "--quiet")
    assert (run.returncode, run.stdout) == (code, "")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


def test_help_is_quick_and_complete(run_cli: Cli) -> None:
    run = run_cli("fad", "--help")
    for option in (
        *("--weights", "--hop", "--pad", "--resampler", "--postprocess", "--infinite", "--per-file", "--bootstrap"),
        *("--seed", "--save-statistics", "--device", "--workers", "--json", "--overwrite", "--quiet"),
    ):
        assert option in run.stdout


def test_damaged_embeddings(dumps: dict[str, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("b.parquet", "b.npz", "b.npy"):
        data = dumps[name].read_bytes()
        path = tmp_path / name
        for position in [*rng.integers(0, len(data) - 1, 30), 0, len(data) // 2]:
            path.write_bytes(data[:position])
            with pytest.raises(AudioError, match=rf"{name}: ") as caught:
                read_sample(str(path))
            assert "\n" not in str(caught.value)
            changed = bytearray(data)
            changed[position] ^= 1 << rng.integers(8)
            path.write_bytes(changed)
            try:
                assert read_sample(str(path)).statistics.windows <= 27
            except AudioError as error:
                assert "\n" not in str(error)


def test_embeddings_that_are_none(dumps: dict[str, Path], tmp_path: Path) -> None:
    def fails(name: str, message: str) -> None:
        with pytest.raises(AudioError, match=message) as caught:
            read_sample(str(tmp_path / name))
        assert "\n" not in str(caught.value)

    values = np.load(dumps["b.npy"])
    values[3, 7] = np.nan
    np.save(tmp_path / "nan.npy", values)
    fails("nan.npy", r"nan\.npy: row 3 has NaN or infinite values")
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    fails("objects.npy", "Python objects")
    np.save(tmp_path / "flat.npy", np.zeros(128))
    fails("flat.npy", r"an array of shape \(128,\)")
    np.save(tmp_path / "wide.npy", np.zeros((2, 12288), np.float32))
    fails("wide.npy", "embeddings of 12288 values; FAD takes at most 4096, so no convolutional layer")
    np.save(tmp_path / "none.npy", np.zeros((0, 128)))
    fails("none.npy", "holds no embeddings")
    np.savez(tmp_path / "other.npz", x=np.zeros((4, 128)))
    fails("other.npz", "no array 'embedding'")
    (tmp_path / "huge.npy").write_bytes(
        b"\x93NUMPY\x01\x00\x50\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 128)}".ljust(80)
    )
    fails("huge.npy", "an array of 99999999999 rows that ends in row 0")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "x.parquet")
    fails("x.parquet", "no column 'embedding'")
    kind = pa.list_(pa.float32(), 2)
    pq.write_table(pa.table({"embedding": pa.array([[1, 2], None], kind)}), tmp_path / "null.parquet")
    fails("null.parquet", "rows without an embedding")


def test_a_folder_of_parts(dumps: dict[str, Path], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(dumps["b.parquet"])
    pq.write_table(table.slice(0, 6), tmp_path / "part-00000.parquet")  # cut in the middle of the third file
    pq.write_table(table.slice(6), tmp_path / "part-00001.parquet")
    sample = read_sample(str(tmp_path), keep=True)
    assert (sample.statistics.windows, sample.statistics.files) == (27, 11)
    assert [len(values) for values in sample.values] == [2 + i % 2 for i in range(11)]

    other = table.slice(6).replace_schema_metadata({"vggish_pt": json.dumps({"settings": {"hop": 0.5}})})
    pq.write_table(other, tmp_path / "part-00001.parquet")
    with pytest.raises(AudioError, match=r"part-00001\.parquet .*part-00000\.parquet .*hop"):
        read_sample(str(tmp_path))
    for text, message in (("[]", "not a JSON object"), ("{", "Expecting"), (" " * (2 << 20), "too long")):
        pq.write_table(table.replace_schema_metadata({"vggish_pt": text}), tmp_path / "part-00000.parquet")
        with pytest.raises(AudioError, match=message):
            read_sample(str(tmp_path))
