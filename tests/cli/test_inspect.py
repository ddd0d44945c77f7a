"""``vggish-pt inspect``, as a process on real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from vggish_pt.audio.clip import Clip
from vggish_pt.cli.inspect import _examine, _Options
from vggish_pt.errors import AudioError

Cli = Callable[..., Any]


def _clip(path: Path, seconds: float, rate: int = 16_000, channels: int = 1, **options: Any) -> None:
    values = np.random.default_rng(3).standard_normal((round(seconds * rate), channels)) * 0.1
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, **options)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    _clip(tmp_path / "t" / "a.wav", 2.5)
    _clip(tmp_path / "t" / "b.flac", 3.0, 44_100, 2)
    _clip(tmp_path / "t" / "c" / "d.ogg", 0.5, 22_050)
    (tmp_path / "t" / "e.mp3").write_bytes(b"")
    (tmp_path / "t" / "f.wav").write_bytes(b"no audio at all " * 99)
    (tmp_path / "t" / "notes.txt").write_text("x")
    return tmp_path / "t"


def test_text(run_cli: Cli, tree: Path) -> None:
    run = run_cli("inspect", "t", "missing.wav", "*.flac", cwd=tree.parent)
    assert run.returncode == 3
    assert run.stdout.replace(os.sep, "/").splitlines() == [
        "t/a.wav: 2.500 s, 16000 Hz, 1 channel, WAV PCM_16; 2 windows; leave out 0.565 s at the end",
        "t/b.flac: 3.000 s, 44100 Hz, 2 channels, FLAC PCM_16; 3 windows; "
        "average 2 channels, resample to 16000 Hz, leave out 0.105 s at the end",
        "t/c/d.ogg: 0.500 s, 22050 Hz, 1 channel, OGG VORBIS; 1 window; "
        "resample to 16000 Hz, pad with 0.475 s of silence",
    ]
    lines = run.stderr.replace(os.sep, "/").splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["vggish-pt", "*.flac"],
        ["vggish-pt", "t/e.mp3"],
        ["vggish-pt", "t/f.wav"],
        ["vggish-pt", "missing.wav"],
    ]


def test_json(run_cli: Cli, tree: Path) -> None:
    name = "größe\n音.wav" if os.name == "posix" else "größe 音.wav"
    (tree / "a.wav").rename(tree / name)
    run = run_cli("inspect", "--json", "--pad", "drop", "--hop", "0.5", str(tree / "c"), str(tree / name))
    assert (run.returncode, run.stderr) == (0, "")
    short, long = (json.loads(line) for line in run.stdout.splitlines())
    assert short == {
        "path": str(tree / "c" / "d.ogg"),
        "duration": 0.5,
        "sample_rate": 22_050,
        "channels": 1,
        "container": "OGG",
        "encoding": "VORBIS",
        "windows": 0,
        "padded": 0.0,
        "left_out": 0.5,
    }
    assert (long["path"], long["windows"], long["left_out"]) == (str(tree / name), 4, pytest.approx(0.025))


def test_failures_only(run_cli: Cli, tree: Path) -> None:
    run = run_cli("inspect", tree / "e.mp3")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"vggish-pt: {tree / 'e.mp3'}: the file is empty (0 bytes)\n"


def test_a_truncated_file(run_cli: Cli, tree: Path) -> None:
    data = (tree / "a.wav").read_bytes()
    (tree / "cut.wav").write_bytes(data[: len(data) // 2])
    refused, allowed = run_cli("inspect", tree / "cut.wav"), run_cli("inspect", tree / "cut.wav", "--allow-truncated")
    assert (refused.returncode, allowed.returncode) == (1, 0)
    assert "truncated" in refused.stderr
    assert allowed.stderr.startswith(f"vggish-pt: warning: {tree / 'cut.wav'}: the file is truncated")
    assert allowed.stderr.count("\n") == 1
    assert "1.2" in allowed.stdout


def test_torch_is_not_imported(tree: Path) -> None:
    code = (
        f"import sys; sys.argv = ['vggish-pt', 'inspect', {str(tree / 'b.flac')!r}]\n"
        "from vggish_pt.cli import main\n"
        "try: main()\n"
        "except SystemExit: print('torch' in sys.modules, 'pyarrow' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.splitlines()[-1] == "False False"


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_reader_that_goes_away(tree: Path) -> None:
    for i in range(200):
        (tree / f"copy{i}.wav").hardlink_to(tree / "a.wav")
    code = "import sys; sys.argv[0] = 'vggish-pt'; from vggish_pt.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "inspect", str(tree)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_windows_are_those_of_embed(small_model: Any, tmp_path: Path) -> None:
    for rate, frames in (
        *((16_000, n) for n in (1, 15_599, 15_600, 15_601, 30_960, 30_959)),
        *((44_100, n) for n in (1, 42_998, 43_000, 85_333)),
        *((8_000, n) for n in (7_800, 7_799)),
    ):
        path = tmp_path / "x.wav"
        _clip(path, frames / rate, rate)
        for hop, pad in ((0.96, "short"), (0.25, "tail"), (2.0, "drop")):
            report = _examine(Clip(str(path)), hop, pad, _Options())  # type: ignore[arg-type]
            assert report.windows == len(small_model.embed(path, hop=hop, pad=pad)), (rate, frames, hop, pad)


def test_all_kinds_of_inputs(run_cli: Cli, tree: Path) -> None:
    (tree / "m.csv").write_text("path,start,end\na.wav,0.5,2\nb.flac,9,\na.wav,3,1\n")
    subprocess.run(["tar", "-cf", "s.tar", "a.wav"], cwd=tree, check=True)
    run = run_cli("inspect", "t/m.csv", "t/s.tar", "-", "--json", cwd=tree.parent, input="t/a.wav\n")
    assert run.returncode == 3
    reports = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(r["path"], r["duration"], r["segment_start"], r["segment_end"]) for r in reports] == [
        ("a.wav", 1.5, 0.5, 2.0),
        ("t/s.tar::a.wav", 2.5, None, None),
        ("t/a.wav", 2.5, None, None),
    ]
    assert run.stderr.splitlines() == [
        "vggish-pt: t/m.csv:4: a.wav: end 1 is not after start 3",
        "vggish-pt: b.flac: the part begins at 9 s, after the end of the audio at 3.000 s",
    ]
    run = run_cli("inspect", "t/notes.csv", "t/s.parquet", cwd=tree.parent)
    assert run.returncode == 1
    (tree / "n.csv").write_text("file\na.wav\n")
    run = run_cli("inspect", "t/n.csv", cwd=tree.parent)
    assert run.returncode == 2
    assert run.stderr.startswith("vggish-pt: t/n.csv: no manifest: it needs a column 'path', and has 'file'")


def test_check_compares_with_a_second_decoder(run_cli: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_cli("inspect", tree / "b.flac", tree / "c" / "d.ogg", "--check")
    assert done.returncode == 0 and done.stdout.count("; second decoder: ") == 2
    assert "second decoder: 3.000 s" in done.stdout.splitlines()[0]
    monkeypatch.setattr("vggish_pt.audio.second.second_duration", lambda path, name: 2.5)
    with pytest.raises(AudioError, match=r"b\.flac: 3\.000 s, but a second decoder gives 2\.500 s"):
        _examine(Clip(str(tree / "b.flac")), 0.96, "short", _Options(check=True))


def test_files_without_a_header_need_a_word(run_cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "sound.raw"
    path.write_bytes(np.zeros((16_000, 2), "<i2").tobytes())
    assert "not audio" in run_cli("inspect", path).stderr
    done = run_cli("inspect", path, "--raw", "s16le:16000:2")
    assert done.returncode == 0 and "1.000 s, 16000 Hz, 2 channels, RAW PCM_16" in done.stdout
    wrong = run_cli("inspect", path, "--raw", "s17")
    assert wrong.returncode == 2 and "raw must be ENCODING" in wrong.stderr
