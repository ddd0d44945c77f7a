from __future__ import annotations

import torch

from vggish_pt import VGGish
from vggish_pt.nn.config import VGGishConfig
from vggish_pt.pretrained.modules import load_tensors, save_and_push, stored_tensors


def test_stored_and_loaded() -> None:
    model = VGGish(VGGishConfig(fc_width=8)).to(torch.bfloat16)
    model.postprocess.eigen_vectors = torch.eye(128, dtype=torch.float64)
    model.postprocess.means = torch.arange(128, dtype=torch.float64)
    tensors = stored_tensors(model)
    assert tensors["network.conv1.weight"].dtype == torch.float32
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    with torch.device("meta"):
        empty = VGGish(VGGishConfig(fc_width=8))
    loaded = load_tensors(empty, empty.network, tensors)
    assert loaded is empty and not loaded.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.network.parameters())
    assert loaded.network.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loaded.network.fc2.weight, model.network.fc2.weight.float(), rtol=0, atol=0)
    assert loaded.postprocess.means.dtype == torch.float64
    assert torch.equal(loaded.postprocess.means, torch.arange(128, dtype=torch.float64))


def test_saved_and_pushed() -> None:
    calls = []

    def save(folder):
        folder.mkdir()
        (folder / "x").write_text("content")

    def push(folder, repo_id, **options):
        calls.append(((folder / "x").read_text(), repo_id, options))
        return "address"

    assert save_and_push(save, push, "user/name", private=True) == "address"
    assert calls == [("content", "user/name", {"private": True})]
