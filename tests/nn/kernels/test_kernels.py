from __future__ import annotations

import copy

import pytest
import torch

from vggish_pt import Network
from vggish_pt.nn.kernels import TORCH_KERNELS, OneDnnKernels, inference_kernels


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network(fc_width=24).to(memory_format=torch.channels_last).eval()


@pytest.fixture
def onednn(network):
    kernels = inference_kernels(list(network.children()))
    if not isinstance(kernels, OneDnnKernels):
        pytest.skip("this torch has no oneDNN")
    return kernels


def test_every_layer_equals_torch(network, onednn):
    examples = torch.randn(5, 1, 96, 64)
    with torch.no_grad():
        ours, theirs = (dict(network.convolutions(examples, k)) for k in (onednn, TORCH_KERNELS))
        assert list(ours) == ["conv1", "conv2", "conv3_1", "conv3_2", "conv3", "conv4_1", "conv4_2", "conv4"]
        for kernels, found in ((onednn, ours), (TORCH_KERNELS, theirs)):
            found.update(network.fully_connected(theirs["conv4"], kernels))
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-5, msg=name)


def test_bfloat16_is_close_to_float32(network, onednn):
    examples = torch.randn(20, 96, 64)
    exact = network.infer(examples)
    rough = copy.deepcopy(network).to(torch.bfloat16).infer(examples.to(torch.bfloat16)).float()
    assert torch.nn.functional.cosine_similarity(exact, rough).min() > 0.9999


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.conv3_1.weight.data.mul_(2),
        lambda n: n.load_state_dict({k: v * 0.5 for k, v in n.state_dict().items()}),
        lambda n: setattr(n.conv1, "bias", torch.nn.Parameter(torch.ones(64))),
        lambda n: torch.optim.SGD(n.parameters(), lr=0.1).step(),
    ],
)
def test_changed_weights_are_noticed(network, onednn, change):
    examples = torch.randn(2, 96, 64)
    network.infer(examples)
    network(examples).sum().backward()
    with torch.no_grad():
        change(network)
        torch.testing.assert_close(network.infer(examples), network(examples), atol=1e-4, rtol=1e-4)


def test_hooks_and_replaced_layers_take_part(network, onednn):
    examples = torch.randn(2, 96, 64)
    network.infer(examples)
    calls = []
    handle = network.conv2.register_forward_hook(lambda *_: calls.append("hook"))
    network.infer(examples)
    assert calls == ["hook"]
    handle.remove()

    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    doubled = Doubled(24, 128)
    doubled.load_state_dict(network.embedding.state_dict())
    before = network.infer(examples)
    network.embedding = doubled
    assert torch.allclose(network.infer(examples), 2 * before, atol=1e-5)


def test_other_types_and_machines_use_torch(network, monkeypatch):
    assert inference_kernels(list(copy.deepcopy(network).double().children())) is TORCH_KERNELS
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert inference_kernels(list(network.children())) is TORCH_KERNELS
    examples = torch.randn(1, 96, 64)
    assert torch.allclose(network.infer(examples), network(examples), atol=1e-5)
