"""Streams of pieces against one call on the whole."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggish_pt.audio.resample import ResamplerName, check_resampler, make_resampler, require_resampler
from vggish_pt.errors import MissingDependencyError, SettingsError

RATES = (8000, 11025, 22050, 32000, 44100, 48000, 96000, 44101)
NOISE = np.random.default_rng(1).standard_normal(400_000)


def library(name: str) -> ModuleType:
    """Where torchaudio is of another build than torch, importing it raises all sorts of errors."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"{name} cannot be imported ({str(error).splitlines()[0]})")


def stream(waveform: np.ndarray, rate: int, name: ResamplerName, cuts: list[int]) -> np.ndarray:
    resampler = make_resampler(rate, name)
    pieces = np.split(waveform, sorted(min(cut, len(waveform)) for cut in cuts))
    return np.concatenate([*(resampler.push(piece) for piece in pieces), resampler.flush()])


CUTTINGS = st.lists(st.integers(0, 250_000), max_size=6)


@pytest.mark.parametrize("rate", RATES)
@given(length=st.integers(1, 250_000), cuts=CUTTINGS)
@settings(deadline=None, max_examples=15)
def test_soxr(rate: int, length: int, cuts: list[int]) -> None:
    import soxr

    expected = soxr.resample(NOISE[:length], rate, 16000, quality="HQ")
    np.testing.assert_array_equal(stream(NOISE[:length], rate, "soxr", cuts), expected)


@pytest.mark.parametrize("rate", RATES)
@given(length=st.integers(100, 250_000), cuts=CUTTINGS)
@settings(deadline=None, max_examples=3)
def test_resampy(rate: int, length: int, cuts: list[int]) -> None:
    resampy = library("resampy")
    expected = resampy.resample(NOISE[:length], rate, 16000, filter="kaiser_best")
    np.testing.assert_allclose(stream(NOISE[:length], rate, "resampy", cuts), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rate", [rate for rate in RATES if rate != 44101])
@given(length=st.integers(1, 250_000), cuts=CUTTINGS)
@settings(deadline=None, max_examples=6)
def test_torchaudio(rate: int, length: int, cuts: list[int]) -> None:
    functional = library("torchaudio").functional
    import torch

    expected = functional.resample(torch.from_numpy(NOISE[:length]), rate, 16000).numpy()
    np.testing.assert_allclose(stream(NOISE[:length], rate, "torchaudio", cuts), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["resampy", "torchaudio"])
@pytest.mark.parametrize("rate", [22050, 44100, 48000])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_lengths_around_block_edges(name: ResamplerName, rate: int, extra: int) -> None:
    module = library(name)
    period = rate // np.gcd(rate, 16000)
    length = (1 << 16) // period * period * 2 + extra
    for context in (0, 64 * rate // 16000 // period * period + period):
        waveform = NOISE[: length + context]
        if name == "resampy":
            expected = module.resample(waveform, rate, 16000, filter="kaiser_best")
        else:
            import torch

            expected = module.functional.resample(torch.from_numpy(waveform), rate, 16000).numpy()
        np.testing.assert_allclose(stream(waveform, rate, name, []), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["soxr", "resampy", "torchaudio"])
def test_nothing_to_do_at_16_khz(name: ResamplerName) -> None:
    """Not even the library is needed."""
    np.testing.assert_array_equal(stream(NOISE[:1000], 16000, name, [300, 301]), NOISE[:1000])


@pytest.mark.parametrize("name", ["soxr", "resampy"])
@pytest.mark.parametrize("rate", [8000, 44100, 3_071_999])
def test_next_to_nothing(name: ResamplerName, rate: int) -> None:
    library(name)
    assert len(stream(NOISE[:0], rate, name, [])) == 0
    assert len(stream(NOISE[:1], rate, name, [])) <= 2


def test_tones_keep_frequency_and_level() -> None:
    t = np.arange(96_000) / 48_000
    resampled = stream(np.sin(2 * np.pi * 1000 * t), 48_000, "soxr", [])
    expected = np.sin(2 * np.pi * 1000 * np.arange(32_000) / 16_000)
    np.testing.assert_allclose(resampled[200:-200], expected[200:-200], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["resampy", "torchaudio"])
def test_missing(name: ResamplerName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: require_resampler(name), lambda: make_resampler(44100, name)):
        with pytest.raises(MissingDependencyError, match=f'resampler="{name}" needs {name}') as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    require_resampler("soxr")


def test_torchaudio_refuses_filters_of_gigabytes() -> None:
    library("torchaudio")
    with pytest.raises(SettingsError, match='use resampler="soxr"'):
        make_resampler(44101, "torchaudio")


@pytest.mark.parametrize("name", ["", "SOXR", "librosa", None])
def test_no_resampler(name: str) -> None:
    with pytest.raises(SettingsError, match="resampler must be 'soxr', 'resampy' or 'torchaudio'"):
        check_resampler(name)
    with pytest.raises(SettingsError):
        make_resampler(44100, name)  # type: ignore[arg-type]
