from __future__ import annotations

import numpy as np
import pytest
import torch

from vggish_pt import Network, SettingsError, VGGishConfig
from vggish_pt.nn.fusion import fuse, over_time
from vggish_pt.nn.layers import check_layer, fused_stages, layer_shape


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network(fc_width=24).eval()


def test_default_is_the_papers_choice(network):
    """Recomputed step by step: ReLU outputs of conv3_2 and conv4_2, maxima over time down to 6 steps, mean plus max."""
    examples = torch.randn(3, 96, 64)
    relu, pool = torch.relu, torch.nn.functional.max_pool2d
    with torch.no_grad():
        x = pool(relu(network.conv2(pool(relu(network.conv1(examples[:, None])), 2))), 2)
        third = relu(network.conv3_2(relu(network.conv3_1(x))))
        fourth = relu(network.conv4_2(relu(network.conv4_1(pool(third, 2)))))
        frames = []
        for maps, step in ((third, 4), (fourth, 2)):
            n, channels, time, frequency = maps.shape
            slowed = maps.reshape(n, channels, time // step, step, frequency).amax(dim=3)
            frames.append(slowed.transpose(2, 3).reshape(n, channels * frequency, 6))
        joined = torch.cat(frames, dim=1)
        expected = joined.mean(dim=2) + joined.max(dim=2).values
        assert expected.shape == (3, 8192)
        torch.testing.assert_close(network(examples, "fused"), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.infer(examples, "fused"), expected, atol=1e-5, rtol=1e-5)


def test_frequencies_are_kept_apart():
    maps = torch.zeros(1, 2, 12, 3)
    maps[0, 1, 4, 2] = 5.0  # channel 1, time 4, frequency 2
    frames = over_time(maps)
    assert frames.shape == (1, 6, 6)
    assert frames[0, 2, 1 * 3 + 2] == 5.0
    assert frames.sum() == 5.0
    assert torch.equal(fuse([frames])[0, 5], torch.tensor(5.0 + 5.0 / 6))


@pytest.mark.parametrize("layer", ["fused:conv2+conv4", "fused:embedding", "fused:conv4_2+fc1+conv1", "fused:conv3_1"])
def test_fusions_by_name(network, layer):
    examples = torch.randn(20, 96, 64)
    values = network.infer(examples, layer)
    assert values.shape == (20, *layer_shape(layer, VGGishConfig(fc_width=24)))
    with torch.no_grad():
        torch.testing.assert_close(values, network(examples, layer), atol=1e-5, rtol=1e-5)
        if layer == "fused:embedding":  # the same at all times: mean and maximum are equal
            torch.testing.assert_close(values, 2 * network(examples), atol=1e-5, rtol=1e-5)
    assert network.infer(examples[:0], layer).shape[0] == 0


def test_order_of_names_is_the_order_of_numbers(network):
    examples = torch.randn(2, 96, 64)
    first, second = network.infer(examples, "fused:conv4+fc1"), network.infer(examples, "fused:fc1+conv4")
    torch.testing.assert_close(first, torch.cat([second[:, 24:], second[:, :24]], dim=1))


def test_differentiable(network):
    examples = torch.randn(1, 96, 64, requires_grad=True)
    network(examples, "fused").sum().backward()
    assert examples.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "layer", ["fused:", "fused:conv9", "fused:conv1+conv1", "fused:+", "fuse", "conv3_2", "", None, 3]
)
def test_wrong_names(layer):
    with pytest.raises(SettingsError, match=r"layer|fusion"):
        check_layer(layer)


def test_no_fusion():
    assert fused_stages("embedding") == ()
    assert fused_stages("fused") == ("conv3_2", "conv4_2")


def test_in_embed(small_model, rng):
    waveform = rng.standard_normal(40_000) * 0.1
    values = small_model.embed(waveform, 16_000, layer="fused").values
    assert values.shape == (2, 8192)
    assert np.isfinite(values.numpy()).all()
