from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vggish_pt import Network, SettingsError, VGGish, VGGishConfig
from vggish_pt.nn.layers import LAYERS, layer_shape
from vggish_pt.pretrained.folder import tensor_shapes

SHAPES = {
    "conv1": (64, 48, 32),
    "conv2": (128, 24, 16),
    "conv3": (256, 12, 8),
    "conv4": (512, 6, 4),
    "fc1": (24,),
    "fc2": (24,),
    "embedding": (128,),
    "fused": (8192,),
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network(fc_width=24).eval()


def test_under_autocast_blocks_stay_narrow(network):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        blocks = dict(network.convolutions(torch.zeros(1, 1, 96, 64)))
    assert {value.dtype for value in blocks.values()} == {torch.bfloat16}


def test_google_size():
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Network().parameters())
    assert parameters == 72_141_184  # what the reference's checkpoint holds: 288,564,736 bytes of float32


@pytest.mark.parametrize("width", [1, 24, 4096])
def test_shapes_agree_with_storage(width):
    with torch.device("meta"):
        model = VGGish(VGGishConfig(fc_width=width))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == tensor_shapes(model.config)


def test_every_layer(network):
    assert tuple(SHAPES) == LAYERS
    examples = torch.randn(3, 96, 64)
    for layer, shape in SHAPES.items():
        with torch.no_grad():
            values = network(examples, layer)
        assert values.shape == (3, *shape) == (3, *layer_shape(layer, VGGishConfig(fc_width=24)))
        assert torch.allclose(values, network.infer(examples, layer), atol=1e-5)
        assert (values.min() >= 0) == (layer != "embedding")  # after a ReLU, but for the pre-activation embedding
        assert network.infer(examples[:0], layer).shape == (0, *shape)


def test_channel_dimension_is_optional(network):
    examples = torch.randn(2, 96, 64)
    assert torch.equal(network(examples), network(examples.unsqueeze(1)))


def test_final_relu(network):
    relu = Network(fc_width=24, final_relu=True).eval()
    relu.load_state_dict(network.state_dict())
    examples = torch.randn(2, 96, 64)
    assert torch.equal(relu(examples), network(examples).clamp(min=0))


def test_flatten_order_is_tensorflows(network):
    # One feature at (time 2, frequency 3, channel 5) must meet fc1's column (2 * 4 + 3) * 512 + 5.
    features = torch.zeros(1, 512, 6, 4)
    features[0, 5, 2, 3] = 1.0
    expected = torch.relu(network.fc1.weight[:, (2 * 4 + 3) * 512 + 5] + network.fc1.bias)
    assert torch.allclose(dict(network.fully_connected(features))["fc1"][0], expected, atol=1e-6)


def test_blocks_do_not_change_results(network):
    examples = torch.randn(37, 96, 64)
    whole = network.infer(examples)
    for size in (1, 5, 16, 17):
        parts = torch.cat([network.infer(part) for part in examples.split(size)])
        assert torch.allclose(whole, parts, atol=1e-5)


def test_gradients_reach_input_and_every_parameter(network):
    examples = torch.randn(2, 96, 64, requires_grad=True)
    network(examples).square().sum().backward()
    assert examples.grad.abs().sum() > 0
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    network.zero_grad()


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(96, 64), torch.zeros(1, 64, 96), torch.zeros(1, 2, 96, 64), torch.zeros(1, 96, 64).int(), [[0.0]]],
)
def test_wrong_examples_are_refused(network, bad):
    with pytest.raises(SettingsError, match=r"\(n, 96, 64\)"):
        network(bad)
    with pytest.raises(SettingsError, match=r"\(n, 96, 64\)"):
        network.infer(bad)


def test_wrong_layer_is_refused(network):
    with pytest.raises(SettingsError, match="layer must be one of conv1"):
        network(torch.zeros(1, 96, 64), "conv9")


@pytest.mark.parametrize("width", [16, 4096])
def test_operations_are_those_that_torch_counts(width):
    with torch.device("meta"):
        network = Network(width)
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.zeros(1, 96, 64))
    assert network.operations() == counter.get_total_flops()
    if width == 4096:
        assert network.operations() == pytest.approx(1.728e9, rel=1e-3)
