from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vggish_pt import Network
from vggish_pt.nn.kernels import ONEDNN_KERNELS, inference_kernels
from vggish_pt.nn.kernels.winograd import ALGORITHMS, POINTS, WinogradKernels, Workspace, transforms

EXAMPLES = torch.randn(40, 96, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = Network(fc_width=24).to(memory_format=torch.channels_last).eval()
    if inference_kernels(network.children()) is not ONEDNN_KERNELS:
        pytest.skip("this torch has no oneDNN")
    return network


@pytest.mark.parametrize("points", [*POINTS.values(), (0, 1, -1, 2, -2), (0, 1, -1, 0.5, -3), (0, 1, -1, 2)])
def test_transforms_correlate(points, rng):
    a, g, b = transforms(points)
    for _ in range(5):
        signal, kernel = rng.standard_normal(len(points) + 1), rng.standard_normal(3)
        np.testing.assert_allclose(a @ ((g @ kernel) * (b @ signal)), np.correlate(signal, kernel), atol=1e-12)


@pytest.mark.parametrize("dtype", ALGORITHMS)
def test_matrices_are_exact(dtype):
    algorithm = ALGORITHMS[dtype]
    (a, _, b), (across_a, _, across_b) = (transforms(POINTS[n]) for n in (algorithm.rows, algorithm.columns))
    assert np.array_equal(algorithm.to_tile.double().numpy(), np.kron(b, across_b))
    assert np.array_equal(algorithm.from_tile.double().numpy(), np.kron(a, across_a))


# What is left of (3 x 3 + rounding of inputs, kernels, tiles, products and outputs) as a share of the output's size.
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 0.012)])
@pytest.mark.parametrize(("channels", "height", "width", "out"), [(3, 8, 4, 5), (128, 24, 16, 16), (16, 12, 8, 32)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_equals_direct_convolution(network, dtype, error, channels, height, width, out, memory_format):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, channels, height, width, generator=generator).to(dtype, memory_format=memory_format)
    weight = (torch.randn(out, channels, 3, 3, generator=generator) / channels).to(dtype)
    bias = torch.randn(out, generator=generator).to(dtype)
    expected = F.relu(F.conv2d(x.double(), weight.double(), bias.double(), padding=1))
    algorithm = ALGORITHMS[dtype]
    found = algorithm.convolve(x, algorithm.pack(weight), bias)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found.double() - expected).norm() < error * expected.norm()


@pytest.mark.parametrize("dtype", ALGORITHMS)
def test_results_do_not_lie_in_the_workspace(network, dtype):
    algorithm, workspace = ALGORITHMS[dtype], Workspace()
    packed = algorithm.pack(torch.ones(8, 8, 3, 3))
    for n in (1, 3, 2):  # larger, and then smaller again: the border is still zero
        for size in ((algorithm.rows, algorithm.columns), (8, 8)):
            first = algorithm.convolve(
                torch.ones(n, 8, *size, dtype=dtype), packed, torch.zeros(8, dtype=dtype), workspace
            )
            kept = first.clone()
            algorithm.convolve(
                torch.full((n, 8, *size), 3.0, dtype=dtype), packed, torch.ones(8, dtype=dtype), workspace
            )
            assert torch.equal(first, kept)
            torch.testing.assert_close(kept[:, :, 0, 0], torch.full((n, 8), 32.0, dtype=dtype), rtol=0.02, atol=0)


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


def test_few_windows_are_computed_directly_in_float32(network):
    network.infer(EXAMPLES[:8])
    assert network._winograd is None


def test_bfloat16_gives_a_window_the_same_alone_and_among_many(network):
    network.to(torch.bfloat16)
    if inference_kernels(network.children()) is not ONEDNN_KERNELS:
        pytest.skip("this processor has no bfloat16")
    many = network.infer(EXAMPLES)
    assert network._winograd is not None
    for n in (1, 3, 16, 33):
        assert torch.equal(network.infer(EXAMPLES[:n]), many[:n])
    network.winograd = False
    direct = network.infer(EXAMPLES)
    assert not torch.equal(direct, many)
    assert F.cosine_similarity(many.float(), direct.float()).min() > 0.9999


def test_changed_weights_are_noticed_in_bfloat16(network):
    network.to(torch.bfloat16).infer(EXAMPLES)
    network.conv3_1.weight.data.mul_(2)
    with torch.no_grad():
        found, expected = network.infer(EXAMPLES).float(), network(EXAMPLES).float()
    assert F.cosine_similarity(found, expected).min() > 0.999


def test_only_the_larger_layers_are_transformed(network):
    kernels = WinogradKernels(network.children())
    x = torch.randn(2, 1, 96, 64)
    assert torch.equal(kernels.conv(network.conv1, x), ONEDNN_KERNELS.conv(network.conv1, x))
    assert len(kernels._packed) == 4
