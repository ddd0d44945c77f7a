"""Parts of a source hold exactly the samples that the whole has there."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from audio_files import AV_FORMATS, FORMATS, decode, encode, encode_av, samples, save

from vggish_pt.audio import open_audio
from vggish_pt.audio.clip import Opener
from vggish_pt.errors import AudioError, AudioWarning, SettingsError

RATE = 16000
SECONDS = 3.2
PCM = samples(int(RATE * SECONDS), channels=2)
PARTS = [(None, 1.0), (0.0, 0.25), (1.00003, 1.5), (0.73, None), (2.9, SECONDS), (3.1999, None), (1 / 3, 2 / 3)]


@dataclass(frozen=True)
class Stored:
    """An opener that counts how often what it opened was closed."""

    data: bytes
    closed: list[int]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        yield io.BytesIO(self.data)
        self.closed.append(1)


@pytest.mark.parametrize("name", FORMATS)
def test_a_part_is_a_slice_of_the_whole(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, name, encode(name, PCM, RATE))
    whole = decode(path)
    with open_audio(path) as audio:
        rate = audio.sample_rate
    for start, end in PARTS:
        expected = whole[round((start or 0) * rate) : None if end is None else round(end * rate)]
        for source in (path, path.read_bytes(), Stored(path.read_bytes(), [])):
            part = decode(source, start=start, end=end)  # type: ignore[arg-type]
            assert np.array_equal(part, expected), (name, start, end)


@pytest.mark.parametrize("name", sorted(AV_FORMATS))
def test_a_part_of_what_pyav_reads(name: str) -> None:
    pytest.importorskip("av")
    data = encode_av(name, 2.0)
    whole = decode(data)
    for start, end in [(0.5, 1.0), (None, 0.7), (1.3, None)]:
        expected = whole[round((start or 0) * 48000) : None if end is None else round(end * 48000)]
        assert np.array_equal(decode(data, start=start, end=end), expected)


def test_a_part_of_an_array() -> None:
    x = np.arange(1000) / 1000
    assert np.array_equal(decode(x, 1000, start=0.1, end=0.3), x[100:300])


@pytest.mark.parametrize("name", ["s16.wav", "free.flac", "vorbis.ogg"])
def test_a_part_behind_the_end(name: str) -> None:
    data = encode(name, PCM, RATE)
    for start in (SECONDS, 7.0, 1e12):
        with pytest.raises(AudioError, match=r"^a: the part begins at .* s, after the end of the audio at 3\.200 s$"):
            decode(data, name="a", start=start)


@pytest.mark.parametrize("name", ["s16.wav", "layer3.mp3"])
def test_a_part_that_ends_behind_the_end(name: str) -> None:
    data = encode(name, PCM, RATE)
    expected = decode(data, start=3.0)
    assert np.array_equal(decode(data, start=3.0, end=len(decode(data)) / RATE + 0.09), expected)  # rounded: no word
    with pytest.warns(AudioWarning, match=r"^a: ends at 3\.\d+ s, before the end of the part at 4 s"):
        assert np.array_equal(decode(data, name="a", start=3.0, end=4.0), expected)


@pytest.mark.parametrize(
    ("start", "end"), [(-0.1, None), (1, 1), (2, 1), (float("nan"), None), (0, float("inf")), (None, 0.0), (None, -1)]
)
def test_times_that_cannot_be(start: Any, end: Any) -> None:
    with pytest.raises(SettingsError, match="not a part of an audio file"):
        open_audio(b"", start=start, end=end)


def test_a_part_without_a_sample() -> None:
    with pytest.raises(AudioError, match="holds no sample"):
        decode(encode("s16.wav", PCM), start=1.0, end=1.00001)


def test_what_lies_outside_the_part_is_not_looked_at() -> None:
    x = np.full(1000, np.nan)
    x[400:600] = 0.5
    assert np.array_equal(decode(x, 1000, start=0.4, end=0.6), x[400:600])
    with pytest.raises(AudioError, match=r"at 0\.600000 s \(sample 600"):
        decode(x, 1000, start=0.5, end=0.7)


def test_a_part_near_the_end_is_found_without_decoding_all_before_it(tmp_path: Path) -> None:
    class Counting(io.FileIO):
        read_bytes = 0

        def read(self, size: int | None = -1) -> Any:
            data = super().read(-1 if size is None else size)
            Counting.read_bytes += len(data)
            return data

    path = save(tmp_path, "long.wav", encode("s16.wav", samples(RATE * 120), RATE))
    with Counting(path) as file:
        assert len(decode(file, start=119.0)) == RATE
    assert Counting.read_bytes < os.path.getsize(path) / 5


def test_damage_before_and_at_a_part() -> None:
    data = encode("free.flac", samples(RATE * 60), RATE)
    cut = data[: len(data) // 2]
    expected = decode(data, start=1.0, end=2.0)
    assert np.array_equal(decode(cut, start=1.0, end=2.0), expected)  # all of it is there
    with pytest.raises(AudioError, match="damaged or truncated"):
        decode(cut, start=50.0)


def test_openers_are_opened_and_closed() -> None:
    stored = Stored(encode("s16.wav", PCM), [])
    assert isinstance(stored, Opener)
    with open_audio(stored, name="shard.tar::a.wav") as audio:
        assert audio.name == "shard.tar::a.wav"
        assert not stored.closed
    assert stored.closed == [1]
    broken = Stored(b"no sound", [])
    with pytest.raises(AudioError, match=r"^x: not audio"):
        open_audio(broken, name="x")
    with pytest.raises(SettingsError, match="sample_rate"):
        open_audio(stored, 16000)
    assert pickle.loads(pickle.dumps(stored)) == stored  # noqa: S301 (our own)


def test_an_opener_that_fails() -> None:
    class Broken:
        def open(self) -> Any:
            raise OSError("the line is dead")

    with pytest.raises(AudioError, match=r"^x: cannot be opened \(the line is dead\)$"):
        open_audio(Broken(), name="x")


class CountingFile(io.BytesIO):
    """A file that counts the bytes that are read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def flac_of_noise(seconds: int) -> bytes:
    return encode(
        "free.flac", np.random.default_rng(4).integers(-9000, 9000, seconds * RATE).astype(np.int16)[None], RATE
    )


def test_a_segment_of_flac_is_read_without_the_rest_of_the_file() -> None:
    data = flac_of_noise(180)
    file = CountingFile(data)
    part = decode(file, start=30.0, end=30.5)
    assert np.array_equal(part, decode(data)[30 * RATE : 30 * RATE + RATE // 2])
    assert file.count < len(data) / 4


def test_segments_of_damaged_and_joined_flac() -> None:
    data = flac_of_noise(8)
    whole = decode(data)
    damaged = bytearray(data)
    damaged[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    assert np.array_equal(decode(bytes(damaged), start=1.0, end=2.0), whole[RATE : 2 * RATE])
    assert np.array_equal(decode(bytes(damaged), start=6.0, end=7.0), whole[6 * RATE : 7 * RATE])
    with pytest.raises(AudioError, match="damaged or truncated"):
        decode(bytes(damaged), start=3.0, end=5.0)
    with pytest.raises(AudioError, match="truncated"):
        decode(data[: len(data) // 2], start=3.0, end=5.0)
    assert np.array_equal(decode(data + data, start=9.0, end=10.0), whole[RATE : 2 * RATE])  # beyond STREAMINFO's count
