"""Real files of every format that libsndfile reads, whole and damaged."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import FORMATS, decode, encode, samples, save, wav
from mutations import MUTATIONS, run_python

from vggish_pt.audio import open_audio
from vggish_pt.audio import sndfile as decode_module
from vggish_pt.errors import AudioError, AudioWarning


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path: Path, name: str, channels: int) -> None:
    lossless = FORMATS[name][2]
    pcm = samples(24000, channels)
    if name in ("layer3.mp3", "adpcm.wav") and channels > 2:
        pytest.skip("has two channels at most")
    content = encode(name, pcm, 48000)
    path = save(tmp_path, name, content)
    with open_audio(path) as audio:
        assert (audio.sample_rate, audio.channels) == (48000, channels)
        assert audio.frames is None or abs(audio.frames - 24000) < 1000
        from_path = np.concatenate(list(audio.blocks()))
    reference = soundfile.read(path, dtype="float64", always_2d=True)[0].mean(axis=1)
    np.testing.assert_array_equal(from_path, reference)
    np.testing.assert_array_equal(decode(content), reference)
    with path.open("rb") as file:
        np.testing.assert_array_equal(decode(file), reference)
    if lossless:
        np.testing.assert_array_equal(from_path, (pcm / 32768).mean(axis=0))


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_concatenate_to_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(name, samples(30000, 2), 48000)
    whole = decode(content)
    monkeypatch.setattr(decode_module, "BLOCK_VALUES", 2 * 777)
    with open_audio(content) as audio:
        blocks = list(audio.blocks())
    assert max(map(len, blocks)) == 777
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 96000, 192000, 768000])
def test_rates(rate: int) -> None:
    pcm = samples(2000)
    with open_audio(encode("s16.wav", pcm, rate)) as audio:
        assert audio.sample_rate == rate
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks())), pcm[0] / 32768)


def test_two_hundred_channels() -> None:
    pcm = samples(3000, 200)
    np.testing.assert_allclose(decode(encode("s16.wav", pcm)), (pcm / 32768).mean(axis=0), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("bits", "scale"), [(16, 2**15), (24, 2**23), (32, 2**31)])
def test_integer_scaling_is_exact(bits: int, scale: int) -> None:
    values = [-scale, -scale + 1, -1, 0, 1, scale - 1]
    data = b"".join(v.to_bytes(bits // 8, "little", signed=True) for v in values)
    np.testing.assert_array_equal(decode(wav(data, bits=bits)), np.array(values) / scale)


def test_eight_bits_are_centred_on_128() -> None:
    np.testing.assert_array_equal(decode(wav(bytes([0, 127, 128, 255]), bits=8)), [-1, -1 / 128, 0, 127 / 128])


def test_sixty_four_bit_float_is_kept() -> None:
    values = np.array([1 / 3, -1e-17, 0.0, 1.0])
    np.testing.assert_array_equal(decode(wav(values.tobytes(), bits=64, codec=3)), values)


@pytest.mark.parametrize("name", ["s16.wav", "free.flac", "vorbis.ogg"])
@pytest.mark.parametrize("frames", [1, 160, 1600])
def test_short_files(name: str, frames: int) -> None:
    assert len(decode(encode(name, samples(frames)))) == frames


def test_flac_that_does_not_know_its_length() -> None:
    content = bytearray(encode("free.flac", samples(20000)))
    content[21] &= 0xF0  # the low 36 bits of STREAMINFO's 8 bytes behind the sample rate
    content[22:26] = bytes(4)
    with open_audio(bytes(content)) as audio:
        assert audio.frames is None
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks())), samples(20000)[0] / 32768)


def test_damaged_flac_gives_what_is_before_and_behind_the_damage() -> None:
    content = bytearray(encode("free.flac", samples(400_000)))
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    with pytest.raises(AudioError, match=r"cannot be decoded beyond \d+\.\d+ s up to \d+\.\d+ s"):
        decode(bytes(content))
    with pytest.warns(
        AudioWarning, match=r"beyond (\d+\.\d+) s up to (\d+\.\d+) s .*using the readable audio before"
    ) as warned:
        part = decode(bytes(content), allow_truncated=True)
    found = re.search(r"beyond (\S+) s up to (\S+) s", str(warned[0].message))
    assert found is not None and len(warned) == 1
    begin, end = (round(float(text) * 16000) for text in found.groups())
    assert 0.4 * 400_000 < begin < end < 0.6 * 400_000 and end - begin < 4 * 4096
    expected = samples(400_000)[0] / 32768
    np.testing.assert_array_equal(part[:begin], expected[:begin])
    np.testing.assert_array_equal(part[begin - 400_000 + (end - begin) :], expected[end:])
    assert len(part) == 400_000 - (end - begin)


class Dying(io.BytesIO):
    """A file whose disk fails half-way."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > len(self.getvalue()) // 2 and self.dying:
            raise OSError(5, "Input/output error")
        return super().read(size)

    dying = False


