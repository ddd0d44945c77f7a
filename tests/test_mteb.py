"""The encoder for mteb, called as the released package calls it."""

from __future__ import annotations

import numpy as np
import pytest

mteb = pytest.importorskip("mteb")

from mteb.models import EncoderProtocol  # noqa: E402

from vggish_pt import AudioError, SettingsError, WeightsError  # noqa: E402
from vggish_pt.mteb import VGGishEncoder  # noqa: E402


@pytest.fixture(scope="module")
def encoder(small_folder):
    return VGGishEncoder(str(small_folder), device="cpu")


@pytest.fixture
def clips(rng):
    return [
        {"array": rng.standard_normal(int(rate * seconds)) * 0.1, "sampling_rate": rate}
        for rate, seconds in ((16_000, 2.2), (44_100, 1.5), (16_000, 0.3), (8_000, 1.0), (44_100, 1.2))
    ]


def test_protocol(encoder):
    assert isinstance(encoder, EncoderProtocol)
    meta = encoder.mteb_model_meta
    assert meta.name == "vggish_pt/small"
    assert meta.modalities == ["audio"]
    assert meta.embed_dim == 128
    assert meta.license == "apache-2.0"
    assert meta.experiment_kwargs is None


def test_encode(encoder, small_model, clips):
    batches = [{"audio": clips[:3], "label": [0, 1, 0]}, {"audio": clips[3:], "label": [1, 1]}]
    vectors = encoder.encode(batches, task_metadata=None, hf_split="test", hf_subset="default", batch_size=3)
    assert vectors.dtype == np.float32
    expected = [small_model.embed(clip["array"], clip["sampling_rate"]).values.mean(dim=0).numpy() for clip in clips]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert encoder.encode([]).shape == (0, 128)


def test_settings_are_part_of_the_name(small_folder, clips):
    encoder = VGGishEncoder(small_folder, device="cpu", pooling="mean+std", layer="conv4", hop=0.48, batch_size=2)
    assert dict(encoder.mteb_model_meta.experiment_kwargs) == {"pooling": "mean+std", "layer": "conv4", "hop": 0.48}
    assert "conv4" in encoder.mteb_model_meta.experiment_name
    assert encoder.encode([{"audio": clips}]).shape == (5, encoder.mteb_model_meta.embed_dim) == (5, 1024)


def test_another_model_has_another_revision(encoder, small_folder, tmp_path):
    from vggish_pt import VGGish

    model = VGGish.from_pretrained(small_folder)
    model.network.embedding.bias.data += 1
    model.save_pretrained(tmp_path / "other")
    assert VGGishEncoder(tmp_path / "other").mteb_model_meta.revision != encoder.mteb_model_meta.revision


def test_errors(encoder, small_folder, clips):
    with pytest.raises(SettingsError, match="this task has text"):
        encoder.encode([{"text": ["hello"]}])
    with pytest.raises(AudioError, match="nan"):
        encoder.encode([{"audio": [{"array": np.full(20_000, np.nan), "sampling_rate": 16_000}]}])
    with pytest.raises(AudioError, match="shorter than a window"):
        VGGishEncoder(small_folder, device="cpu", pad="drop").encode([{"audio": clips}])
    with pytest.raises(SettingsError, match="pooling"):
        VGGishEncoder(small_folder, pooling="median")
    with pytest.raises(WeightsError):
        VGGishEncoder("no-such-weights")


def test_mteb_runs_its_own_check(encoder):
    """All of mteb's mock tasks that are about audio alone. Its data sets decode with torchcodec."""
    try:
        import torchcodec  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec cannot be loaded ({type(error).__name__})")
    results = mteb.mock_run(encoder).task_results
    ran = {name: result for name, result in results.items() if result is not None}
    assert {"MockAudioClassification", "MockAudioClusteringTask", "MockAudioReranking"} <= set(ran)
    failed = [result for result in ran.values() if not isinstance(result, mteb.TaskResult)]
    assert not failed
