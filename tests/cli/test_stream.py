"""``vggish-pt stream`` as a process at the end of a pipe."""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from conftest import REPOSITORY, RunCli

from vggish_pt import VGGish

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and pipes")

SAMPLES = (np.random.default_rng(5).standard_normal(16_000 * 3) * 3000).astype("<i2")
RAW = ("--sample-rate", "16000")


def lines(text: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def assert_equal(found: list[dict[str, Any]], expected: Any, tolerance: float = 5e-5) -> None:
    assert [line["window"] for line in found] == list(range(len(expected)))
    np.testing.assert_allclose([line["start"] for line in found], expected.start, rtol=0, atol=1e-12)
    np.testing.assert_allclose([line["end"] for line in found], expected.end, rtol=0, atol=1e-12)
    np.testing.assert_allclose([line["embedding"] for line in found], expected.values, rtol=0, atol=tolerance)


class Live:
    """The command, running, with pipes at both ends."""

    def __init__(self, *args: object, env: dict[str, str] | None = None) -> None:
        code = "import sys; sys.argv[0] = 'vggish-pt'; from vggish_pt.cli import main; main()"
        paths = [*filter(None, [(env or {}).get("PYTHONPATH")]), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "stream", *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            bufsize=0,
        )

    def feed(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def wait_until_read(self) -> None:
        """Waits until the command has taken everything that it was fed."""
        import fcntl
        import termios

        assert self.process.stdin is not None
        unread = 1
        while unread and self.process.poll() is None:
            time.sleep(0.05)
            answer = fcntl.ioctl(self.process.stdin.fileno(), termios.FIONREAD, bytes(4))
            unread = int.from_bytes(answer, sys.byteorder)

    def line(self) -> dict[str, Any]:
        """The next line, while the input is still open."""
        assert self.process.stdout is not None
        data = b""
        while not data.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], 120)[0], "no line came"
            byte = os.read(self.process.stdout.fileno(), 1)
            assert byte, self.process.communicate()[1].decode()
            data += byte
        result: dict[str, Any] = json.loads(data)
        return result

    def finish(self) -> tuple[int, list[dict[str, Any]], str]:
        """Closes the input; exit code, the remaining lines, standard error."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, lines(out), err.decode()


@pytest.fixture
def live(small_folder: Path) -> Iterator[Any]:
    started: list[Live] = []

    def start(*args: object, **options: Any) -> Live:
        started.append(Live("--weights", small_folder, "--device", "cpu", *args, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        for pipe in (one.process.stdin, one.process.stdout, one.process.stderr):
            assert pipe is not None
            pipe.close()


@posix
def test_lines_come_while_the_sound_still_arrives(live: Any, small_model: VGGish) -> None:
    expected = small_model.embed(SAMPLES, sample_rate=16_000, pad="tail")
    command = live(*RAW, "--pad", "tail")
    data = SAMPLES.tobytes()
    command.feed(data[:31_200])
    found = [command.line()]
    for start in range(31_200, 31_200 + 30_720, 1_001):  # odd, so that samples are torn apart
        command.feed(data[start : min(start + 1_001, 31_200 + 30_720)])
    found.append(command.line())
    command.feed(data[31_200 + 30_720 :])
    code, rest, err = command.finish()
    assert (code, err) == (0, "")
    assert_equal(found + rest, expected)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_wav(run_cli: RunCli, small_folder: Path, small_model: VGGish, tmp_path: Path, subtype: str) -> None:
    stereo = np.stack([SAMPLES, SAMPLES[::-1]], axis=1) / 32768
    sf.write(tmp_path / "a.wav", stereo, 44_100, subtype=subtype)
    expected = small_model.embed(tmp_path / "a.wav", hop=0.5)
    with (tmp_path / "a.wav").open("rb") as file:
        result = run_cli("stream", "--weights", small_folder, "--hop", "0.5", stdin=file)
    assert (result.returncode, result.stderr) == (0, "")
    assert_equal(lines(result.stdout), expected, 2e-4)


@posix
@pytest.mark.parametrize("length", [0, 0x7FFF_F000, 0xFFFF_FFFF])
def test_wav_of_unknown_length(live: Any, small_model: VGGish, length: int) -> None:
    header = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    command = live()
    for byte in header:
        command.feed(bytes([byte]))
    command.feed(b"data" + struct.pack("<I", length) + SAMPLES[:20_000].tobytes())
    first = command.line()
    command.feed(SAMPLES[20_000:].tobytes())
    code, rest, err = command.finish()
    assert (code, err) == (0, "")
    assert_equal([first, *rest], small_model.embed(SAMPLES, sample_rate=16_000))


def stream_bytes(run_cli: RunCli, folder: Path, tmp_path: Path, data: bytes, *args: object) -> Any:
    (tmp_path / "input").write_bytes(data)
    with (tmp_path / "input").open("rb") as file:
        return run_cli("stream", "--weights", folder, *args, stdin=file)


def test_ends_within_a_sample(run_cli: RunCli, small_folder: Path, small_model: VGGish, tmp_path: Path) -> None:
    result = stream_bytes(run_cli, small_folder, tmp_path, SAMPLES.tobytes() + b"\0", *RAW)
    assert result.returncode == 0
    assert (
        result.stderr == "vggish-pt: warning: standard input: the last 1 bytes are no whole sample and were left out\n"
    )
    assert_equal(lines(result.stdout), small_model.embed(SAMPLES, sample_rate=16_000))


def test_truncated_wav(run_cli: RunCli, small_folder: Path, tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", SAMPLES, 16_000)
    data = (tmp_path / "a.wav").read_bytes()
    result = stream_bytes(run_cli, small_folder, tmp_path, data[:-1000])
    assert (result.returncode, len(lines(result.stdout))) == (0, 3)
    assert "the audio ends 1000 bytes before the length in its header" in result.stderr


def test_settings_of_embed(run_cli: RunCli, small_folder: Path, small_model: VGGish, tmp_path: Path) -> None:
    for settings in ({"layer": "fc1"}, {"postprocess": "uint8"}, {"resampler": "soxr", "hop": 1.5, "pad": "drop"}):
        options = [word for key, value in settings.items() for word in (f"--{key}", value)]
        result = stream_bytes(run_cli, small_folder, tmp_path, SAMPLES.tobytes(), *RAW, *options)
        assert result.returncode == 0, result.stderr
        expected = small_model.embed(SAMPLES, sample_rate=16_000, **settings)
        assert_equal(lines(result.stdout), expected, 1 if settings.get("postprocess") else 5e-5)


def test_a_short_sound(run_cli: RunCli, small_folder: Path, tmp_path: Path) -> None:
    for pad, count in (("short", 1), ("drop", 0), ("tail", 1)):
        result = stream_bytes(run_cli, small_folder, tmp_path, SAMPLES[:99].tobytes(), *RAW, "--pad", pad)
        assert (result.returncode, len(lines(result.stdout)), result.stderr) == (0, count, "")


@posix
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_what_was_read(live: Any, small_model: VGGish, number: int, code: int) -> None:
    command = live(*RAW, "--pad", "tail")
    command.feed(SAMPLES[:16_000].tobytes())
    first = command.line()
    time.sleep(0.2)  # it waits for sound again, whose pipe stays open
    command.process.send_signal(number)
    found = [first, *lines(command.process.stdout.read())]
    assert command.process.wait(120) == code
    assert command.process.stderr.read() == b""
    assert_equal(found, small_model.embed(SAMPLES[:16_000], sample_rate=16_000, pad="tail"))


@posix
def test_signal_before_any_sound(live: Any) -> None:
    command = live()
    command.feed(b"RIFF")
    command.wait_until_read()  # before, the interpreter may not have come to the command yet
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(120) == 130
    assert b"Traceback" not in command.process.stderr.read()


@posix
def test_a_reader_that_has_enough(live: Any) -> None:
    command = live(*RAW, "--hop", "0.1")
    command.feed(SAMPLES[:16_000].tobytes())
    command.line()
    command.process.stdout.close()
    command.feed(SAMPLES[16_000:].tobytes())
    assert command.process.wait(120) == 0
    assert command.process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_output(small_folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        code = "from vggish_pt.cli import main; main()"
        result = subprocess.run(
            [sys.executable, "-c", code, "stream", "--weights", str(small_folder), *RAW],
            input=SAMPLES.tobytes(),
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == b"vggish-pt: standard output: cannot be written (No space left on device)\n"


@pytest.mark.parametrize(
    "data, args, code, message",
    [
        (b"", (), 1, "standard input: no samples in it"),
        (b"", RAW, 1, "standard input: no samples in it"),
        (b"RIFF\0\0\0\0WAVE", (), 1, "ends within its header"),
        (b"ID3\4" * 50, (), 1, "not a WAV; for raw samples give --sample-rate"),
        (b"\0\0\0\0\0\0\xc0\x7f", (*RAW, "--encoding", "f32le"), 1, "a sample that is nan at 0.000063 s"),
        (b"\0", (*RAW, "--encoding", "mp3"), 2, "encoding must be one of u8, s8"),
        (b"\0", ("--channels", "2"), 2, "raw samples need --sample-rate"),
        (b"\0", ("--encoding", "s16le"), 2, "raw samples need --sample-rate"),
        (b"\0", ("--sample-rate", "7"), 1, "a sample rate of 7 Hz"),
        (b"\0", ("--sample-rate", "-7"), 2, "sample_rate must be a whole positive number"),
        (b"\0", (*RAW, "--channels", "0"), 2, "channels"),
        (b"\0" * 90_000, (*RAW, "--channels", "2000"), 1, "2000 channels"),
        (b"\0", (*RAW, "--hop", "0.015"), 2, "hop must be"),
        (b"\0", ("--microphone", "--encoding", "s16le"), 2, "--encoding is for raw samples"),
        (b"\0", (*RAW, "stray.wav"), 2, "stray.wav"),
    ],
)
def test_one_line_errors(
    run_cli: RunCli, small_folder: Path, tmp_path: Path, data: bytes, args: Any, code: int, message: str
) -> None:
    result = stream_bytes(run_cli, small_folder, tmp_path, data, *args)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@posix
def test_a_terminal_is_no_sound(run_cli: RunCli, small_folder: Path) -> None:
    controller, terminal = os.openpty()
    try:
        result = run_cli("stream", "--weights", small_folder, stdin=terminal)
    finally:
        os.close(controller)
        os.close(terminal)
    assert result.returncode == 2
    assert "standard input is a terminal" in result.stderr


# What the command needs of sounddevice: a thread that calls back with 3 s of sound, faster than real time.
SOUNDDEVICE = """
import threading, types
import numpy as np