@pytest.mark.parametrize("name", ["s16.wav", "free.flac", "vorbis.ogg", "layer3.mp3"])
def test_reading_fails_half_way(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    file = Dying(encode(name, samples(400_000), 48000))
    with pytest.raises(AudioError, match=r"cannot be (read|decoded)"), open_audio(file) as audio:
        file.dying = True
        list(audio.blocks())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"R", "not audio"),
        (b"hello, world\n" * 100, "not audio"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "not audio"),
        (b"PK\x03\x04" + bytes(500), "not audio"),
        (bytes(5000), "not audio"),
        (b"RIFF\x00\x00\x00\x00WAVE", "cannot be decoded|damaged"),
        (b"OggS" + bytes(100), "truncated"),
        (b"fLaC" + bytes(100), "not audio|cannot be decoded"),
    ],
)
def test_no_audio(tmp_path: Path, content: bytes, message: str) -> None:
    path = save(tmp_path, "bad.wav", content)
    for source, name in ((path, str(path)), (content, "bytes")):
        with pytest.raises(AudioError, match=message) as caught:
            decode(source)
        assert str(caught.value).startswith(f"{name}: ")
        assert len(str(caught.value).splitlines()) == 1
        assert caught.value.source == name


def test_random_bytes(rng: np.random.Generator) -> None:
    for size in (1, 2, 44, 1000, 100_000):
        with pytest.raises(AudioError):
            decode(rng.bytes(size))


HOSTILE = {
    "channels": wav(bytes(1000), channels=65535, bits=16),
    "no channels": wav(bytes(1000), channels=0),
    "bits": wav(bytes(1000), bits=65528),
    "rate": wav(bytes(1000), rate=2**32 - 1),
    "largest rate": wav(bytes(1000), rate=2**31 - 1),
    "no rate": wav(bytes(1000), rate=0),
    "one hertz": wav(bytes(1000), rate=1),
    "frames": encode("sun.au", samples(100))[:4] + b"\0\0\0\x18\x7e\xff\xff\xff" + encode("sun.au", samples(100))[12:],
    "long data": wav(bytes(1000), declared=0x7E00_0000),
    "flac": encode("free.flac", samples(100))[:20] + b"\xff" * 16 + bytes(1000),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers_cost_no_memory(tmp_path: Path, what: str) -> None:
    """In a process of its own, whose peak is measured."""
    path = save(tmp_path, "hostile", HOSTILE[what])
    code = (
        "import resource, sys, numpy, soundfile\n"
        "from vggish_pt.audio import open_audio\n"
        "from vggish_pt.errors import AudioError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for source in (sys.argv[1], open(sys.argv[1], 'rb').read()):\n"
        "    try:\n"
        "        with open_audio(source) as audio:\n"
        "            print(sum(map(len, audio.blocks())))\n"
        "    except AudioError as error:\n"
        "        print('AudioError', error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    pytest.importorskip("resource")
    done = run_python(code, str(path))
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 3, done.stderr
    assert all(line.startswith("AudioError") for line in lines[:2])
    assert int(lines[2]) < 60  # MiB; two blocks of 2 MiB and libraries


@pytest.mark.parametrize("name", FORMATS)
def test_mutations_are_decoded_or_refused(name: str) -> None:
    """In a process of its own, so that a crash inside a decoder is a failure and not the end of all tests."""
    done = run_python(MUTATIONS, name, "250")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    decoded, refused = map(int, done.stdout.split())
    assert decoded > 0 and refused > 0


def test_every_truncation_of_a_small_file() -> None:
    content = encode("free.flac", samples(200))
    for size in itertools.chain(range(0, len(content), 7), [len(content) - 1]):
        with pytest.raises(AudioError):
            decode(content[:size])
