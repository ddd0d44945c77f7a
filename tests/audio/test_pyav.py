"""What needs PyAV, with it and without."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from audio_files import AV_FORMATS, decode, encode_av, save
from mutations import MUTATIONS, run_python

from vggish_pt.audio import open_audio
from vggish_pt.errors import AudioError, AudioWarning

av = pytest.importorskip("av")


def pitch(waveform: np.ndarray, rate: int) -> float:
    """Hertz of the strongest part."""
    return float(np.abs(np.fft.rfft(waveform)).argmax() * rate / len(waveform))


@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("name", AV_FORMATS)
def test_formats(tmp_path: Path, name: str, video: bool) -> None:
    if video and name not in ("aac.mp4", "aac.mkv", "mp3.avi"):
        pytest.skip("holds no video")
    content = encode_av(name, 1.0, video=video)
    path = save(tmp_path, name, content)
    with open_audio(path) as audio:
        assert (audio.sample_rate, audio.channels) == (48000, 2)
        waveform = np.concatenate(list(audio.blocks()))
    assert abs(len(waveform) - 48000) < 3 * 1152
    assert pitch(waveform[4000:44000], 48000) == pytest.approx(440, abs=2)
    assert np.abs(waveform[4000:44000]).max() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(decode(content), waveform)
    with path.open("rb") as file:
        np.testing.assert_array_equal(decode(file), waveform)
        assert not file.closed


def test_video_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode(None))
    with pytest.raises(AudioError, match=rf"^{path}: contains no audio$"):
        decode(path)


@pytest.mark.parametrize("name", ["aac.m4a", "opus.webm"])
def test_without_pyav(tmp_path: Path, name: str) -> None:
    """In a process where it cannot be imported."""
    path = save(tmp_path, name, encode_av(name, 0.2))
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from audio_files import decode\n"
        "from vggish_pt.errors import AudioError\n"
        "try: decode(sys.argv[1])\n"
        "except AudioError as error: print(error)\n"
    )
    done = run_python(code, str(path))
    label = "MP4 or M4A" if name == "aac.m4a" else "WebM or Matroska"
    assert done.stdout == f"{path}: {label}, which needs PyAV: pip install av\n", done.stderr


@pytest.mark.parametrize("missing", [True, False])
def test_damaged_wav_is_called_damaged(missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing:
        monkeypatch.setitem(sys.modules, "av", None)
    content = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + b"\xaa" * 16 + b"data\x04\x00\x00\x00abcd"
    with pytest.raises(AudioError, match=r"^bytes: (.* is damaged|cannot be decoded)"):
        decode(content)


def test_damage_in_the_middle() -> None:
    content = bytearray(encode_av("aac.aac", 2.0))
    middle = len(content) // 2
    content[middle : middle + 400] = b"\xff" * 400
    with pytest.raises(AudioError, match=r"cannot be decoded beyond [01]\.\d+ s up to [01]\.\d+ s"):
        decode(bytes(content))
    with pytest.warns(
        AudioWarning, match=r"beyond [01]\.\d+ s up to [01]\.\d+ s .*using the readable audio before and after"
    ):
        part = decode(bytes(content), allow_truncated=True)
    assert 0.93 * 96000 < len(part) < 98304


def test_nothing_is_fetched_or_followed(tmp_path: Path) -> None:
    """Playlists name other files; they are not read."""
    save(tmp_path, "tone.aac", encode_av("aac.aac", 0.2))
    for content in (
        b"#EXTM3U\n#EXTINF:1,\ntone.aac\n",
        b"ffconcat version 1.0\nfile 'tone.aac'\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
    ):
        with pytest.raises(AudioError, match="not audio"):
            decode(save(tmp_path, "list.m4a", content))


def test_ffmpeg_says_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(encode_av("aac.m4a", 0.5))
    content[200:260] = b"\x55" * 60
    with pytest.raises(AudioError):
        decode(bytes(content[:-1]))
        decode(bytes(content))
        raise AudioError("also fine: decoded")
    assert capfd.readouterr().err == ""


def test_many_channels() -> None:
    """In a process of its own: more than eight planes make PyAV read where nothing is."""
    code = (
        "import numpy as np\n"
        "from audio_files import decode, wav\n"
        "content = bytearray(wav(np.ones(6000, '<f4').tobytes(), bits=32, codec=3))\n"
        "content[22] = 47  # channels, of frames that are said to have 4 bytes: libsndfile refuses it\n"
        "waveform = decode(bytes(content))\n"
        "assert len(waveform) == 6000 // 47, len(waveform)\n"
        "np.testing.assert_allclose(waveform, 1)\n"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", AV_FORMATS)
def test_mutations_are_decoded_or_refused(name: str) -> None:
    done = run_python(MUTATIONS, name, "150")
    assert done.returncode == 0, done.stderr[-3000:]
    decoded, refused = map(int, done.stdout.split())
    assert decoded > 0 and refused > 0


def test_tracks() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        streams = [output.add_stream("pcm_s16le", rate=48000, layout="mono") for _ in range(2)]
        for stream, level in zip(streams, (1000, 2000), strict=True):
            frame = av.AudioFrame.from_ndarray(np.full((1, 4800), level, np.int16), format="s16", layout="mono")
            frame.sample_rate = 48000
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    content = buffer.getvalue()
    np.testing.assert_allclose(decode(content), 1000 / 32768)
    np.testing.assert_allclose(decode(content, track=1), 2000 / 32768)
    with pytest.raises(AudioError, match="has no audio track 2; its tracks are 0 to 1"):
        decode(content, track=2)
