from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vggish_pt import Network
from vggish_pt.kernels import ONEDNN_KERNELS, inference_kernels
from vggish_pt.winograd import WinogradKernels, convolve, pack, transforms

EXAMPLES = torch.randn(40, 96, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = Network(fc_width=24).to(memory_format=torch.channels_last).eval()
    if inference_kernels(network.children()) is not ONEDNN_KERNELS:
        pytest.skip("this torch has no oneDNN")
    return network


@pytest.mark.parametrize("points", [(0, 1, -1, 2, -2), (0, 0.75, -0.75, 1.5, -1.5), (0, 1, -1, 0.5, -3)])
def test_transforms_correlate(points, rng):
    a, g, b = transforms(points)
    for _ in range(5):
        signal, kernel = rng.standard_normal(6), rng.standard_normal(3)
        np.testing.assert_allclose(a @ ((g @ kernel) * (b @ signal)), np.correlate(signal, kernel), atol=1e-12)


@pytest.mark.parametrize(("channels", "height", "width", "out"), [(3, 8, 4, 5), (128, 24, 16, 16), (16, 12, 8, 32)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_equals_direct_convolution(network, channels, height, width, out, memory_format):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, channels, height, width, generator=generator).to(memory_format=memory_format)
    weight = torch.randn(out, channels, 3, 3, generator=generator) / channels
    bias = torch.randn(out, generator=generator)
    expected = F.relu(F.conv2d(x.double(), weight.double(), bias.double(), padding=1))
    found = convolve(x, pack(weight), bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-5)


def test_the_networks_embeddings_move_by_less_than_stated(network):
    assert network.winograd
    fast = network.infer(EXAMPLES)
    assert network._winograd is not None
    network.winograd = False
    assert (fast - network.infer(EXAMPLES)).abs().max() < 2e-5


def test_golden_embeddings(golden, golden_model):
    cases = [case for case in golden.values() if len(case["log_mel"])]
    examples = torch.from_numpy(np.concatenate([case["log_mel"] for case in cases]))
    expected = np.concatenate([case["embedding"] for case in cases])
    assert len(examples) >= 32  # enough for Winograd to be used
    values = golden_model.network.infer(examples).numpy()
    assert golden_model.network._winograd is not None
    np.testing.assert_allclose(values, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.conv3_1.weight.data.mul_(2),  # which no version counter notices
        lambda n: n.conv4_2.weight.data[[0, 1]].copy_(n.conv4_2.weight.data[[1, 0]]),
        lambda n: n.load_state_dict({k: v * 0.5 for k, v in n.state_dict().items()}),
        lambda n: setattr(n, "conv4_1", copy.deepcopy(n.conv4_1).requires_grad_(False)),
        lambda n: n.conv3_2.bias.data.add_(1),
    ],
)
def test_changed_weights_are_noticed(network, change):
    network.infer(EXAMPLES)
    change(network)
    with torch.no_grad():
        torch.testing.assert_close(network.infer(EXAMPLES), network(EXAMPLES), atol=1e-4, rtol=1e-4)


def test_copies_transform_their_own_weights(network):
    network.infer(EXAMPLES)
    twin = copy.deepcopy(network)
    assert twin._winograd is None
    with torch.no_grad():
        twin.conv3_1.weight.zero_()
        torch.testing.assert_close(twin.infer(EXAMPLES), twin(EXAMPLES), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network.infer(EXAMPLES), network(EXAMPLES), atol=1e-5, rtol=1e-5)


def test_few_windows_and_other_types_are_computed_directly(network):
    network.infer(EXAMPLES[:8])
    assert network._winograd is None
    network.to(torch.bfloat16).infer(EXAMPLES.to(torch.bfloat16))
    assert network._winograd is None


def test_only_the_larger_layers_are_transformed(network):
    kernels = WinogradKernels(network.children())
    x = torch.randn(2, 1, 96, 64)
    assert torch.equal(kernels.conv(network.conv1, x), ONEDNN_KERNELS.conv(network.conv1, x))
    assert len(kernels._packed) == 4
