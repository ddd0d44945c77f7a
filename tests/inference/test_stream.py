"""Streams against ``embed`` of the whole, however the sound is cut, and across a saved state."""

from __future__ import annotations

import io
import re
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from snippets import make_workplace

from vggish_pt import (
    AudioError,
    AudioWarning,
    EmbeddingStream,
    SettingsError,
    VGGish,
    VGGishConfig,
    WeightsError,
    push_many,
)
from vggish_pt.inference.embeddings import Embeddings
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.streaming import StreamingLogMel

RATES = (8_000, 22_050, 44_100, 48_000, 96_000)


def sound(rng: np.random.Generator, shape: int | tuple[int, ...]) -> np.ndarray:
    """Noise whose level changes, so that windows differ."""
    length = shape if isinstance(shape, int) else shape[-1]
    return rng.standard_normal(shape) * np.repeat(rng.uniform(0.001, 0.3, length // 1000 + 1), 1000)[:length]


def cutting(rng: np.random.Generator, length: int, rate: int) -> list[int]:
    """Where chunks end: each cutting has a scale of its own, from a sample to 10 s; a few chunks are empty."""
    scale = 10 ** rng.uniform(0, np.log10(10 * rate))
    sizes = np.maximum(0, rng.exponential(scale, 400)).astype(int).clip(0, 10 * rate)
    ends = np.cumsum(sizes)
    return [int(end) for end in ends[ends < length]]


def gather(parts: list[Embeddings]) -> Embeddings:
    return Embeddings(*(torch.cat([getattr(part, field) for part in parts]) for field in ("values", "start", "end")))


def streamed(stream: EmbeddingStream, chunks: list[Any]) -> Embeddings:
    with stream:
        return gather([*(stream.push(chunk) for chunk in chunks), stream.flush()])


def assert_same(result: Embeddings, expected: Embeddings, tolerance: float) -> None:
    assert result.values.dtype == expected.values.dtype
    torch.testing.assert_close(result.values, expected.values, rtol=0, atol=tolerance)
    assert torch.equal(result.start, expected.start)
    assert torch.equal(result.end, expected.end)


def saved(state: Any) -> Any:
    """A state through a file, without pickle."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **state)
    file.seek(0)
    return np.load(file, allow_pickle=False)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Chunks are small: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def narrow_model() -> VGGish:
    """Random weights with embeddings of the size of real ones, quick to compute."""
    torch.manual_seed(3)
    model = VGGish(VGGishConfig(fc_width=8)).eval()
    with torch.no_grad():
        model.network.embedding.weight *= 10
    return model


def test_200_cuttings_give_the_same_log_mel(rng: np.random.Generator) -> None:
    waveform = sound(rng, 16_000 * 4)
    for hop in (0.96, 0.1):
        expected = LogMel()(torch.from_numpy(waveform), hop)
        for _ in range(100):
            stream = StreamingLogMel(LogMel(), hop, "drop")
            pieces = np.split(waveform, cutting(rng, len(waveform), 16_000))
            windows = torch.cat([*(stream.push(piece) for piece in pieces), stream.flush()])
            assert (windows - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("pad", ["short", "drop", "tail"])
def test_any_cutting_equals_the_whole(narrow_model: VGGish, rng: np.random.Generator, pad: str) -> None:
    for length in (1, 8_000, 15_600, 40_000, 70_123):
        samples = sound(rng, length)
        for hop in (0.25, 0.96, 1.5):
            expected = narrow_model.embed(samples, sample_rate=16_000, hop=hop, pad=pad)
            chunks = np.split(samples, cutting(rng, length, 16_000))
            stream = narrow_model.stream(16_000, hop=hop, pad=pad)
            assert_same(streamed(stream, chunks), expected, 5e-5)


@pytest.mark.parametrize("rate", [16_000, *RATES, 44_101])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channels(narrow_model: VGGish, rng: np.random.Generator, rate: int, channels: int) -> None:
    samples = (sound(rng, (channels, int(rate * 2.7))) * 32767).clip(-32768, 32767).astype(np.int16)
    expected = narrow_model.embed(samples, sample_rate=rate, pad="tail")
    for _ in range(3):
        chunks = np.split(samples, cutting(rng, samples.shape[1], rate), axis=1)
        assert_same(streamed(narrow_model.stream(rate, pad="tail"), chunks), expected, 2e-4)


@pytest.mark.parametrize("rate", [16_000, *RATES])
def test_golden_weights(golden_model: VGGish, rng: np.random.Generator, rate: int) -> None:
    samples = sound(rng, (2, int(rate * 3.2)))
    expected = golden_model.embed(samples, sample_rate=rate)
    chunks = np.split(samples, cutting(rng, samples.shape[1], rate), axis=1)
    assert_same(streamed(golden_model.stream(rate), chunks), expected, 5e-5 if rate == 16_000 else 2e-4)


@pytest.mark.parametrize("resampler", ["resampy", "torchaudio"])
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_resamplers(narrow_model: VGGish, rng: np.random.Generator, resampler: str, rate: int) -> None:
    try:
        __import__(resampler)
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"{resampler} cannot be imported ({str(error).splitlines()[0]})")
    samples = sound(rng, int(rate * 2.3))
    expected = narrow_model.embed(samples, sample_rate=rate, resampler=resampler)
    stream = narrow_model.stream(rate, resampler=resampler)
    parts = []
    for chunk in np.split(samples, [1, 700, 9_000, 15_000]):
        parts.append(stream.push(chunk))
        stream = narrow_model.stream(rate, resampler=resampler, state=saved(stream.state()))
    assert_same(gather([*parts, stream.flush()]), expected, 2e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"layer": "conv4"},
        {"layer": "fc1"},
        {"layer": "fused"},
        {"postprocess": "pca"},
        {"postprocess": "uint8"},
        {"batch_size": 1},
    ],
    ids=str,
)
def test_settings_of_embed(small_model: VGGish, rng: np.random.Generator, settings: dict[str, Any]) -> None:
    samples = sound(rng, 40_000)
    expected = small_model.embed(samples, sample_rate=16_000, **settings)
    result = streamed(small_model.stream(16_000, **settings), [samples[:5], samples[5:5], samples[5:]])
    assert_same(result, expected, 1.0 if settings.get("postprocess") == "uint8" else 1e-4)


def test_a_window_comes_with_its_last_sample(narrow_model: VGGish, rng: np.random.Generator) -> None:
    samples = sound(rng, 15_600 + 15_360)
    stream = narrow_model.stream(16_000)
    assert len(stream.push(samples[:15_599])) == 0
    first = stream.push(samples[15_599:15_600])
    assert (len(first), first.start.tolist(), first.duration) == (1, [0.0], 0.975)
    assert len(stream.push(samples[15_600:-1])) == 0
    assert stream.push(samples[-1:]).start.tolist() == [0.96]


@pytest.mark.parametrize("rate", RATES)
def test_resampling_delays_a_window_by_less_than_an_eighth_of_a_second(narrow_model: VGGish, rate: int) -> None:
    stream = narrow_model.stream(rate)
    stream.push(np.zeros(-(-rate * 975 // 1000)))
    assert stream.state()["resampled"] >= 15_600 - 2_000
    assert sum(len(stream.push(np.zeros(rate // 100))) for _ in range(12)) == 1


@pytest.mark.parametrize("rate", [16_000, *RATES])
def test_saved_and_restored_at_random_points(narrow_model: VGGish, rng: np.random.Generator, rate: int) -> None:
    samples = sound(rng, (2, rate * 4))
    expected = narrow_model.embed(samples, sample_rate=rate, hop=0.3, pad="tail")
    for scale in (50, 0.1, 0.003):
        parts, largest = [], 0
        stream = narrow_model.stream(rate, hop=0.3, pad="tail")
        ends = np.cumsum(rng.exponential(scale * rate, 400)).astype(int)
        for chunk in np.split(samples, ends[ends < samples.shape[1]][:40], axis=1):
            parts.append(stream.push(chunk))
            state = stream.state()
            largest = max(largest, sum(np.asarray(value).nbytes for value in state.values()))
            stream = narrow_model.stream(rate, hop=0.3, pad="tail", state=saved(state))
            assert stream.received == state["received"]
            assert stream.channels == 2
        assert_same(gather([*parts, stream.flush()]), expected, 5e-5 if rate == 16_000 else 2e-4)
        assert largest < 130_000


def test_state_of_a_long_hop_and_of_nothing(narrow_model: VGGish, rng: np.random.Generator) -> None:
    samples = sound(rng, 100_000)
    expected = narrow_model.embed(samples, sample_rate=16_000, hop=2.5)
    stream = narrow_model.stream(16_000, hop=2.5)
    parts = []
    for chunk in np.split(samples, [0, 0, 20_000, 20_000, 39_000, 41_000]):
        stream = narrow_model.stream(16_000, hop=2.5, state=stream.state())
        parts.append(stream.push(chunk))
    assert_same(gather([*parts, stream.flush()]), expected, 5e-5)


def broken(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_states_that_do_not_fit(narrow_model: VGGish, rng: np.random.Generator, rate: int) -> None:
    stream = narrow_model.stream(rate)
    stream.push(sound(rng, rate))
    state = dict(stream.state())
    pickled = np.array([{}], dtype=object)
    for changes in (
        {"version": 2},
        {"version": [1, 1]},
        {"sample_rate": 44_100},
        {"hop_frames": 10},
        {"pad": "tail"},
        {"resampler": "resampy"},
        {"channels": 5_000},
        {"channels": -1},
        {"received": 0},
        {"received": state["received"] + 1},
        {"received": 1 << 70},
        {"received": 1.5},
        {"resampled": state["resampled"] - 200},
        {"resampled": state["resampled"] + (1 << 50)},
        {"waveform": np.zeros(500)},
        {"waveform": state["waveform"].astype(np.float32)},
        {"waveform": state["waveform"] * np.nan},
        {"waveform": pickled},
        {"frames": np.zeros((3, 64), np.float32)},
        {"frames": state["frames"].ravel()},
        {"recent": np.zeros(7)},
        {"recent": np.zeros((1, 7))},
        {"recent": None},
        {"version": None},
    ):
        with pytest.raises((SettingsError, AudioError)) as caught:
            narrow_model.stream(rate, state=broken(state, **changes))
        assert len(str(caught.value).splitlines()) == 1, changes
    for other in ({"hop": 0.5}, {"pad": "drop"}, {"resampler": "resampy"}, {"channels": 3}):
        with pytest.raises(SettingsError, match="state has"):
            narrow_model.stream(rate, state=state, **other)
    with pytest.raises(SettingsError, match="a dict"):
        narrow_model.stream(rate, state=[1])


def test_damaged_state_files(narrow_model: VGGish, rng: np.random.Generator) -> None:
    """Flipped bytes give a typed error, or, where nobody could notice, a stream."""
    stream = narrow_model.stream(48_000)
    stream.push(sound(rng, 30_000))
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **stream.state())
    for _ in range(60):
        damaged = bytearray(file.getvalue())
        damaged[rng.integers(200, len(damaged) - 2_000)] ^= 1 << int(rng.integers(8))
        archive = np.load(io.BytesIO(damaged), allow_pickle=False)
        try:
            narrow_model.stream(48_000, state=archive)
        except (SettingsError, AudioError):
            continue


def test_many_streams_share_batches(narrow_model: VGGish, rng: np.random.Generator) -> None:
    rates = [16_000, 8_000, 44_100, 48_000, 16_000, 22_050]
    hops = [0.96, 0.5, 0.96, 1.2, 0.1, 0.96]
    sounds = [sound(rng, int(rate * 2.4)) for rate in rates]
    expected = [
        narrow_model.embed(samples, sample_rate=rate, hop=hop)
        for samples, rate, hop in zip(sounds, rates, hops, strict=True)
    ]
    streams = [narrow_model.stream(rate, hop=hop) for rate, hop in zip(rates, hops, strict=True)]
    parts: list[list[Embeddings]] = [[] for _ in streams]
    passes = []
    network = narrow_model.network
    hook = network.conv1.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    for step in range(24):
        chunks = [
            samples[rate * step // 10 : rate * (step + 1) // 10] for samples, rate in zip(sounds, rates, strict=True)
        ]
        before = len(passes)
        results = push_many(zip(streams, chunks, strict=True))
        for gathered, result in zip(parts, results, strict=True):
            gathered.append(result)
        assert sum(1 for size in passes[before:] if size) <= 1
    hook.remove()
    assert max(passes) > 1
    for stream, gathered, whole in zip(streams, parts, expected, strict=True):
        gathered.append(stream.flush())
        assert_same(gather(gathered), whole, 2e-4)


def test_many_streams_of_different_layers(small_model: VGGish, rng: np.random.Generator) -> None:
    samples = sound(rng, 16_000)
    streams = [small_model.stream(16_000, **s) for s in ({}, {"layer": "fc2"}, {"postprocess": "uint8"})]
    results = push_many([(stream, samples) for stream in streams])
    assert [tuple(result.values.shape) for result in results] == [(1, 128), (1, 16), (1, 128)]
    assert push_many([]) == []


def test_push_many_takes_all_or_nothing(narrow_model: VGGish, small_model: VGGish, rng: np.random.Generator) -> None:
    good, bad = narrow_model.stream(16_000), narrow_model.stream(16_000, name="studio 2")
    with pytest.raises(AudioError, match=r"studio 2: a sample that is nan at 0.000063 s \(sample 1,"):
        push_many([(good, np.zeros(50)), (bad, np.array([0.0, np.nan]))])
    assert good.received == bad.received == 0
    with pytest.raises(SettingsError, match="each stream once"):
        push_many([(good, np.zeros(5)), (good, np.zeros(5))])
    with pytest.raises(SettingsError, match="one model"):
        push_many([(good, np.zeros(5)), (small_model.stream(16_000), np.zeros(5))])
    assert good.received == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e7])
def test_refused_chunks_change_nothing(narrow_model: VGGish, rng: np.random.Generator, value: float) -> None:
    samples = sound(rng, (2, 120_000))
    expected = narrow_model.embed(samples, sample_rate=48_000)
    stream = narrow_model.stream(48_000)
    parts = [stream.push(samples[:, :50_000])]
    bad = samples[:, 50_000:60_000].copy()
    bad[1, 123] = value
    with pytest.raises(AudioError) as caught:
        stream.push(bad)
    if value != 1e7:
        assert f"{value} at {50_123 / 48_000:.6f} s (sample 50123, channel 1)" in str(caught.value)
    assert stream.received == 50_000
    parts.append(stream.push(samples[:, 50_000:]))
    assert_same(gather([*parts, stream.flush()]), expected, 2e-4)


def test_chunks_that_are_none(narrow_model: VGGish) -> None:
    stream = narrow_model.stream(16_000)
    stream.push(np.zeros((2, 10)))
    for chunk, message in (
        (np.zeros(10), "1 channels in a stream of 2"),
        (np.zeros((3, 10)), "3 channels in a stream of 2"),
        (np.zeros((1, 2, 10)), r"must be \(T,\) or \(channels, T\)"),
        (np.zeros((2, 10), np.int64), "int64"),
        (np.zeros((2, 10), complex), "complex"),
        (b"\0\0", "not bytes"),
        ([0.0, 0.0], "not list"),
        (None, "not NoneType"),
    ):
        with pytest.raises(SettingsError, match=message):
            stream.push(chunk)
    assert stream.received == 10
    with pytest.raises(SettingsError, match="transpose"):
        narrow_model.stream(16_000).push(np.zeros((480, 2)))


def test_many_channels_a_sample_at_a_time(narrow_model: VGGish) -> None:
    """Said beforehand, 64 channels in a short chunk are not taken for a transposed array."""
    stream = narrow_model.stream(16_000, channels=64)
    stream.push(np.zeros((64, 1)))
    assert stream.received == 1


def test_tensors_and_integers(narrow_model: VGGish, rng: np.random.Generator) -> None:
    samples = (sound(rng, 16_000) * 32767).clip(-32768, 32767).astype(np.int16)
    chunks = [torch.from_numpy(samples[:5_000]), samples[5_000:10_000], samples[10_000:] / 32768]
    expected = narrow_model.embed(samples, sample_rate=16_000)
    assert_same(streamed(narrow_model.stream(16_000), chunks), expected, 5e-5)


def test_unscaled_samples_are_noticed_once(narrow_model: VGGish) -> None:
    stream = narrow_model.stream(16_000)
    with pytest.warns(AudioWarning, match="full scale is 1"):
        stream.push(np.full(100, 3000.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.push(np.full(100, 3000.0))


def test_the_end(narrow_model: VGGish) -> None:
    stream = narrow_model.stream(16_000)
    assert len(stream.flush()) == 0
    for call in (lambda: stream.push(np.zeros(10)), stream.flush, stream.state):
        with pytest.raises(SettingsError, match="has ended"):
            call()
    with narrow_model.stream(16_000) as other:
        other.push(np.zeros(10))
    with pytest.raises(SettingsError, match="has ended"):
        other.flush()


def test_a_single_sample_is_sound(narrow_model: VGGish) -> None:
    for rate in (8_000, 48_000, 768_000):
        expected = narrow_model.embed(np.array([0.5]), sample_rate=rate)
        assert_same(streamed(narrow_model.stream(rate), [np.array([0.5])]), expected, 2e-4)


def test_settings_are_checked(narrow_model: VGGish) -> None:
    for settings in ({"hop": 0.005}, {"pad": "none"}, {"layer": "conv9"}, {"resampler": "sinc"}, {"batch_size": 0}):
        with pytest.raises(SettingsError):
            narrow_model.stream(16_000, **settings)
    with pytest.raises(WeightsError, match="PCA"):
        narrow_model.stream(16_000, postprocess="pca")
    for rate in (0, -1, 16_000.5, "fast", None):
        with pytest.raises(SettingsError, match="sample_rate"):
            narrow_model.stream(rate)
    for rate, channels in ((10, 1), (10_000_000, 1), (16_000, 0), (16_000, 2_000)):
        with pytest.raises(AudioError):
            narrow_model.stream(rate, channels=channels)
    for channels in ("two", 2.0, True):
        with pytest.raises(SettingsError, match="channels"):
            narrow_model.stream(16_000, channels=channels)
    assert "0 windows" in repr(narrow_model.stream(16_000))


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_an_hour_in_constant_memory_with_exact_times(narrow_model: VGGish, rng: np.random.Generator, rate: int) -> None:
    chunk = sound(rng, rate * 10).astype(np.float32)
    stream = narrow_model.stream(rate, hop=60.0)
    starts, sizes = [], []
    tracemalloc.start()
    for minute in range(60):
        for _ in range(6):
            starts += stream.push(chunk).start.tolist()
        if minute in (5, 59):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert starts == [60.0 * i for i in range(60)]
    assert stream.received == rate * 3600
    assert sizes[1] - sizes[0] < 50_000
    assert len(stream.state()["recent"]) < 4_000


def test_snippets_of_the_documentation(small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They build on each other."""
    text = (REPOSITORY / "docs" / "streaming.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(snippets) == 4
    monkeypatch.chdir(make_workplace(tmp_path))
    exec("\n".join(snippets).replace('"audioset"', repr(str(small_folder))), {})
