"""``vggish-pt embed``, as a process on real files."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from vggish_pt.pretrained.folder import weights_digest
from vggish_pt.version import __version__

Cli = Callable[..., Any]
posix = pytest.mark.skipif(os.name != "posix", reason="signals, terminals, file names of any bytes")


def _clip(path: Path | bytes, seconds: float, rate: int = 16_000, channels: int = 1, **options: Any) -> None:
    values = np.random.default_rng(int(seconds * 1000)).standard_normal((round(seconds * rate), channels)) * 0.1
    with open(path, "wb") as file:
        soundfile.write(file, values, rate, **options)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    (folder / "sub").mkdir(parents=True)
    _clip(folder / "a.wav", 2.5, format="WAV")
    _clip(folder / "b.flac", 3.0, 44_100, 2, format="FLAC")
    _clip(folder / "sub" / "c.ogg", 1.2, 22_050, format="OGG")
    _clip(folder / "short.wav", 0.3, 8_000, format="WAV")
    return folder


def _failed(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "reason", "type"]
    return rows


def _left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def test_every_input_ends_in_the_output_or_the_list_of_failures(
    run_cli: Cli, clips: Path, small_folder: Path, small_model: Any
) -> None:
    top = clips.parent
    good = ["a.wav", "b.flac", "sub/c.ogg", "short.wav", "-dash.wav", "sp  ace.wav"]
    bad = ["bad.wav", "empty.mp3"]
    if os.name == "posix":
        good += ["new\nline.wav", os.fsdecode(b"\xff.wav")] if sys.platform == "linux" else ["new\nline.wav"]
        bad += ["broken\nlink.wav"]
        (clips / "broken\nlink.wav").symlink_to("nowhere")
        (clips / "sub" / "loop").symlink_to("..", target_is_directory=True)
    for name in good[4:]:
        _clip(os.fsencode(clips / name), 1.0 + len(name) / 100, format="WAV")
    (clips / "bad.wav").write_bytes(b"RIFF or not " * 99)
    (clips / "empty.mp3").write_bytes(b"")
    (clips / "notes.txt").write_text("no audio")
    (clips / ".hidden.wav").write_text("no audio")

    named = ["clips", "clips/a.wav", "missing.wav", "*.flac", "clips/**/*.ogg", "--", "-nofile.wav"]
    run = run_cli("embed", "--weights", small_folder, "--out", "clips/made/x.parquet", *named, cwd=top)
    assert run.returncode == 3, run.stderr
    assert run.stdout == ""

    table = pq.read_table(clips / "made" / "x.parquet")
    expected = {}
    for name in good:
        path = os.path.join("clips", *name.split("/"))
        expected[path.replace("\udcff", "\\xff")] = small_model.embed(clips / name)
    assert set(table["path"].to_pylist()) == set(expected)
    for path, result in expected.items():
        rows = table.filter(np.array(table["path"].to_pylist()) == path)
        assert rows["window"].to_pylist() == list(range(len(result)))
        np.testing.assert_array_equal(rows["start"].to_numpy(), result.start.numpy())
        np.testing.assert_array_equal(rows["end"].to_numpy(), result.end.numpy())
        np.testing.assert_allclose(np.stack(rows["embedding"].to_numpy()), result.values.numpy(), atol=1e-5)

    failed = _failed(clips / "made" / "x.parquet.errors.csv")
    paths = [*(os.path.join("clips", name) for name in bad), "missing.wav", "*.flac", "-nofile.wav"]
    assert sorted(row[0] for row in failed) == sorted(paths)
    assert {row[2] for row in failed} == {"AudioError"}
    assert ["missing.wav", "no such file", "AudioError"] in failed
    lines = run.stderr.splitlines()
    for path, reason, _ in failed:
        assert lines.count(f"vggish-pt: {path}: {reason}".replace("\n", "\\n")) == 1
    assert "1 files skipped, because their endings are not those of audio" in lines
    assert "2 inputs named more than once; each is processed once" in lines
    assert lines[-1].startswith(f"vggish-pt: {len(failed)} failed; clips")
    assert f"{len(good)} files, {table.num_rows} windows" in lines[-2]
    assert sorted(path.name for path in (clips / "made").iterdir()) == ["x.parquet", "x.parquet.errors.csv"]

    assert json.loads(table.schema.metadata[b"vggish_pt"]) == {
        "version": __version__,
        "weights": {
            "name": "small",
            "license": "Apache-2.0",
            "sha256": weights_digest(small_folder),
            "final_relu": False,
        },
        "settings": {
            "hop": 0.96,
            "pad": "short",
            "layer": "embedding",
            "postprocess": None,
            "resampler": "soxr",
            "allow_truncated": False,
            "pool": "none",
            "precision": "fp32",
        },
        "shape": [128],
    }


def test_settings_are_those_of_python(run_cli: Cli, clips: Path, small_folder: Path, small_model: Any) -> None:
    files = [clips / "a.wav", clips / "b.flac", clips / "sub" / "c.ogg", clips / "short.wav"]
    start = ("embed", *files, "--weights", small_folder, "--quiet")

    run = run_cli(
        *start,
        "--out",
        "x",
        *["--hop", "0.5", "--pad", "tail", "--pool", "mean", "--workers", "0", "--batch-size", "1"],
    )
    assert (run.returncode, run.stderr) == (0, "")
    table = pq.read_table(clips.parent / "x" / "part-00000.parquet")
    for i, result in enumerate(small_model.embed(files, hop=0.5, pad="tail")):
        row = table.slice(i, 1).to_pylist()[0]
        assert (row["path"], row["window"], row["start"], row["end"]) == (str(files[i]), 0, 0.0, float(result.end[-1]))
        np.testing.assert_allclose(row["embedding"], result.values.numpy().mean(axis=0), atol=1e-5)
    assert table.num_rows == len(files)

    run = run_cli(
        *start, "--out", "x.npz", *["--postprocess", "uint8", "--workers", "4", "--batch-size", "3", "--device", "cpu"]
    )
    assert (run.returncode, run.stderr) == (0, "")
    with np.load(clips.parent / "x.npz", allow_pickle=False) as archive:
        expected = np.concatenate([r.values for r in small_model.embed(files, postprocess="uint8")])
        assert archive["embedding"].dtype == np.uint8
        # Other batches may move a value across a step of the quantisation, by one.
        difference = np.abs(archive["embedding"].astype(int) - expected)
        assert difference.max() <= 1
        assert (difference == 0).mean() > 0.99
        assert json.loads(str(archive["metadata"]))["settings"]["postprocess"] == "uint8"

    run = run_cli(
        *start, "--out", "y", *["--format", "npy", "--layer", "fc2", "--precision", "bf16", "--resampler", "soxr"]
    )
    assert (run.returncode, run.stderr) == (0, "")
    expected = np.concatenate([r.values for r in small_model.embed(files, layer="fc2")])
    values = np.load(clips.parent / "y", allow_pickle=False)
    assert values.shape == expected.shape == (7, 16)
    assert not np.array_equal(values, expected)
    np.testing.assert_allclose(values, expected, atol=0.03 * np.abs(expected).max())


def test_running_again(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    data = (clips / "a.wav").read_bytes()
    (clips / "cut.wav").write_bytes(data[: len(data) // 2])
    args = ("embed", "clips", "--weights", small_folder, "--out", "x.parquet")
    out, errors = clips.parent / "x.parquet", clips.parent / "x.parquet.errors.csv"

    assert run_cli(*args).returncode == 3
    first = out.read_bytes()
    assert [row[0] for row in _failed(errors)] == [str(Path("clips/cut.wav"))]

    run = run_cli(*args)
    assert run.returncode == 1
    assert run.stderr.startswith("vggish-pt: x.parquet: exists already; ")
    assert run.stderr.count("\n") == 1
    assert out.read_bytes() == first

    # Nothing could be embedded: the old output stays, the new list of failures tells.
    (clips / "short").mkdir()
    (clips / "short.wav").rename(clips / "short" / "short.wav")
    run = run_cli(*args[:1], "clips/short", *args[2:], "--overwrite", "--pad", "drop")
    assert run.returncode == 1
    assert out.read_bytes() == first
    reason = "0.300 s are shorter than a window of 0.975 s, and pad='drop' pads nothing"
    assert _failed(errors) == [[str(Path("clips/short/short.wav")), reason, "AudioError"]]

    run = run_cli(*args, "--overwrite", "--allow-truncated")
    assert run.returncode == 0
    warned = [line for line in run.stderr.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert warned[0].startswith(f"vggish-pt: warning: {Path('clips/cut.wav')}: the file is truncated")
    assert set(pq.read_table(out)["path"].to_pylist()) > {str(Path("clips/cut.wav"))}
    assert not errors.exists()

    run = run_cli(*args, "--overwrite", "--allow-truncated", "--quiet")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert _left_over(clips.parent) == []


def test_no_input_leads_to_a_file(run_cli: Cli, clips: Path) -> None:
    # Without weights: they are not asked for.
    run = run_cli("embed", "none*.wav", "clips/nothing/**", "--out", "new/x", "--weights", "no such weights")
    assert run.returncode == 1
    errors = pq.read_table(clips.parent / "new" / "x" / "_errors.parquet").to_pylist()
    assert [tuple(row.values()) for row in errors] == [
        ("none*.wav", "matches no audio file", "AudioError"),
        ("clips/nothing/**", "matches no audio file", "AudioError"),
    ]


def test_a_device_that_is_not_there(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    run = run_cli("embed", "clips", "--weights", small_folder, "--out", "x", "--device", "cuda:99")
    assert run.returncode == 2
    assert run.stderr.startswith("vggish-pt: there is no device 'cuda:99' here")
    assert run.stderr.count("\n") == 1
    assert not (clips.parent / "x").exists()


@posix
def test_a_disk_that_fills_up(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    import resource

    _clip(clips / "long.wav", 60, format="WAV")
    (clips.parent / "x.parquet").write_bytes(b"the old one")
    run = run_cli(
        *("embed", "clips", "--weights", small_folder, "--out", "x.parquet", "--overwrite", "--quiet"),
        *("--workers", 2),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)),
    )
    assert run.returncode == 1
    assert run.stderr == "vggish-pt: x.parquet: cannot be written (File too large)\n"
    assert (clips.parent / "x.parquet").read_bytes() == b"the old one"
    assert sorted(path.name for path in clips.parent.iterdir()) == ["clips", "x.parquet"]


def _start(folder: Path, *args: object, **options: Any) -> subprocess.Popen[bytes]:
    code = "import sys; sys.argv[0] = 'vggish-pt'; from vggish_pt.cli import main; main()"
    repository = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([repository, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], cwd=folder, env=environment, **options)


def _long_clips(clips: Path) -> None:
    _clip(clips / "0 long.wav", 600, format="WAV")
    for i in range(20):
        (clips / f"0 long {i}.wav").hardlink_to(clips / "0 long.wav")


@posix
def test_a_signal_half_way(clips: Path, small_folder: Path) -> None:
    _long_clips(clips)
    args = ("embed", "clips", "--weights", small_folder, "--out", "x.parquet", "--workers", "2")
    with _start(clips.parent, *args, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not _left_over(clips.parent):
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) == 128 + signal.SIGINT
    assert [path.name for path in clips.parent.iterdir()] == ["clips"]


@posix
def test_a_bar_on_a_terminal(clips: Path, small_folder: Path) -> None:
    import pty

    (clips / "bad\n.wav").write_bytes(b"no audio")
    ours, theirs = pty.openpty()
    args = ("embed", "clips", "--weights", small_folder, "--out", "x.npy")
    with _start(clips.parent, *args, stderr=theirs, stdin=theirs) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # Linux's way to say that the other side has closed
                break
            if not chunk:
                break
            seen += chunk
        assert process.wait(60) == 3
    os.close(ours)
    text = seen.decode()
    assert "/5" in text  # files done, of all
    assert "\x1b[" in text  # a bar that is drawn over itself
    lines = text.splitlines()
    assert sum("clips/bad\\n.wav: not audio" in line for line in lines) == 1
    assert any("4 files, 7 windows → x.npy" in line for line in lines)
