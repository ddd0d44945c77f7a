"""WAV files whose length fields are what real writers leave behind, and what chunked files promise."""

from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np
import pytest
from audio_files import chunk, decode, encode, samples, wav

from vggish_pt.audio.riff import find_data
from vggish_pt.audio.view import Scanner
from vggish_pt.errors import AudioError, AudioWarning

PCM = samples(8000)[0]
DATA = PCM.astype("<i2").tobytes()
LIST = chunk(b"LIST", b"INFOISFT\x05\x00\x00\x00test\x00")


@pytest.mark.parametrize("riff", [None, 0, 0xFFFF_FFFF])
@pytest.mark.parametrize(
    "declared", [None, 0, 0x7F00_0008, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF0, 0xFFFF_FFFF]
)
def test_length_left_open(declared: int | None, riff: int | None) -> None:
    np.testing.assert_array_equal(decode(wav(DATA, declared=declared, riff=riff)), PCM / 32768)


@pytest.mark.parametrize("declared", [None, 0])
def test_chunks_before_and_odd_ones(declared: int | None) -> None:
    before = LIST + chunk(b"odd ", b"123") + chunk(b"JUNK", bytes(30))
    np.testing.assert_array_equal(decode(wav(DATA, declared=declared, before=before)), PCM / 32768)


def test_chunk_behind_is_not_audio() -> None:
    np.testing.assert_array_equal(decode(wav(DATA, after=LIST)), PCM / 32768)


def test_truly_empty_with_a_chunk_behind() -> None:
    with pytest.raises(AudioError, match="no samples in it"):
        decode(wav(b"", after=LIST))


def test_odd_length_of_data() -> None:
    pcm = np.arange(0, 255, dtype=np.uint8)
    file = wav(pcm.tobytes(), bits=8, after=b"\0" + LIST)
    np.testing.assert_array_equal(decode(file), (pcm.astype(float) - 128) / 128)


@pytest.mark.parametrize("kept", [len(DATA) - 2, len(DATA) // 2, 2])
def test_truncated(kept: int) -> None:
    file = wav(DATA[:kept], declared=len(DATA))
    with pytest.raises(AudioError, match=r"bytes: the file is truncated: .*allow_truncated"):
        decode(file)
    with pytest.warns(AudioWarning, match="using the readable audio"):
        np.testing.assert_array_equal(decode(file, allow_truncated=True), PCM[: kept // 2] / 32768)


def test_header_only() -> None:
    with pytest.raises(AudioError, match="truncated"):
        decode(wav(b"", declared=len(DATA)))
    with pytest.raises(AudioError, match="no samples in it"):
        decode(wav(b""))


@pytest.mark.parametrize("name", ["s16.wav", "extensible.wav", "large.rf64", "sony.w64", "apple.aiff", "apple.caf"])
def test_find_data_in_every_container(name: str) -> None:
    content = encode(name, PCM[None])
    found = find_data(Scanner(io.BytesIO(content)))
    assert found is not None and found.declared is not None
    # CAF and AIFF count a few bytes in front of the samples.
    assert len(DATA) <= found.declared <= len(DATA) + 8
    assert not found.truncated
    cut = find_data(Scanner(io.BytesIO(content[:-1])))
    assert cut is not None and cut.truncated


def test_big_endian() -> None:
    content = encode("s16.wav", PCM[None], endian="BIG")
    assert content[:4] == b"RIFX"
    np.testing.assert_array_equal(decode(content), PCM / 32768)
    with pytest.raises(AudioError, match="truncated"):
        decode(content[:-100])


def test_zero_length_is_no_length() -> None:
    content = wav(DATA, declared=0, before=LIST)
    found = find_data(Scanner(io.BytesIO(content)))
    assert found is not None and found.declared is None
    assert found.available == len(DATA) and content[found.field[0] - 4 : found.field[0]] == b"data"


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WEBPdata\0\0\0\0", b"FORM\0\0\0\0ILBM", bytes(100)])
def test_other_files_have_no_data(content: bytes) -> None:
    assert find_data(Scanner(io.BytesIO(content))) is None


def test_endless_chunks_end() -> None:
    assert find_data(Scanner(io.BytesIO(b"RIFF\0\0\0\0WAVE" + b"abcd\0\0\0\0" * 20_000))) is None


@pytest.mark.parametrize(
    "command",
    [
        ["sox", "-n", "-r", "16000", "-b", "16", "-t", "wav", "-", "synth", "1", "sine", "440"],
        ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "sine=d=1:r=16000", "-f", "wav", "-"],
        ["espeak-ng", "--stdout", "one two three four"],
        ["sox", "-n", "-r", "16000", "-b", "16", "-t", "aiff", "-", "synth", "1", "sine", "440"],
    ],
    ids=["sox", "ffmpeg", "espeak-ng", "sox-aiff"],
)
def test_real_streaming_writers(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    # Through a pipe of its own, which cannot seek: a header once written stays.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        waveform = decode(process.stdout)
    seconds = len(waveform) / (22050 if command[0] == "espeak-ng" else 16000)
    assert seconds == 1.0 if command[0] != "espeak-ng" else 0.5 < seconds < 5
    assert np.abs(waveform).max() > 0.05
