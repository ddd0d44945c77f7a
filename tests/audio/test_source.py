"""Sources of every kind: paths, bytes, file objects, arrays and tensors; and what is none."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audio_files import decode, encode, samples, save, wav

from vggish_pt.audio import display_name, open_audio
from vggish_pt.errors import AudioError, AudioWarning, SettingsError

PCM = samples(5000)
CONTENT = encode("s16.wav", PCM)
EXPECTED = PCM[0] / 32768


# Paths


@pytest.mark.parametrize(
    "name",
    [
        "plain.wav",
        "with space.wav",
        "ünïcödé 音声.wav",
        "sound.raw",
        "sound.RAW",
        "no ending",
        "-",
        "$HOME;`x`.wav",
        "new\nline.wav",
        "wrong.mp3",
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_paths(tmp_path: Path, name: str, kind: type) -> None:
    path = save(tmp_path, name, CONTENT)
    with open_audio(kind(path)) as audio:
        assert audio.name == str(path).replace("\n", "\\n")
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks())), EXPECTED)


def test_path_that_is_no_unicode(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    try:
        Path(os.fsdecode(path)).write_bytes(CONTENT)
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    with open_audio(os.fsdecode(path)) as audio:
        assert audio.name == f"{tmp_path}/caf\\xe9.wav"
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks())), EXPECTED)


def test_links(tmp_path: Path) -> None:
    path = save(tmp_path, "sound.wav", CONTENT)
    link = tmp_path / "link"
    link.symlink_to(path)
    np.testing.assert_array_equal(decode(link), EXPECTED)
    path.unlink()
    with pytest.raises(AudioError, match=f"^{link}: no such file$"):
        decode(link)


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "sound.wav", CONTENT)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(decode("./sound.wav"), EXPECTED)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.wav", "no such file"),
        ("", "is a folder"),
        (".", "is a folder"),
        ("x" * 5000, "cannot be opened"),
        ("a\0b.wav", "cannot be opened"),
        ("\ud800.wav", "cannot be opened"),
        ("https://example.org/a.wav", "addresses are not fetched, download the file first"),
        ("/dev/null", "is no regular file"),
        ("sound.wav/inside", "cannot be opened"),
    ],
)
def test_bad_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str) -> None:
    save(tmp_path, "sound.wav", CONTENT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError, match=message) as caught:
        decode(path)
    assert str(caught.value).startswith(f"{display_name(path)}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.source == display_name(path)


def test_pipe_by_name_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(AudioError, match="is no regular file; save the audio to a file first"):
        decode(path)


def test_no_permission(tmp_path: Path) -> None:
    path = save(tmp_path, "sound.wav", CONTENT)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:  # root may read anything, so be someone else for a moment
        for folder in (tmp_path, *tmp_path.parents):
            if "pytest" in str(folder):
                folder.chmod(0o711)
        os.seteuid(65534)
    try:
        with pytest.raises(AudioError, match="cannot be opened"):
            decode(path)
    finally:
        if root:
            os.seteuid(0)


# Bytes and file objects


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: memoryview(bytearray(b * 2))[: len(b)]])
def test_bytes(kind: Any) -> None:
    with open_audio(kind(CONTENT)) as audio:
        assert audio.name == "bytes"
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks())), EXPECTED)


@pytest.mark.parametrize("name", ["s16.wav", "free.flac", "vorbis.ogg", "opus.opus", "layer3.mp3", "large.rf64"])
def test_file_object_at_an_offset(name: str) -> None:
    content = encode(name, PCM, 48000)
    file = io.BytesIO(b"something else" + content)
    file.seek(14)
    np.testing.assert_array_equal(decode(file), decode(content))
    assert not file.closed


def test_file_objects(tmp_path: Path) -> None:
    path = save(tmp_path, "sound.wav", CONTENT)
    with path.open("rb") as file, open_audio(file) as audio:
        assert audio.name == str(path)
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks())), EXPECTED)
    with path.open("rb", buffering=0) as raw:
        np.testing.assert_array_equal(decode(raw), EXPECTED)
    with tempfile.TemporaryFile() as numbered:  # its name is a number
        numbered.write(CONTENT)
        numbered.seek(0)
        np.testing.assert_array_equal(decode(numbered), EXPECTED)
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(CONTENT)
        spooled.seek(0)
        np.testing.assert_array_equal(decode(spooled), EXPECTED)
    archive = tmp_path / "sounds.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as output:
        output.writestr("sound.wav", CONTENT)
    with zipfile.ZipFile(archive) as zipped, zipped.open("sound.wav") as member:
        np.testing.assert_array_equal(decode(member), EXPECTED)


def test_pipe() -> None:
    cat = shutil.which("cat")
    if cat is None:
        pytest.skip("no cat")
    with subprocess.Popen([cat], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(CONTENT)
        process.stdin.close()
        np.testing.assert_array_equal(decode(process.stdout), EXPECTED)


def test_text_mode(tmp_path: Path) -> None:
    path = save(tmp_path, "sound.wav", CONTENT)
    with path.open(encoding="latin-1") as file, pytest.raises(SettingsError, match="open it in binary mode"):
        decode(file)
    with pytest.raises(SettingsError, match="binary mode"):
        decode(io.StringIO("RIFF"))


def test_closed_and_odd_file_objects() -> None:
    closed = io.BytesIO(CONTENT)
    closed.close()
    with pytest.raises(AudioError, match="file object: the file object cannot be read"):
        decode(closed)

    class Odd:
        def read(self) -> bytes:
            return CONTENT

    with pytest.raises(AudioError, match="cannot be read"):
        decode(Odd())


def test_name_is_used() -> None:
    with pytest.raises(AudioError, match=r"^input 3: the file is empty") as caught:
        decode(b"", name="input 3")
    assert caught.value.source == "input 3"


@pytest.mark.parametrize("source", [3, 2.5, None, {"a": 1}, [0.1, 0.2], object(), torch.float32, torch])
def test_no_source(source: Any) -> None:
    with pytest.raises(SettingsError, match="give a path, bytes, a binary file object, an array or a tensor"):
        open_audio(source)


def test_sample_rate_is_for_arrays(tmp_path: Path) -> None:
    path = save(tmp_path, "sound.wav", CONTENT)
    for source in (path, CONTENT, io.BytesIO(CONTENT)):
        with pytest.raises(SettingsError, match="a file has its own, so leave it out"):
            open_audio(source, 16000)


# Arrays and tensors

FLOATS = np.random.default_rng(2).uniform(-1, 1, (2, 3000))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4", ">f8"])
def test_float_arrays(dtype: Any) -> None:
    array = FLOATS.astype(dtype)
    np.testing.assert_array_equal(decode(array, 16000), array.astype(np.float64).mean(axis=0))
    np.testing.assert_array_equal(decode(array[1], 16000), array[1].astype(np.float64))


@pytest.mark.parametrize(
    ("dtype", "offset", "scale"),
    [("i1", 0, 128), ("<i2", 0, 32768), (">i2", 0, 32768), ("i4", 0, 2**31), ("u1", 128, 128)],
)
def test_integer_arrays(dtype: str, offset: int, scale: int) -> None:
    info = np.iinfo(dtype)
    array = np.array([info.min, info.min + 1, offset, info.max], dtype=dtype)
    expected = (array.astype(np.float64) - offset) / scale
    np.testing.assert_array_equal(decode(array, 8000), expected)
    assert expected.min() == -1 and expected.max() < 1


@pytest.mark.parametrize(
    "array",
    [
        FLOATS[:, ::2],
        FLOATS[:, ::-1],
        np.asfortranarray(FLOATS),
        np.broadcast_to(FLOATS[:1], (5, 3000)),
        np.ma.masked_array(FLOATS),
    ],
    ids=["strided", "reversed", "fortran", "broadcast", "masked"],
)
def test_memory_layouts(array: np.ndarray) -> None:
    np.testing.assert_allclose(decode(array, 16000), np.asarray(array).mean(axis=0), rtol=0, atol=1e-15)


def test_read_only_array_is_left_alone() -> None:
    array = samples(1000).astype(np.uint8)
    array.flags.writeable = False
    before = array.copy()
    decode(array, 16000)
    np.testing.assert_array_equal(array, before)


def test_blocks_do_not_share_memory() -> None:
    array = FLOATS[0].copy()
    with open_audio(array, 16000) as audio:
        for block in audio.blocks():
            block[:] = 7
    np.testing.assert_array_equal(array, FLOATS[0])


def test_long_array_comes_in_blocks() -> None:
    array = np.zeros((2, 1_000_000), np.int8)
    with open_audio(array, 44100) as audio:
        assert (audio.frames, audio.channels, audio.container, audio.encoding) == (1_000_000, 2, "array", "int8")
        assert {len(block) for block in audio.blocks()} == {1 << 17, 1_000_000 % (1 << 17)}
        assert audio.decoded == 1_000_000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_tensors(dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(FLOATS).to(dtype)
    expected = tensor.double().mean(0).numpy()
    np.testing.assert_array_equal(decode(tensor, 16000), expected)
    np.testing.assert_array_equal(decode(tensor.requires_grad_(), 16000), expected)
    np.testing.assert_array_equal(decode(torch.nn.Parameter(tensor), 16000), expected)
    np.testing.assert_array_equal(decode(tensor.T.contiguous().T, 16000), expected)


def test_other_tensors() -> None:
    np.testing.assert_array_equal(decode(torch.from_numpy(PCM), 16000), EXPECTED)
    negative = torch.view_as_complex(torch.from_numpy(FLOATS.T.copy())).conj().imag  # lazily negated
    np.testing.assert_array_equal(decode(negative, 16000), -FLOATS[1])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(100, dtype=torch.int64),
        torch.zeros(100, dtype=torch.bool),
        torch.zeros(100, dtype=torch.complex64),
        torch.zeros(100, device="meta"),
        torch.zeros(100).to_sparse(),
        torch.zeros(1, 2, 100),
        torch.tensor(0.5),
    ],
    ids=["int64", "bool", "complex", "meta", "sparse", "3-d", "0-d"],
)
def test_unfit_tensors(tensor: torch.Tensor) -> None:
    with pytest.raises(SettingsError) as caught:
        open_audio(tensor, 16000)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", ["i8", "u2", "u4", "u8", "c8", "c16", "?", "O", "U3", "S3", "M8[s]", "V4", "f4,f4"])
def test_unfit_dtypes(dtype: str) -> None:
    with pytest.raises(SettingsError, match="array: arrays must be floating point in"):
        open_audio(np.zeros(100, dtype), 16000)


@pytest.mark.parametrize("shape", [(), (1, 1, 100), (2, 3, 4, 5)])
def test_unfit_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match=r"must be \(T,\) or \(channels, T\)"):
        open_audio(np.zeros(shape), 16000)


@pytest.mark.parametrize("shape", [(44100, 2), (1000, 1), (100_000, 6)])
def test_transposed(shape: tuple[int, int]) -> None:
    with pytest.raises(SettingsError, match="pass its transpose"):
        open_audio(np.zeros(shape), 16000)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (2, 0), (0, 5), (0, 0)])
def test_empty_arrays(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match=r"^array: no samples in it; the audio is empty$"):
        decode(np.zeros(shape), 16000)


def test_smallest_arrays() -> None:
    assert decode(np.full(1, 0.5), 16000).tolist() == [0.5]
    assert decode(np.full((2, 1), 0.5), 16000).tolist() == [0.5]
    assert len(decode(np.zeros((200, 300)), 16000)) == 300


@pytest.mark.parametrize(
    "rate", [None, 0, -16000, 44100.5, float("nan"), float("inf"), "16000", "fast", 1j, [16000], np.array([1, 2])]
)
def test_unfit_rates(rate: Any) -> None:
    with pytest.raises(SettingsError, match=r"sample rate|sample_rate"):
        open_audio(np.zeros(100), rate)


@pytest.mark.parametrize("rate", [44100, 44100.0, np.int32(44100), np.float32(44100), np.array(44100)])
def test_rates(rate: Any) -> None:
    with open_audio(np.zeros(100), rate) as audio:
        assert audio.sample_rate == 44100 and type(audio.sample_rate) is int


@pytest.mark.parametrize("rate", [1, 249, 3_072_001, 2**31 - 1, 10**30])
def test_rates_without_meaning(rate: int) -> None:
    with pytest.raises(AudioError, match=f"^array: a sample rate of {rate} Hz; it must be from 250 Hz"):
        open_audio(np.zeros(100), rate)


def test_too_many_channels() -> None:
    with pytest.raises(AudioError, match="1025 channels; there must be from 1 to 1024"):
        open_audio(np.zeros((1025, 2000)), 16000)


# Values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [0, 200_000, 399_999])
def test_non_finite(value: float, at: int) -> None:
    data = np.zeros((400_000, 2), "<f4")
    data[at, 1] = value
    data[-1, 1] = value
    where = rf"a sample that is {value} at {at / 8000:.6f} s \(sample {at}, channel 1\); audio must be finite$"
    with pytest.raises(AudioError, match=f"^bytes: {where}"):
        decode(wav(data.tobytes(), rate=8000, channels=2, bits=32, codec=3))
    with pytest.raises(AudioError, match=f"^array: {where}"):
        decode(data.T, 8000)


def test_overflow_of_half_precision() -> None:
    with pytest.raises(AudioError, match="a sample that is inf"):
        decode(torch.full((10,), 1e6).half(), 16000)


def test_beyond_all_measure() -> None:
    with pytest.raises(AudioError, match=r"samples reach 1e\+30, but full scale is 1"):
        decode(np.full(100, 1e30), 16000)


def test_integers_cast_to_float_are_warned_about_once() -> None:
    with pytest.warns(AudioWarning, match="samples reach .*divided by their full scale") as warned:
        waveform = decode(np.tile(PCM[0].astype(float), 100), 16000)
    assert len(warned) == 1 and len(waveform) == 500_000


def test_overshoot_and_silence_are_fine() -> None:
    assert decode(np.array([1.5, -2.0]), 16000).tolist() == [1.5, -2.0]
    assert not decode(np.zeros(1000), 16000).any()
    assert not decode(encode("free.flac", np.zeros((1, 1000), np.int16))).any()


def test_closing() -> None:
    file = io.BytesIO(CONTENT)
    audio = open_audio(file)
    audio.close()
    audio.close()
    assert not file.closed


def test_no_file_stays_open(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no /proc")
    good = save(tmp_path, "good.wav", CONTENT)
    bad = save(tmp_path, "bad.wav", b"RIFFabcdWAVEnothing more")
    slow = save(tmp_path, "slow.wav", wav(bytes(100), rate=1))
    decode(good)
    before = len(list(folder.iterdir()))
    for path in (good, bad, slow) * 5:
        try:
            decode(path)
        except AudioError:
            continue
    assert len(list(folder.iterdir())) == before


# Rows of the library datasets, and arrays that are probably mistaken


def test_rows_of_datasets(tmp_path: Path) -> None:
    path = save(tmp_path, "sound.wav", CONTENT)
    for row in (
        {"bytes": CONTENT, "path": "a.wav"},
        {"bytes": None, "path": str(path)},
        {"path": str(path), "array": EXPECTED, "sampling_rate": 16000},
        {"array": EXPECTED.tolist(), "sampling_rate": 16000},
    ):
        np.testing.assert_array_equal(decode(row), EXPECTED)
    with open_audio({"bytes": CONTENT, "path": "a.wav"}) as audio:
        assert audio.name == "a.wav"
    with pytest.raises(SettingsError, match="sample_rate is 8000, but the row says 16000"):
        open_audio({"array": EXPECTED, "sampling_rate": 16000}, 8000)
    for row in ({}, {"bytes": None, "path": None}, {"text": "x"}):
        with pytest.raises(SettingsError, match="no row of datasets with an 'array', 'bytes' or a 'path'"):
            open_audio(row)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (PCM.astype(np.int32), "look like values of int16"),
        (PCM[0] / 32768 / 32768, "divided by their full scale twice"),
        (np.stack([EXPECTED, -EXPECTED]), "the channels cancel each other"),
        (np.ones((32, 16000)) / 2, "32 channels are averaged; if they are 32 clips, pass a list"),
    ],
    ids=["int32", "twice", "cancel", "batch"],
)
def test_arrays_that_are_probably_mistaken(array: np.ndarray, message: str) -> None:
    with pytest.warns(AudioWarning, match=f"^array: .*{message}") as warned:
        decode(array, 16000)
    assert len(warned) == 1


def test_arrays_that_are_fine() -> None:
    for array in (
        PCM.astype(np.int32) << 16,
        EXPECTED / 100,
        np.stack([EXPECTED, EXPECTED * 0.5]),
        np.stack([EXPECTED, -EXPECTED * 0.9]),
        np.zeros((2, 1000)),
    ):
        decode(array, 16000)
