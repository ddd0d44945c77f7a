"""Bytes from a pipe: raw samples against soundfile's reading of them, and WAV headers of all writers."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from vggish_pt.audio.pcm import ENCODINGS, Pcm, WavHeader, read_wav_header
from vggish_pt.audio.samples import scaled
from vggish_pt.errors import AudioError, SettingsError

SUBTYPES = {
    "u8": "PCM_U8",
    "s8": "PCM_S8",
    "s16": "PCM_16",
    "s24": "PCM_24",
    "s32": "PCM_32",
    "f32": "FLOAT",
    "f64": "DOUBLE",
}


def wav(form: bytes, data: bytes, length: int, *extra: bytes, kind: bytes = b"RIFF") -> bytes:
    """A WAV as a streaming writer leaves it: the lengths are whatever it claims."""
    chunks = b"".join(extra) + b"fmt " + struct.pack("<I", len(form)) + form
    return kind + b"\xff\xff\xff\xff" + b"WAVE" + chunks + b"data" + struct.pack("<I", length) + data


PLAIN = struct.pack("<HHIIHH", 1, 2, 44_100, 44_100 * 4, 4, 16)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_soundfiles(encoding: str, channels: int, rng: np.random.Generator) -> None:
    samples = rng.uniform(-1, 1, (500, channels))
    subtype, endian = SUBTYPES[encoding[:3].rstrip("lb")], "BIG" if encoding.endswith("be") else "LITTLE"
    file = io.BytesIO()
    sf.write(file, samples, 16_000, format="RAW", subtype=subtype, endian=endian)
    file.seek(0)
    expected, _ = sf.read(
        file, format="RAW", subtype=subtype, endian=endian, samplerate=16_000, channels=channels, always_2d=True
    )
    data = file.getvalue()
    pcm = Pcm(channels, encoding)
    blocks, start = [], 0
    while start < len(data):
        size = int(rng.integers(0, 200))
        blocks.append(scaled(pcm.push(data[start : start + size])))
        start += size
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    assert pcm.end_problem() is None


def test_an_end_within_a_sample() -> None:
    pcm = Pcm(2, "s16le")
    assert pcm.push(b"\0" * 11).shape == (2, 2)
    assert pcm.end_problem() == "the last 3 bytes are no whole sample and were left out"
    assert pcm.push(b"\0").shape == (2, 1)
    assert pcm.end_problem() is None


def test_what_follows_the_sound_is_passed_over() -> None:
    pcm = Pcm(1, "s16le", 6)
    assert pcm.end_problem() == "the audio ends 6 bytes before the length in its header"
    assert [pcm.push(b"abcd").shape, pcm.push(b"efgh").shape, pcm.push(b"LIST").shape] == [(1, 2), (1, 1), (1, 0)]
    assert pcm.end_problem() is None


@pytest.mark.parametrize("encoding", ["", "pcm", "S16LE", "s16", "mp3"])
def test_no_encoding(encoding: str) -> None:
    with pytest.raises(SettingsError, match="encoding must be one of u8, s8, s16le"):
        Pcm(1, encoding)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
def test_headers_of_libsndfile(subtype: str, container: str, rng: np.random.Generator) -> None:
    samples = rng.uniform(-1, 1, (300, 2))
    file = io.BytesIO()
    sf.write(file, samples, 22_050, format=container, subtype=subtype)
    data = file.getvalue()
    expected, _ = sf.read(io.BytesIO(data))
    header = None
    for size in range(len(data)):
        if header := read_wav_header(data[:size], "pipe"):
            break
    assert header is not None
    assert (header.sample_rate, header.channels) == (22_050, 2)
    pcm = Pcm(header.channels, header.encoding, header.length)
    np.testing.assert_array_equal(scaled(pcm.push(data[header.offset :])), expected)
    assert pcm.end_problem() is None


@pytest.mark.parametrize("length", [0, 0x7F00_0000, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF])
def test_unknown_lengths(length: int) -> None:
    assert read_wav_header(wav(PLAIN, b"\0" * 8, length), "pipe") == WavHeader(44_100, 2, "s16le", 44, None)


def test_lengths() -> None:
    assert read_wav_header(wav(PLAIN, b"", 4_000), "pipe") == WavHeader(44_100, 2, "s16le", 44, 4_000)
    large = b"ds64" + struct.pack("<IQQQI", 28, 0, 5 << 32, 0, 0)
    header = read_wav_header(wav(PLAIN, b"", 0xFFFF_FFFF, large, kind=b"RF64"), "pipe")
    assert header is not None
    assert header.length == 5 << 32


def test_chunks_before_the_sound() -> None:
    text = b"LIST" + struct.pack("<I", 5) + b"hello\0"  # an odd length is filled up
    assert read_wav_header(wav(PLAIN, b"", 0, text), "pipe") == WavHeader(44_100, 2, "s16le", 58, None)


@pytest.mark.parametrize("data", [b"OggS\0\2", b"RIFF\0\0\0\0AVI ", b"FORM\0\0\0\0AIFF", b"\0", b"RIFX"])
def test_no_wav(data: bytes) -> None:
    with pytest.raises(AudioError, match="pipe: not a WAV; for raw samples give --sample-rate"):
        read_wav_header(data, "pipe")


@pytest.mark.parametrize("kind, bits", [(2, 4), (6, 8), (7, 8), (1, 12), (3, 16), (0x55, 0), (1, 0)])
def test_samples_that_are_no_plain_numbers(kind: int, bits: int) -> None:
    form = struct.pack("<HHIIHH", kind, 1, 8_000, 8_000, 1, bits)
    with pytest.raises(AudioError, match=f"a WAV of format {kind} with {bits} bits; convert it with: ffmpeg"):
        read_wav_header(wav(form, b"", 0), "pipe")


def test_headers_without_end() -> None:
    with pytest.raises(AudioError, match="without samples in its first 4 MB"):
        read_wav_header(b"RIFF\0\0\0\0WAVEJUNK\xff\xff\xff\xff", "pipe")
    with pytest.raises(AudioError, match="without a sample format before the samples"):
        read_wav_header(b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "pipe")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_mutated_headers(data: st.DataObject) -> None:
    """An answer, a wait for more, or a typed error of one line."""
    good = bytearray(wav(PLAIN, b"\0" * 20, 20, b"ds64" + struct.pack("<IQQQI", 28, 0, 20, 0, 0)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = read_wav_header(bytes(good[: data.draw(st.integers(0, len(good)))]), "pipe")
    except AudioError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert header is None or header.encoding in ENCODINGS
