"""``vggish-pt embed`` into a folder, as a process that is stopped and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import REPOSITORY

Cli = Callable[..., Any]
posix = pytest.mark.skipif(os.name != "posix", reason="signals, file systems")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for i in range(6):
        values = np.random.default_rng(i).standard_normal(16_000 * (i + 1)) * 0.1
        soundfile.write(folder / f"{i}.wav", values, 16_000)
    (folder / "bad.wav").write_bytes(b"no sound")
    return folder


def _rows(folder: Path) -> list[tuple[str, int, list[float]]]:
    tables = [pq.read_table(part).to_pylist() for part in sorted(folder.glob("part-*.parquet"))]
    return sorted((row["path"], row["window"], row["embedding"]) for table in tables for row in table)


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "_run.json").read_text())
    return record


def _start(folder: Path, *args: object) -> subprocess.Popen[str]:
    code = "import sys; sys.argv[0] = 'vggish-pt'; from vggish_pt.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def test_the_same_command_again(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    args = ("embed", "clips", "none*.wav", "--weights", small_folder, "--out", "x")
    out = clips.parent / "x"
    run = run_cli(*args)
    assert run.returncode == 3
    lines = run.stderr.splitlines()
    assert lines[-1] == "vggish-pt: 2 failed; x/_errors.parquet names each with its reason"
    assert lines[-2].startswith("6 files, 21 windows → x (")
    first = _rows(out)
    assert len(first) == 21
    assert _record(out)["counts"]["inputs"] == 8

    run = run_cli(*args)
    assert run.returncode == 3
    assert run.stderr.splitlines() == [
        "vggish-pt: none*.wav: matches no audio file",
        "vggish-pt: clips/bad.wav: not audio in a format that can be read (Format not recognised)",
        "1 failed in earlier runs; --retry-errors embeds them again",
        "nothing left to do: x holds 6 files, 21 windows",
        "vggish-pt: 2 failed; x/_errors.parquet names each with its reason",
    ]
    (clips / "bad.wav").write_bytes((clips / "0.wav").read_bytes())
    (clips / "new.wav").write_bytes((clips / "1.wav").read_bytes())
    run = run_cli(*args)
    assert run.returncode == 3
    assert "resuming: 7 of 8 files are done, 0.01 h of audio" in run.stderr.splitlines()
    assert len(_rows(out)) == 23
    run = run_cli(*args[:2], *args[3:], "--retry-errors")
    assert (run.returncode, len(run.stderr.splitlines())) == (0, 2)
    assert len(_rows(out)) == 24
    assert pq.read_metadata(out / "_errors.parquet").num_rows == 0
    assert len(_record(out)["timing"]["sessions"]) == 3  # without the one that had nothing to do

    run = run_cli(*args, "--hop", "0.48", "--precision", "bf16")
    assert (run.returncode, run.stderr.splitlines()[1:]) == (
        2,
        [
            "vggish-pt: x: was written with different settings: hop: 0.96 in the folder, 0.48 now; precision: fp32 in "
            "the folder, bf16 now; use the same settings, choose another output, or start again (--overwrite)"
        ],
    )
    assert run_cli(*args, "--hop", "0.48", "--overwrite", "--quiet").returncode == 3
    assert len(_rows(out)) == 40


def test_a_manifest_s_columns(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    (clips / "manifest.csv").write_text(
        "path,start,end,label,fold\n0.wav,,,dog,1\n5.wav,2,4.5,cat,2\nbad.wav,1,2,x,3\n"
    )
    args = ("embed", "clips/manifest.csv", "--weights", small_folder, "--out")
    assert run_cli(*args, "x").returncode == 3
    table = pq.read_table(clips.parent / "x" / "part-00000.parquet")
    assert table.schema.names[5:] == ["label", "fold", "segment_start", "segment_end"]
    assert table["label"].to_pylist() == ["dog", "cat", "cat"]
    assert table["fold"].to_pylist() == ["1", "2", "2"]
    assert table["start"].to_pylist() == [0.0, 2.0, 2.96]
    assert table["segment_end"].to_pylist() == [None, 4.5, 4.5]
    errors = pq.read_table(clips.parent / "x" / "_errors.parquet").to_pylist()
    assert [(row["segment_start"], row["segment_end"]) for row in errors] == [(1.0, 2.0)]
    run = run_cli(*args, "x.tfrecord")
    assert run.returncode == 2
    assert "add --postprocess uint8, without --pool mean" in run.stderr
    assert run_cli(*args, "x.tfrecord", "--postprocess", "uint8").returncode == 3
    (clips / "manifest.csv").write_text("path,labels\n0.wav,dog\n")
    run = run_cli(*args, "y.tfrecord", "--postprocess", "uint8")
    assert run.returncode == 2
    assert "labels in TFRecord files are whole numbers, as AudioSet numbers its classes, not 'dog'" in run.stderr


def test_a_column_of_lists(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    (clips / "m.jsonl").write_text('{"path": "0.wav", "tags": ["a", "b"]}\n{"path": "5.wav", "tags": []}\n')
    args = ("embed", "clips/m.jsonl", "--weights", small_folder, "--out", "x")
    assert run_cli(*args).returncode == 0
    run = run_cli(*args)
    assert (run.returncode, run.stderr) == (0, "nothing left to do: x holds 2 files, 7 windows\n")
    assert pq.read_table(clips.parent / "x")["tags"].to_pylist()[:2] == [["a", "b"], []]


def test_when_everything_fails(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    run = run_cli("embed", "clips/bad.wav", "nothing.wav", "--weights", small_folder, "--out", "x")
    assert run.returncode == 1
    out = clips.parent / "x"
    assert sorted(f.name for f in out.iterdir()) == [".vggish-pt.lock", "_errors.parquet", "_run.json"]
    assert pq.read_metadata(out / "_errors.parquet").num_rows == 2


def test_an_output_inside_an_input(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    args = ("embed", "clips", "--weights", small_folder, "--out", "clips/out", "--quiet")
    for _ in range(2):
        assert run_cli(*args).returncode == 3
        assert len(_rows(clips / "out")) == 21


@pytest.mark.slow
def test_a_run_that_is_killed_gives_what_an_undisturbed_one_does(small_folder: Path) -> None:
    script = REPOSITORY / "benchmarks" / "resume.py"
    options = ["--clips", 120, "--broken", 10, "--kills", 4, "--checkpoint", 0.1, "--no-machine"]
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        [sys.executable, str(script), "--weights", str(small_folder), *map(str, options)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert result.stdout.count("| yes |") == 9


@posix
def test_a_polite_signal_keeps_what_was_done_and_a_second_run_is_refused(
    run_cli: Cli, clips: Path, small_folder: Path
) -> None:
    soundfile.write(clips / "long.wav", np.random.default_rng(0).standard_normal(16_000 * 600) * 0.1, 16_000)
    for i in range(30):
        (clips / f"long {i}.wav").hardlink_to(clips / "long.wav")
    args = ("embed", "clips", "--weights", small_folder, "--out", "x")
    out = clips.parent / "x"
    with _start(clips.parent, *args, "--checkpoint", "0.001") as process:
        while process.poll() is None and not list(out.glob("part-*")):
            time.sleep(0.02)
        second = run_cli(*args)
        assert second.returncode == 1
        assert "x: another run is writing there; wait until it ends, or choose another output" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        process.stderr.read()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert _record(out)["state"] == "running"
    done = {path for path, _, _ in _rows(out)}
    assert 1 <= len(done) < 37
    for path in [*clips.glob("long*")][1:]:
        path.unlink()
    run = run_cli(*args)
    assert run.returncode == 3
    assert done <= {path for path, _, _ in _rows(out)}
    assert re.search(r"resuming: \d+ of \d+ files are done", run.stderr)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="a small file system in memory")
def test_a_full_disk(run_cli: Cli, clips: Path, small_folder: Path, small_disk: Path) -> None:
    long = np.random.default_rng(0).standard_normal(16_000 * 60) * 0.1
    for i in range(12):
        soundfile.write(clips / f"long {i:02d}.wav", long * (1 - i / 20), 16_000, subtype="FLOAT")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300 * 1024))
    args = ("embed", "clips", "--weights", small_folder, "--out", small_disk / "x", "--hop", "0.32")
    args = (*args, "--checkpoint", "0.001", "--quiet")
    run = run_cli(*args)
    assert run.returncode == 1
    message = rf"^vggish-pt: {small_disk}/x/[a-z0-9_.-]*: cannot be written \(No space left on device\)$"
    assert re.search(message, run.stderr.splitlines()[-1])
    names = {path.name for path in (small_disk / "x").iterdir()}
    assert not [name for name in names if name.endswith(".tmp")]
    before = _rows(small_disk / "x")
    assert 0 < len(before) < 12 * 186

    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert run_cli(*args).returncode == 3
    after = _rows(small_disk / "x")
    assert len({path for path, _, _ in after}) == 18
    assert len({(path, window) for path, window, _ in after}) == len(after)
    assert [row for row in after if row[:2] in {r[:2] for r in before}] == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody may write to")
def test_a_folder_that_cannot_be_made(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    run = run_cli("embed", "clips", "--weights", small_folder, "--out", "/proc/self/x", "--quiet")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("vggish-pt: /proc/self/x: cannot be written")


@posix
def test_two_runs_into_one_file(run_cli: Cli, clips: Path, small_folder: Path) -> None:
    soundfile.write(clips / "long.wav", np.zeros(16_000 * 120), 16_000)
    args = ("embed", "clips", "--weights", small_folder, "--out", "x.parquet")
    first = _start(clips.parent, *args)
    while not list(clips.parent.glob(".vggish-pt-*.lock")):
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    second = run_cli(*args, "--overwrite")
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert second.stderr.endswith(
        "x.parquet: another run is writing it; wait until it ends, or choose another output\n"
    )
    _, told = first.communicate(timeout=120)
    assert first.returncode == 3, told
    assert len(set(pq.read_table(clips.parent / "x.parquet")["path"].to_pylist())) == 7
    assert not list(clips.parent.glob(".vggish-pt-*"))
