"""Streams from file objects: WAV and raw samples as they arrive, and how they end."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile as sf
import torch

from vggish_pt.errors import AudioError, AudioWarning, SettingsError
from vggish_pt.inference import EmbedSettings, stream_file

SAMPLES = (np.random.default_rng(5).standard_normal(16_000 * 3) * 3000).astype("<i2")


class Pipe(io.RawIOBase):
    """A file object that cannot seek and returns a few bytes at a time."""

    def __init__(self, data: bytes, size: int = 7_001) -> None:
        self.data, self.size, self.reads = data, size, 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        piece, self.data = self.data[: self.size], self.data[self.size :]
        return piece


def _joined(results):
    results = list(results)
    assert all(len(result) for result in results)
    return torch.cat([r.values for r in results]), torch.cat([r.start for r in results])


def test_raw_samples_equal_embed(small_model):
    settings = EmbedSettings(hop=0.5, pad="tail")
    values, start = _joined(stream_file(small_model, Pipe(SAMPLES.tobytes()), settings, sample_rate=16_000))
    expected = small_model.embed(SAMPLES, 16_000, hop=0.5, pad="tail")
    assert torch.allclose(values, expected.values, atol=5e-5)
    assert torch.equal(start, expected.start)


def test_a_wav_equals_embed(small_model, tmp_path):
    sf.write(tmp_path / "a.wav", np.stack([SAMPLES, SAMPLES[::-1]], axis=1), 44_100, subtype="PCM_16")
    data = (tmp_path / "a.wav").read_bytes()
    values, start = _joined(stream_file(small_model, Pipe(data, 11)))
    expected = small_model.embed(tmp_path / "a.wav")
    assert torch.allclose(values, expected.values, atol=2e-4)
    assert torch.equal(start, expected.start)


def test_windows_come_before_the_end_is_read(small_model):
    pipe = Pipe(SAMPLES.tobytes())
    results = stream_file(small_model, pipe, sample_rate=16_000)
    assert next(results).start.tolist() == [0.0]
    assert len(pipe.data) > 0
    results.close()


def test_an_interrupted_stream_keeps_what_was_read(small_model):
    # 31,201 bytes are a window of 15,600 samples and half a sample, which is not reported.
    pipe = Pipe(SAMPLES.tobytes(), 31_201)

    def wait(read):
        return read() if pipe.reads == 0 else None

    values, _ = _joined(stream_file(small_model, pipe, sample_rate=16_000, wait=wait))  # a warning would be an error
    assert torch.allclose(values, small_model.embed(SAMPLES[:15_600], 16_000).values, atol=5e-5)
    for rate in (None, 16_000):  # before any sound
        assert list(stream_file(small_model, Pipe(b"RIFF"), sample_rate=rate, wait=lambda read: None)) == []


def test_ends_that_are_reported(small_model):
    with pytest.warns(AudioWarning, match="file object: the last 1 bytes are no whole sample"):
        list(stream_file(small_model, Pipe(SAMPLES.tobytes()[:-1]), sample_rate=16_000))
    for data, rate, reason in ((b"", 16_000, "empty"), (b"", None, "empty"), (b"RIFF", None, "within its header")):
        with pytest.raises(AudioError, match=f"pipe: .*{reason}"):
            list(stream_file(small_model, Pipe(data), sample_rate=rate, name="pipe"))
    with pytest.raises(SettingsError, match="encoding"):
        list(stream_file(small_model, Pipe(b""), sample_rate=16_000, encoding="s16"))


def test_a_file_object_that_cannot_be_read(small_model):
    class Broken(Pipe):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(AudioError, match="file object: cannot be read \\(Input/output error\\)"):
        list(stream_file(small_model, Broken(b""), sample_rate=16_000))
