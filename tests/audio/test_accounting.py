"""All of a file is accounted for: joined, damaged, tagged and miscounted files of every format."""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from audio_files import decode, encode, encode_av, samples, save, wav

from vggish_pt.audio import open_audio
from vggish_pt.errors import AudioError, AudioWarning

CASES = Path(os.environ.get("VGGISH_PT_CASES", Path(__file__).parents[3] / "shared" / "cases")) / "audio"
# Name → seconds that must be decoded without a word.
READ = {
    "mp3_44_48.mp3": 12.06,
    "loud_silent_1byte.mp3": 12.04,
    "concat.flac": 12.0,
    "flac_total_less.flac": 6.0,
    "ogg_joined_same.ogg": 12.0,
    "data_too_small.wav": 6.0,
    "mp3_icy.mp3": 6.03,
    "wav_mp3.wav": 6.03,
    "ogg_noeos.ogg": 6.0,
    "flac_id3v1.flac": 6.0,
    "m4a_id3v1.m4a": 6.0,
    "aac_id3.aac": 6.04,
    "au_len0.au": 6.0,
    "rf64_ds0.wav": 6.0,
}
# Name → seconds that can be had of a damaged file, at least and at most.
DAMAGED = {
    "mp3_rand_bare.mp3": (5.75, 5.9),
    "silent_webm_opus_zeros.webm": (5.7, 6.0),
    "dmg60.m4a": (59.9, 60.0),
}
RATE = 48000
PCM = samples(RATE, 2)
WHOLE = {
    name: encode(name, PCM, RATE)
    for name in ("s16.wav", "large.rf64", "apple.aiff", "sun.au", "free.flac", "vorbis.ogg", "opus.opus", "layer3.mp3")
}
ID3V2 = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
ID3V1 = b"TAG" + b"some title".ljust(125, b"\0")
ITEM = struct.pack("<II", 4, 0) + b"Year\0" + b"2026"
APE = ITEM + b"APETAGEX" + struct.pack("<IIII", 2000, len(ITEM) + 32, 1, 0) + bytes(8)
HEADED = b"".join(
    b"APETAGEX" + struct.pack("<IIII", 2000, len(ITEM) + 32, 1, flags) + bytes(8) + items
    for flags, items in ((0xA0000000, ITEM), (0x80000000, b""))
)
LYRICS = b"LYRICSBEGIN" + b"la la la" + b"LYRICSEND"


def seconds(source: object, **options: object) -> float:
    with open_audio(source, **options) as audio:  # type: ignore[arg-type]
        return sum(map(len, audio.blocks())) / audio.sample_rate


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not there; set VGGISH_PT_CASES")
@pytest.mark.parametrize("name", READ)
def test_collected_files_are_read_whole(name: str) -> None:
    for source in (CASES / name, (CASES / name).read_bytes()):
        assert seconds(source) == pytest.approx(READ[name], abs=0.03)


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not there; set VGGISH_PT_CASES")
@pytest.mark.parametrize("name", DAMAGED)
def test_collected_files_that_are_damaged(name: str) -> None:
    with pytest.raises(AudioError, match=r"cannot be decoded beyond \d+\.\d+ s up to \d+\.\d+ s"):
        seconds(CASES / name)
    with pytest.warns(AudioWarning, match=r"beyond \d+\.\d+ s up to \d+\.\d+ s .*before and after it"):
        low, high = DAMAGED[name]
        assert low < seconds(CASES / name, allow_truncated=True) < high


@pytest.mark.parametrize("name", ["page.gsm", "page.vox", "page.au", "page.snd", "page.raw", "page.wav"])
def test_names_do_not_decide(tmp_path: Path, name: str) -> None:
    page = b"<!DOCTYPE html><html><title>404 Not Found</title>" + b"<p>No such page.</p>\n" * 2000
    with pytest.raises(AudioError, match="not audio"):
        decode(save(tmp_path, name, page))


@pytest.mark.parametrize("name", WHOLE)
def test_joined_files(name: str) -> None:
    whole = decode(WHOLE[name])
    waveform = decode(WHOLE[name] * 3)
    if name == "layer3.mp3":  # frames that only count the others are decoded too, as silence
        assert 3 * len(whole) <= len(waveform) <= 3 * len(whole) + 9 * 1152
    else:
        np.testing.assert_array_equal(waveform, np.tile(whole, 3))


