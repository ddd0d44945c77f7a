"""Structure of files: whole, cut, joined, and with tags."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from audio_files import AV_FORMATS, FORMATS, decode, encode, encode_av, samples

from vggish_pt.audio.kinds import find_structure
from vggish_pt.audio.structure import Structure
from vggish_pt.audio.view import Scanner
from vggish_pt.errors import AudioError, AudioWarning


def parse(content: bytes) -> Structure | None:
    return find_structure(Scanner(io.BytesIO(content)))


WHOLE = {name: encode(name, samples(48000), 48000) for name in FORMATS}


@pytest.mark.parametrize("fraction", [0.999, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("name", FORMATS)
def test_truncated_is_an_error(name: str, fraction: float) -> None:
    part = WHOLE[name][: int(len(WHOLE[name]) * fraction)]
    with pytest.raises(AudioError, match=r"truncated"):
        decode(part, name=name)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_there_can_be_had(name: str) -> None:
    content = WHOLE[name]
    if name == "apple.caf":
        pytest.skip("libsndfile opens no CAF that is cut short by much")
    whole = decode(content)
    with pytest.warns(AudioWarning, match="truncated.*using the readable audio"):
        part = decode(content[: int(len(content) * 0.7)], allow_truncated=True)
    assert 0.3 * len(whole) < len(part) <= 0.75 * len(whole)
    np.testing.assert_array_equal(part[:14000], whole[:14000])


TAG = b"TAG" + bytes(125)


@pytest.mark.parametrize("name", FORMATS)
def test_whole_files_are_whole_also_with_a_tag_behind(name: str) -> None:
    for content in (WHOLE[name], WHOLE[name] + TAG):
        structure = parse(content)
        assert structure is not None and len(structure.streams) == 1
        assert not structure.streams[0].losses and not structure.unknown
        np.testing.assert_array_equal(decode(content), decode(WHOLE[name]))


@pytest.mark.parametrize("name", AV_FORMATS)
def test_truncated_containers_of_ffmpeg(name: str) -> None:
    content = encode_av(name)
    structure = parse(content)
    assert structure is not None and not structure.streams[0].losses and not structure.unknown
    if name != "aac.aac":  # says no length, and the rest of a frame is no sound
        cut = parse(content[:-10])
        assert cut is not None and cut.streams[0].losses[0].at_end
    with pytest.raises(AudioError, match=r"truncated|damaged"):
        decode(content[: int(len(content) * 0.6)])


def test_open_lengths_of_containers() -> None:
    def cut(content: bytes) -> bool:
        structure = parse(content)
        assert structure is not None
        return any(loss.at_end for stream in structure.streams for loss in stream.losses)

    assert not cut(b".snd" + struct.pack(">IIIII", 24, 0xFFFF_FFFF, 3, 16000, 1) + bytes(12))
    moov = b"\0\0\0\x08ftyp\0\0\0\x08moov"
    assert not cut(moov + b"\0\0\0\0mdat" + bytes(100))  # a box up to the end
    assert cut(moov + b"\0\0\0\x01mdat" + struct.pack(">Q", 1 << 40) + bytes(100))
    segment = b"\x1aE\xdf\xa3\x80\x18S\x80g"
    assert not cut(segment + b"\x01" + b"\xff" * 7 + bytes(100))
    assert not cut(segment + b"\x84\xec\x82ab")
    assert cut(segment + b"\x84\xec\x82a")


@pytest.mark.parametrize("content", [b"", b"x", b"OggS", b"\x1aE\xdf\xa3", b"ID3", b"\xff\xfb\x90\x00", bytes(5000)])
def test_scraps_are_safe(content: bytes) -> None:
    for scrap in (content, content + b"\xff" * 70, b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + content):
        parse(scrap)


def uncounted_mp3() -> bytes:
    """MP3 with no frame count and little in its first frames, so that its length cannot be guessed from them."""
    av = pytest.importorskip("av")
    quiet = np.zeros(48000)
    loud = np.random.default_rng(0).standard_normal(5 * 48000) * 0.3
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3", options={"write_xing": "0"}) as output:
        stream = output.add_stream("libmp3lame", rate=48000)
        stream.layout = "mono"
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 4 * 118
        tone = np.concatenate([loud, quiet]).astype(np.float32)
        for start in range(0, len(tone), 1152):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1152], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def test_mp3_without_a_count_is_read_to_its_end() -> None:
    content = uncounted_mp3()
    structure = parse(content)
    assert structure is not None and structure.streams[0].padded
    assert 6 * 48000 <= len(decode(content)) <= 6 * 48000 + 3 * 1152


def test_joined_mp3_is_read_to_its_end() -> None:
    first, second = WHOLE["layer3.mp3"], encode("layer3.mp3", samples(48000 * 2, seed=1), 48000)
    waveform = decode(first + second)
    assert len(waveform) > 3 * 48000
    with pytest.raises(AudioError, match="truncated"):
        decode(first + second[: len(second) // 2 + 100])


def test_mp3_behind_large_tags() -> None:
    size = 100_000  # a picture, say, with something like a mark in it
    tag = b"ID3\x04\x00\x00" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0)) + (b"Info" * size)[:size]
    content = tag + WHOLE["layer3.mp3"]
    np.testing.assert_array_equal(decode(content), decode(WHOLE["layer3.mp3"]))
    with pytest.raises(AudioError, match="truncated"):
        decode(content[:-500])


def test_chained_ogg_is_read_to_its_end() -> None:
    content = WHOLE["vorbis.ogg"] + encode("vorbis.ogg", samples(24000, seed=3), 48000)
    if content[14:18] == content[len(WHOLE["vorbis.ogg"]) + 14 :][:4]:
        pytest.skip("libsndfile gave both streams one number")
    structure = parse(content)
    assert structure is not None and len(structure.streams) == 2
    assert 72000 - 500 <= len(decode(content)) <= 72000 + 500
