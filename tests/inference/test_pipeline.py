from __future__ import annotations

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
import torch

from vggish_pt import AudioError, Embeddings, MissingDependencyError, SettingsError, VGGishError
from vggish_pt.nn.windows import count_windows


@pytest.fixture
def clips(tmp_path, rng):
    """Files of many lengths and rates, from one sample to 31 windows."""
    paths = []
    for i, (seconds, rate) in enumerate(
        [(0.5, 16_000), (30, 8_000), (2.3, 44_100), (0, 0), (0.975, 48_000), (5, 22_050)]
    ):
        path = tmp_path / f"{i}.wav"
        sf.write(path, rng.standard_normal(max(1, round(seconds * rate))) * 0.1, rate or 16_000, subtype="FLOAT")
        paths.append(path)
    return paths


def _close(a, b):
    return a.shape == b.shape and torch.allclose(a, b, atol=2e-5)


def test_one_source_gives_one_result(small_model, clips):
    result = small_model.embed(clips[2])
    assert isinstance(result, Embeddings)
    assert result.values.shape == (2, 128)
    assert result.values.dtype == torch.float32
    assert result.start.tolist() == [0.0, 0.96]
    assert result.end.tolist() == [0.975, 1.935]
    assert result.source == str(clips[2])
    assert result.duration == pytest.approx(2.3)
    assert len(result) == 2
    assert "(2, 128)" in repr(result)


def test_many_sources_give_a_list_in_order(small_model, clips):
    single = [small_model.embed(path) for path in clips]
    for many in (clips, tuple(clips), iter(clips)):
        results = small_model.embed(many)
        assert [r.source for r in results] == [str(path) for path in clips]
        assert all(_close(a.values, b.values) for a, b in zip(single, results, strict=True))
    assert small_model.embed([]) == []
    assert len(small_model.embed(clips[:1])) == 1


def test_results_do_not_depend_on_batches_or_workers(small_model, clips):
    reference = small_model.embed(clips, batch_size=64)
    for batch_size, workers in itertools.product((1, 7, 500), (0, 1, 3)):
        results = list(small_model.embed_iter(clips, batch_size=batch_size, workers=workers))
        assert all(_close(a.values, b.values) for a, b in zip(reference, results, strict=True))


def test_every_kind_of_source_is_the_same(small_model, rng):
    waveform = rng.standard_normal((2, 44_100)) * 0.1
    file = io.BytesIO()
    sf.write(file, waveform.T, 44_100, format="WAV", subtype="DOUBLE")
    file.seek(0)
    expected = small_model.embed(waveform, 44_100)
    for source in (file, file.getvalue()):
        assert torch.equal(small_model.embed(source).values, expected.values)
    for source in (torch.from_numpy(waveform), waveform.copy(order="F")):
        assert torch.equal(small_model.embed(source, sample_rate=44_100).values, expected.values)


def test_integers_are_scaled(small_model, rng):
    integers = (rng.standard_normal(20_000) * 3_000).astype(np.int16)
    assert torch.equal(small_model.embed(integers, 16_000).values, small_model.embed(integers / 32_768, 16_000).values)


def test_no_gradients_and_ordinary_tensors(small_model):
    values = small_model.embed(np.zeros(16_000), 16_000).values
    assert not values.requires_grad
    assert not values.is_inference()
    weight = torch.ones(128, requires_grad=True)
    (values @ weight).sum().backward()  # what a classifier on top does
    assert weight.grad is not None


@pytest.mark.parametrize("pad", ["short", "drop", "tail"])
@pytest.mark.parametrize("hop", [0.05, 0.96, 1.2])
def test_windows_agree_with_their_count(small_model, pad, hop):
    for samples in (1, 15_599, 15_600, 31_000, 40_000):
        result = small_model.embed(np.zeros(samples), 16_000, pad=pad, hop=hop)
        assert len(result) == count_windows(samples, hop, pad) == len(result.start)
        assert result.values.shape[1:] == (128,)
        if pad == "tail" and hop < 0.975:
            assert result.end[-1] >= samples / 16_000


def test_overlapping_windows_are_the_windows_of_shifted_audio(small_model, rng):
    waveform = rng.standard_normal(40_000) * 0.1
    result = small_model.embed(waveform, 16_000, hop=0.25)
    for i, start in enumerate(result.start.tolist()):
        alone = small_model.embed(waveform[round(start * 16_000) :][:15_600], 16_000)
        assert _close(alone.values[0], result.values[i])


def test_postprocess(small_model, rng):
    waveform = rng.standard_normal(40_000) * 0.1
    raw = small_model.embed(waveform, 16_000).values
    pca = small_model.embed(waveform, 16_000, postprocess="pca").values
    assert torch.equal(pca, small_model.postprocess(raw))
    quantised = small_model.embed(waveform, 16_000, postprocess="uint8").values
    assert quantised.dtype == torch.uint8
    assert torch.equal(quantised, small_model.postprocess(raw, quantize=True))