@pytest.mark.parametrize("name", ["aac.m4a", "aac.aac", "aac.mkv", "opus.webm"])
def test_joined_files_of_pyav(name: str) -> None:
    content = encode_av(name)
    assert seconds(content * 2) == pytest.approx(2 * seconds(content), abs=0.05)


@pytest.mark.parametrize("name", ["s16.wav", "free.flac", "vorbis.ogg", "layer3.mp3"])
def test_joined_with_another_rate_and_another_number_of_channels(name: str) -> None:
    other = encode(name, samples(32000), 32000)
    assert seconds(WHOLE[name] + other) == pytest.approx(2.0, abs=0.08)
    assert seconds(other + WHOLE[name]) == pytest.approx(2.0, abs=0.08)


@pytest.mark.parametrize("behind", [ID3V1, APE, APE + ID3V1, HEADED, LYRICS + ID3V1, bytes(3000), ID3V2], ids=len)
@pytest.mark.parametrize("name", ["s16.wav", "free.flac", "vorbis.ogg", "opus.opus", "layer3.mp3"])
def test_tags_behind(name: str, behind: bytes) -> None:
    np.testing.assert_array_equal(decode(WHOLE[name] + behind), decode(WHOLE[name]))


@pytest.mark.parametrize("front", [ID3V2, ID3V2 * 2, bytes(1000), ID3V2 + bytes(500)], ids=len)
@pytest.mark.parametrize("name", ["s16.wav", "free.flac", "vorbis.ogg", "layer3.mp3"])
def test_tags_and_zeros_in_front(name: str, front: bytes) -> None:
    np.testing.assert_array_equal(decode(front + WHOLE[name]), decode(WHOLE[name]))


@pytest.mark.parametrize(
    "front", [b"x", b"\xff", b"ICY 200 OK\r\nicy-name: radio\r\n\r\n", b"\xff\xfb\x90" * 40], ids=repr
)
@pytest.mark.parametrize("name", ["layer3.mp3", "aac.aac"])
def test_stray_bytes_before_the_first_frame(name: str, front: bytes) -> None:
    content = WHOLE.get(name) or encode_av(name)
    np.testing.assert_array_equal(decode(front + content), decode(content))


@pytest.mark.parametrize("name", ["vorbis.ogg", "free.flac", "aac.m4a"])
def test_unknown_bytes_behind_are_reported_and_cost_nothing(name: str) -> None:
    content = WHOLE.get(name) or encode_av(name)
    with pytest.warns(AudioWarning, match="4000 bytes are neither audio nor tags of a known kind"):
        waveform = decode(content + b"\x01\x02\x03\x04" * 1000)
    np.testing.assert_array_equal(waveform, decode(content))


@pytest.mark.parametrize("name", ["free.flac", "vorbis.ogg", "opus.opus", "layer3.mp3", "aac.aac", "opus.webm"])
@pytest.mark.parametrize("filler", ["zeros", "noise"])
def test_damage_inside(name: str, filler: str) -> None:
    content = bytearray(WHOLE.get(name) or encode_av(name, 4.0))
    middle, size = len(content) // 2, min(4000, len(content) // 8)
    content[middle : middle + size] = bytes(size) if filler == "zeros" else np.random.default_rng(1).bytes(size)
    whole = seconds(WHOLE.get(name) or encode_av(name, 4.0))
    with pytest.raises(AudioError, match=r"damaged or truncated: cannot be decoded beyond \d+\.\d+ s up to \d+\.\d+ s"):
        seconds(bytes(content))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        part = seconds(bytes(content), allow_truncated=True)
    assert any("before and after it" in str(warning.message) for warning in warned)
    assert 0.4 * whole < part < whole - 0.01


