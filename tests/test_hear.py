"""The HEAR 2021 API: the checks of its validator, and what the numbers are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vggish_pt import SettingsError, WeightsError, hear


@pytest.fixture(scope="module")
def model(small_folder):
    return hear.load_model(str(small_folder))


def _noise(sounds, seconds):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(sounds, int(seconds * 16_000), generator=generator) * 2 - 1


def test_model(model):
    """hear-validator: a torch module that says its rate and sizes."""
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16_000, 22_050, 44_100, 48_000)
    assert isinstance(model.scene_embedding_size, int)
    assert isinstance(model.timestamp_embedding_size, int)
    model.to("cpu")


@pytest.mark.parametrize("seconds", [1.07, 1.98, 4.0])
def test_timestamp_embeddings(model, seconds):
    """hear-validator: shapes, types, regular timestamps that reach from the start to the end."""
    audio = _noise(2, seconds)
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
    assert len(timestamps) == 2
    times = timestamps.numpy()
    gaps = np.diff(times)
    np.testing.assert_allclose(gaps, 50.0, atol=1e-3)
    assert times.min() == 0.0
    assert 1000 * seconds - 50 <= times.max() <= 1000 * seconds


def test_scene_embeddings(model):
    """hear-validator: shape and type."""
    embeddings = hear.get_scene_embeddings(_noise(4, 2.74), model)
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (4, model.scene_embedding_size)


@pytest.mark.parametrize("hop_size", [50.0, 240.0])
def test_timestamps_are_centres_of_windows(model, small_model, hop_size):
    audio = _noise(2, 1.5)
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model, hop_size=hop_size)
    around = torch.nn.functional.pad(audio, (16_000, 16_000))
    for sound in range(2):
        for i in (0, 1, len(timestamps[0]) // 2, len(timestamps[0]) - 1):
            centre = 16_000 + round(float(timestamps[sound, i]) * 16)
            window = around[sound, centre - 7_800 : centre + 7_800]
            expected = small_model.embed(window, 16_000).values
            torch.testing.assert_close(embeddings[sound, i : i + 1], expected, atol=1e-4, rtol=1e-4)


def test_long_sound_does_not_drift(model):
    _, timestamps = hear.get_timestamp_embeddings(torch.zeros(1, 16_000 * 60), model, hop_size=960.0)
    np.testing.assert_array_equal(timestamps[0].double(), np.arange(63) * 960.0)


@pytest.mark.parametrize("seconds", [0.3, 0.975, 2.5])
def test_scene_is_the_mean_of_windows(model, small_model, seconds):
    audio = _noise(3, seconds)
    scenes = hear.get_scene_embeddings(audio, model)
    expected = [result.values.mean(dim=0) for result in small_model.embed(list(audio), 16_000, hop=0.48)]
    torch.testing.assert_close(scenes, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_results_do_not_depend_on_the_batch(model, monkeypatch):
    audio = _noise(3, 1.2)
    whole, _ = hear.get_timestamp_embeddings(audio, model)
    monkeypatch.setattr(hear, "_BATCH", 7)
    alone = torch.cat([hear.get_timestamp_embeddings(sound[None], model)[0] for sound in audio])
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("layer", "size"), [("conv3", 256), ("fc2", 16)])
def test_earlier_layers(small_folder, small_model, layer, size):
    model = hear.load_model(small_folder, layer=layer, final_relu=True)
    assert (model.scene_embedding_size, model.timestamp_embedding_size) == (size, size)
    audio = _noise(1, 1.0)
    embeddings, _ = hear.get_timestamp_embeddings(audio, model)
    assert embeddings.shape == (1, 21, size)
    values = small_model.embed(audio, 16_000, layer=layer).values
    expected = values.mean(dim=(2, 3)) if values.ndim == 4 else values
    torch.testing.assert_close(hear.get_scene_embeddings(audio, model), expected, atol=1e-5, rtol=1e-5)


def test_embeddings_can_be_learned_from(model):
    scenes = hear.get_scene_embeddings(_noise(2, 1.0), model)
    head = torch.nn.Linear(128, 1)
    head(scenes).sum().backward()
    assert head.weight.grad is not None


@pytest.mark.parametrize(
    "audio",
    [
        torch.zeros(16_000),
        torch.zeros(1, 16_000, dtype=torch.int16),
        torch.zeros(2, 0),
        torch.zeros(0, 16_000),
        np.zeros((1, 16_000)),
    ],
)
def test_bad_audio(model, audio):
    with pytest.raises(SettingsError, match=r"\(sounds, samples\)"):
        hear.get_scene_embeddings(audio, model)
    with pytest.raises(SettingsError, match=r"\(sounds, samples\)"):
        hear.get_timestamp_embeddings(audio, model)


def test_bad_settings(model, small_folder):
    with pytest.raises(SettingsError, match="hop must be"):
        hear.get_timestamp_embeddings(_noise(1, 1.0), model, hop_size=33.3)
    with pytest.raises(SettingsError, match="layer must be"):
        hear.load_model(small_folder, layer="fc9")
    with pytest.raises(WeightsError):
        hear.load_model("no-such-weights")


def test_default_weights(monkeypatch, small_folder):
    monkeypatch.setattr(hear, "DEFAULT_WEIGHTS", str(small_folder))
    assert hear.load_model().scene_embedding_size == 128


def test_fused_variant(small_folder, model):
    from vggish_pt.hear import fused as hear_fused

    fused = hear_fused.load_model(str(small_folder))
    audio = torch.randn(2, 20_000) * 0.1
    scenes = hear_fused.get_scene_embeddings(audio, fused)
    assert scenes.shape == (2, fused.scene_embedding_size) == (2, 8192)
    vectors, timestamps = hear_fused.get_timestamp_embeddings(audio, fused)
    assert vectors.shape[:2] == timestamps.shape
    assert not torch.allclose(scenes[0], scenes[1])
