from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import vggish_pt
from vggish_pt import CheckpointError, SettingsError, VGGish, VGGishConfig, WeightsError


def test_importing_is_cheap():
    code = (
        "import sys, socket; socket.socket = None; before = set(sys.modules); import vggish_pt; "
        "heavy = {'torch', 'numpy', 'soundfile', 'pyarrow', 'librosa', 'torchaudio'} & (set(sys.modules) - before); "
        "assert not heavy, heavy; assert set(vggish_pt.__all__) <= set(dir(vggish_pt)); print(vggish_pt.__version__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == vggish_pt.__version__


def test_every_public_name_is_there():
    for name in vggish_pt.__all__:
        assert getattr(vggish_pt, name) is not None
    with pytest.raises(AttributeError):
        _ = vggish_pt.nothing


def test_save_and_load(tmp_path, small_model, rng):
    waveform = rng.standard_normal(40_000) * 0.1
    before = small_model.embed(waveform, 16_000)
    small_model.save_pretrained(tmp_path / "a" / "model")
    loaded = VGGish.from_pretrained(tmp_path / "a" / "model")
    assert loaded.config == small_model.config
    assert not loaded.training
    assert torch.equal(loaded.embed(waveform, 16_000).values, before.values)
    assert torch.equal(loaded.postprocess(before.values), small_model.postprocess(before.values))
    card = (tmp_path / "a" / "model" / "README.md").read_text()
    assert "small" in card
    assert "from_pretrained" in card


def test_saving_over_the_loaded_model(tmp_path, small_model):
    folder = tmp_path / "model"
    small_model.save_pretrained(folder)
    model = VGGish.from_pretrained(str(folder))
    with torch.no_grad():
        model.network.conv1.bias += 1  # the weights are mapped from the file: it must not change
    assert not torch.equal(VGGish.from_pretrained(folder).network.conv1.bias, model.network.conv1.bias)
    model.save_pretrained(folder)
    assert torch.equal(VGGish.from_pretrained(folder).network.conv1.bias, model.network.conv1.bias)


def test_half_precision_weights_load_as_float32(tmp_path, small_model):
    half = copy.deepcopy(small_model).half()
    assert half.postprocess.means.dtype == torch.float64
    half.save_pretrained(tmp_path / "half")
    loaded = VGGish.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert os.path.getsize(tmp_path / "half" / "model.safetensors") < 0.6 * sum(
        4 * p.numel() for p in loaded.parameters()
    )


def test_final_relu_can_be_overridden(small_folder, small_model):
    relu = VGGish.from_pretrained(small_folder, final_relu=True)
    examples = torch.randn(2, 96, 64)
    assert relu.config.final_relu
    assert torch.equal(relu(examples), small_model(examples).clamp(min=0))


def test_a_plain_module(small_folder):
    model = VGGish.from_pretrained(small_folder)
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.is_grad_enabled() and not p.is_inference() for p in model.parameters())
    waveform = (torch.randn(2, 16_000) * 0.1).requires_grad_()
    embeddings = model(model.frontend(waveform).flatten(0, 1))
    model.postprocess(embeddings).sum().backward()
    assert waveform.grad.abs().sum() > 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.network.fc1.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, model.network.fc1.weight)


def test_copies_and_pickles(small_model):
    examples = torch.randn(1, 96, 64)
    expected = small_model(examples)
    for twin in (copy.deepcopy(small_model), pickle.loads(pickle.dumps(small_model))):  # noqa: S301 (our own)
        assert torch.allclose(twin(examples), expected, atol=1e-6)


def test_random_weights_without_pretraining():
    model = VGGish(VGGishConfig(fc_width=8))
    with pytest.raises(WeightsError, match="no PCA"):
        model.embed(np.zeros(16_000), 16_000, postprocess="pca")
    assert len(model.embed(np.zeros(16_000), 16_000)) == 1


def test_embed_takes_no_unknown_setting(small_model):
    with pytest.raises(TypeError, match="hops"):
        small_model.embed(np.zeros(16_000), 16_000, hops=0.5)


def test_wrong_names():
    for name in ("nosuch", "no/such/folder/at/all", ""):
        with pytest.raises(WeightsError):
            VGGish.from_pretrained(name, local_files_only=True)


def test_damaged_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a VGGish model"):
        VGGish.from_pretrained(tmp_path)


def test_frontend_dtype(small_folder):
    model = VGGish.from_pretrained(small_folder, frontend_dtype=torch.float32)
    assert model.frontend.dtype == torch.float32
    with pytest.raises(SettingsError):
        VGGish(frontend_dtype=torch.bfloat16)