def test_layers(small_model, rng):
    waveform = rng.standard_normal(40_000) * 0.1
    examples = small_model.frontend(torch.from_numpy(waveform))
    for layer, shape in (("conv4", (512, 6, 4)), ("fc2", (16,))):
        values = small_model.embed(waveform, 16_000, layer=layer).values
        assert values.shape == (2, *shape)
        assert torch.allclose(values, small_model.network(examples, layer), atol=1e-5)
    assert small_model.embed(np.zeros(9), 16_000, layer="conv4", pad="drop").values.shape == (0, 512, 6, 4)


def test_bfloat16_network(small_folder, rng):
    from vggish_pt import VGGish

    waveform = rng.standard_normal(160_000) * 0.1
    reference = VGGish.from_pretrained(small_folder).embed(waveform, 16_000).values
    values = VGGish.from_pretrained(small_folder).to(torch.bfloat16).embed(waveform, 16_000).values
    assert values.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(values, reference).min() > 0.999


def test_a_failed_source_stops_embed_but_not_embed_iter(small_model, clips, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    sources = [clips[0], bad, tmp_path / "missing.wav", clips[2], b"", clips[4]]
    with pytest.raises(AudioError, match=r"bad\.wav"):
        small_model.embed(sources)
    for workers in (0, 2):
        results = list(small_model.embed_iter(sources, workers=workers))
        assert [isinstance(r, VGGishError) for r in results] == [False, True, True, False, True, False]
        assert _close(results[3].values, small_model.embed(clips[2]).values)
        assert str(results[4]).startswith("input 4: ")  # without a name of its own it is called by its number


def test_a_source_that_fails_half_way_leaves_nothing(small_model, clips, rng):
    waveform = rng.standard_normal(600_000)
    waveform[-5] = np.nan
    results = list(small_model.embed_iter([waveform, waveform[:20_000]], 16_000, batch_size=4))
    assert isinstance(results[0], AudioError)
    assert "599995" in str(results[0])
    assert len(results[1]) == 1


def test_errors_of_the_callers_iterable_come_through(small_model, clips):
    def sources():
        yield clips[0]
        raise KeyError("mine")

    for workers in (0, 2):
        with pytest.raises(KeyError, match="mine"):
            list(small_model.embed_iter(sources(), workers=workers))


def test_sources_are_read_lazily(small_model):
    taken = []

    def sources():
        for i in range(100):
            taken.append(i)
            yield np.zeros(16_000)

    iterator = small_model.embed_iter(sources(), 16_000, batch_size=2, workers=2)
    next(iterator)
    iterator.close()
    assert len(taken) < 20


@pytest.mark.parametrize(
    "settings",
    [
        {"hop": 0.005},
        {"pad": "both"},
        {"batch_size": 0},
        {"batch_size": True},
        {"batch_size": 2.0},
        {"layer": "conv5"},
        {"postprocess": "u8"},
        {"postprocess": "pca", "layer": "fc1"},
        {"resampler": "linear"},
    ],
)
def test_wrong_settings(small_model, settings):
    name = next(iter(settings))
    with pytest.raises(SettingsError, match=name):
        small_model.embed(np.zeros(16_000), 16_000, **settings)


def test_wrong_calls(small_model):
    with pytest.raises(SettingsError, match="sample_rate"):
        small_model.embed(np.zeros(16_000))
    with pytest.raises(SettingsError, match="workers"):
        small_model.embed_iter([], workers=-1)
    with pytest.raises(SettingsError, match="cannot embed a NoneType"):
        small_model.embed(None)
    with pytest.raises(SettingsError, match="cannot embed a float"):
        small_model.embed([0.1, 0.2], sample_rate=16_000)
    with pytest.raises(SettingsError, match="takes many sources"):
        small_model.embed_iter("a.wav")


def test_a_missing_resampler_is_said_at_once(small_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "resampy", None)
    with pytest.raises(MissingDependencyError, match=r"vggish_pt\[resampy\]"):
        small_model.embed([], resampler="resampy")


HOUR = """
import resource, sys, numpy as np, torch
from vggish_pt import VGGish
model = VGGish.from_pretrained(sys.argv[1])
model.embed(np.zeros(16_000), 16_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = model.embed(sys.argv[2], hop=30.0)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(len(result), round(grown))
"""


def test_memory_does_not_grow_with_a_files_length(small_folder, tmp_path, rng):
    # Half an hour of 44.1 kHz stereo is 318 MB as 16-bit samples and 1.3 GB as float64. A long hop spares the network.
    path = tmp_path / "long.wav"
    block = (rng.standard_normal((44_100 * 10, 2)) * 3_000).astype(np.int16)
    with sf.SoundFile(path, "w", 44_100, 2, "PCM_16") as file:
        for _ in range(180):
            file.write(block)
    result = subprocess.run(
        [sys.executable, "-c", HOUR, str(small_folder), str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    windows, grown = map(int, result.stdout.split())
    assert windows == 60
    assert grown < 200
