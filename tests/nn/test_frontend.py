from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from vggish_pt import SettingsError
from vggish_pt.nn.frontend import LogMel, hann_window, mel_matrix


def test_mel_bands_are_triangles_in_mel():
    # librosa's HTK filters are linear in hertz; these peak at the same places and differ between them.
    ours = mel_matrix()
    theirs = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=64, fmin=125, fmax=7500, htk=True, norm=None).T
    assert ours.shape == theirs.shape == (257, 64)
    assert np.abs(ours - theirs).max() < 0.06
    assert np.abs(ours - theirs).max() > 1e-3  # so it is no hertz-linear triangle
    assert ours.min() == 0
    assert not ours[0].any()


def test_hann_is_periodic():
    window = hann_window()
    assert window[0] == 0
    assert window[200] == 1
    np.testing.assert_allclose(window[1:], window[1:][::-1], atol=1e-15)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (15_600, 96)])
def test_frames_are_not_padded(samples, frames):
    assert LogMel().log_mel(torch.zeros(samples)).shape == (frames, 64)


def test_silence_is_the_log_of_the_offset():
    assert torch.equal(LogMel()(torch.zeros(15_600)), torch.full((1, 96, 64), float(np.log(0.01))))


def test_batches_equal_single_waveforms():
    waveforms = torch.randn(2, 3, 40_000, dtype=torch.float64) * 0.1
    frontend = LogMel()
    batch = frontend(waveforms, hop=0.5)
    assert batch.shape == (2, 3, 4, 96, 64)
    for i in range(2):
        for j in range(3):
            assert torch.equal(batch[i, j], frontend(waveforms[i, j], hop=0.5))


def test_an_empty_batch():
    assert LogMel()(torch.zeros(0, 40_000)).shape == (0, 2, 96, 64)
    assert LogMel().log_mel(torch.zeros(2, 0, 800)).shape == (2, 0, 3, 64)


def test_windows_start_every_hop():
    waveform = torch.randn(48_000, dtype=torch.float64)
    frontend = LogMel()
    spectrogram = frontend.log_mel(waveform)
    windows = frontend(waveform, hop=0.07)
    assert len(windows) == 1 + (len(spectrogram) - 96) // 7
    for i, window in enumerate(windows):
        assert torch.equal(window, spectrogram[7 * i : 7 * i + 96])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_float_type_gives_float32(dtype):
    assert LogMel()(torch.zeros(16_000, dtype=dtype)).dtype == torch.float32


def test_float32_is_close_to_float64():
    waveform = torch.randn(32_000) * 0.1
    difference = (LogMel(torch.float32)(waveform) - LogMel(torch.float64)(waveform)).abs().max()
    assert 0 < difference < 5e-4  # the bound that golden/README.md gives


def test_gradients_reach_the_waveform():
    generator = torch.Generator().manual_seed(1)
    waveform = (torch.randn(800, dtype=torch.float64, generator=generator) * 0.1).requires_grad_()
    weights = torch.randn(3, 64, generator=generator)
    frontend = LogMel()

    def loss(x):
        return (frontend.log_mel(x).double() * weights).sum()

    loss(waveform).backward()
    # The steepest direction: the result is float32, whose rounding would drown the change in most others.
    direction = waveform.grad / waveform.grad.norm()
    step = 1e-4
    with torch.no_grad():
        numeric = (loss(waveform + step * direction) - loss(waveform - step * direction)) / (2 * step)
    assert torch.isclose(waveform.grad.norm(), numeric, rtol=1e-3)


def test_gradients_of_silence_are_finite():
    waveform = torch.zeros(15_600, requires_grad=True)
    LogMel()(waveform).sum().backward()
    assert torch.isfinite(waveform.grad).all()


def test_casting_a_module_loses_no_precision():
    waveform = torch.randn(16_000, dtype=torch.float64)
    frontend = LogMel()
    assert torch.equal(frontend(waveform), frontend.half().float()(waveform))


def test_no_state():
    assert LogMel().state_dict() == {}


@pytest.mark.parametrize("bad", [torch.zeros(16_000, dtype=torch.int16), torch.tensor(1.0), np.zeros(16_000), None])
def test_wrong_waveforms_are_refused(bad):
    with pytest.raises(SettingsError, match="floating-point tensor"):
        LogMel()(bad)


@pytest.mark.parametrize("hop", [0, -0.96, 0.005, 0.965, float("nan"), float("inf"), "a", None, 1e9])
def test_wrong_hops_are_refused(hop):
    with pytest.raises(SettingsError, match="hop must be"):
        LogMel()(torch.zeros(16_000), hop=hop)


def test_wrong_dtype_is_refused():
    with pytest.raises(SettingsError, match="dtype"):
        LogMel(torch.float16)