def test_parts_outside_the_damage_can_be_had() -> None:
    content = bytearray(encode("free.flac", samples(RATE * 4), RATE))
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    np.testing.assert_array_equal(decode(bytes(content), end=1.5), samples(RATE * 4)[0][: RATE * 3 // 2] / 32768)
    with pytest.raises(AudioError, match="cannot be decoded beyond"):
        decode(bytes(content), start=1.0, end=3.0)


DATA = PCM[0].astype("<i2").tobytes()


def test_wav_that_counts_less_than_it_holds() -> None:
    content = wav(DATA, declared=len(DATA) // 3 & ~1, rate=RATE)  # the length of the file is right
    np.testing.assert_array_equal(decode(content), PCM[0] / 32768)
    both = wav(DATA, declared=len(DATA) // 3 & ~1, riff=36 + (len(DATA) // 3 & ~1), rate=RATE)
    with pytest.raises(AudioError, match=r"ends at 0\.333 s by the file's header, but continues up to 1\.000 s"):
        decode(both)
    with pytest.warns(AudioWarning, match=r"0\.333 s .* up to 1\.000 s .*using all of it"):
        np.testing.assert_array_equal(decode(both, allow_truncated=True), PCM[0] / 32768)


@pytest.mark.parametrize("more", [1, 2, 3])
def test_wav_length_that_is_a_little_too_large(more: int) -> None:
    stereo = PCM.T.astype("<i2").tobytes()
    content = wav(stereo, declared=len(stereo) + more, rate=RATE, channels=2)
    np.testing.assert_array_equal(decode(content), (PCM / 32768).mean(axis=0))


def test_au_and_aiff_that_count_less_than_they_hold() -> None:
    for name, offset in (("sun.au", 8), ("apple.aiff", WHOLE["apple.aiff"].find(b"SSND") + 4)):
        content = bytearray(WHOLE[name])
        content[offset : offset + 4] = struct.pack(">I", 48008)
        if name == "apple.aiff":
            np.testing.assert_array_equal(decode(bytes(content)), decode(WHOLE[name]))
            content[4:8] = struct.pack(">I", offset + 4 + 48008 - 8)
        with pytest.raises(AudioError, match=r"ends at 0\.250 s by the file's header"):
            decode(bytes(content))
        with pytest.warns(AudioWarning, match="using all of it"):
            np.testing.assert_array_equal(decode(bytes(content), allow_truncated=True), decode(WHOLE[name]))


def test_wav_above_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    rate, size = 3_000_000, (1 << 32) + 6_000_000  # of 12 bytes: a short decoding
    header = wav(b"", declared=size & 0xFFFFFFFF, riff=size + 36 & 0xFFFFFFFF, rate=rate, channels=1024, bits=16)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    with open_audio(path) as audio:
        assert audio.frames == size // 2048
    assert seconds(path, start=size // 2048 / rate - 0.01) == pytest.approx(0.01, abs=1e-5)


def test_streamed_au_and_rf64() -> None:
    au, rf64 = bytearray(WHOLE["sun.au"]), bytearray(WHOLE["large.rf64"])
    au[8:12] = bytes(4)
    np.testing.assert_array_equal(decode(bytes(au)), decode(WHOLE["sun.au"]))
    at = rf64.find(b"ds64") + 8
    rf64[at : at + 24] = bytes(24)
    np.testing.assert_array_equal(decode(bytes(rf64)), decode(WHOLE["large.rf64"]))


@pytest.mark.parametrize("total", [1000, 24000, 0])
def test_flac_that_counts_less_or_nothing(total: int) -> None:
    content = bytearray(WHOLE["free.flac"])
    content[21] &= 0xF0
    content[22:26] = struct.pack(">I", total)
    np.testing.assert_array_equal(decode(bytes(content)), decode(WHOLE["free.flac"]))


def test_mp3_whose_count_is_wrong() -> None:
    content = bytearray(WHOLE["layer3.mp3"])
    at = content.find(b"Xing") + 8
    frames = int.from_bytes(content[at : at + 4], "big")
    content[at : at + 4] = struct.pack(">I", frames // 2)
    assert seconds(bytes(content)) >= seconds(WHOLE["layer3.mp3"])


@pytest.mark.parametrize("at", [100, 7001, 0.3, 0.61])
def test_mp3_from_any_byte_on(at: float) -> None:
    content = WHOLE["layer3.mp3"]
    start = at if at > 1 else int(at * len(content))
    expected = 1.0 * (len(content) - start) / len(content)
    assert seconds(content[int(start) :]) == pytest.approx(expected, abs=0.06)


def test_ogg_without_its_end_flag() -> None:
    from vggish_pt.audio.ogg import checksum

    content = WHOLE["vorbis.ogg"]
    last = content.rfind(b"OggS")
    page = bytearray(content[last:])
    page[5] &= ~4
    page[22:26] = bytes(4)
    page[22:26] = checksum(bytes(page)).to_bytes(4, "little")
    np.testing.assert_array_equal(decode(content[:last] + bytes(page)), decode(content))