class PortAudioError(Exception):
    pass

def query_devices(kind):
    return {{"default_samplerate": 16000.0}}

class InputStream:
    def __init__(self, samplerate, channels, dtype, blocksize, callback):
        if channels > 2:
            raise PortAudioError("Invalid number of channels")
        self.sound = np.load({path!r})
        self.blocksize, self.callback = blocksize, callback
    def start(self):
        threading.Thread(target=self.run, daemon=True).start()
    def run(self):
        block = np.empty((self.blocksize, 1), np.float32)
        for i in range(0, len(self.sound), self.blocksize):
            block[:, 0] = self.sound[i : i + self.blocksize]
            status = types.SimpleNamespace(input_overflow={overflow})
            self.callback(block, self.blocksize, None, status)
    def close(self):
        pass
"""


@pytest.fixture
def microphone(tmp_path: Path) -> Any:
    """Environment with a stand-in for sounddevice, as test machines have no microphone."""

    def make(overflow: bool = False) -> dict[str, str]:
        np.save(tmp_path / "sound.npy", SAMPLES / np.float32(32768))
        text = SOUNDDEVICE.format(path=str(tmp_path / "sound.npy"), overflow=overflow)
        (tmp_path / "sounddevice.py").write_text(text, encoding="utf-8")
        return {"PYTHONPATH": str(tmp_path)}

    return make


@posix
def test_microphone(live: Any, small_model: VGGish, microphone: Any) -> None:
    command = live("--microphone", "--pad", "tail", env=microphone())
    found = [command.line() for _ in range(3)]
    command.process.send_signal(signal.SIGINT)
    code, rest, err = command.finish()
    assert (code, err) == (130, "")
    assert_equal(found + rest, small_model.embed(SAMPLES, sample_rate=16_000, pad="tail"))


@posix
def test_microphones_that_fail(live: Any, microphone: Any) -> None:
    code, _, err = live("--microphone", "--channels", "3", env=microphone()).finish()
    assert (code, err) == (1, "vggish-pt: microphone: cannot be opened (Invalid number of channels)\n")
    code, _, err = live("--microphone", env=microphone(overflow=True)).finish()
    assert (code, err) == (1, "vggish-pt: microphone: the system lost audio\n")


def test_no_microphone_extra(run_cli: RunCli, small_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise ImportError('No module named sounddevice')", encoding="utf-8")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from vggish_pt.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "stream", "--weights", str(small_folder), "--microphone"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert result.returncode == 1
    assert 'pip install "vggish_pt[mic]"' in result.stderr
