from __future__ import annotations

import copy

import pytest
import torch

from vggish_pt import Network, VGGish
from vggish_pt.audio.waveform import load_waveform


@pytest.fixture(scope="module")
def synthetic() -> VGGish:
    return VGGish.from_pretrained("synthetic")


def quiet_examples(model: VGGish) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    levels = torch.tensor([0.0, 1e-5, 1e-4, 1e-3, 1e-2]).double()
    waveforms = torch.randn(5, 16_000, generator=generator, dtype=torch.float64) * levels[:, None]
    return model.frontend(waveforms).flatten(0, 1)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    with torch.no_grad():
        return float(torch.cosine_similarity(a.float(), b.float()).min())


def test_bfloat16_keeps_quiet_sounds_apart_from_rounding(synthetic):
    examples = quiet_examples(synthetic)
    exact = synthetic.network.infer(examples)
    model = copy.deepcopy(synthetic).to(torch.bfloat16)
    assert cosine(exact, model.network.infer(examples)) > 0.9999
    assert cosine(exact, model(examples)) > 0.9999
    # What it guards against: the same network with its first layer rounded, too.
    rounded = copy.deepcopy(synthetic)
    rounded.network.conv1.weight.data = rounded.network.conv1.weight.bfloat16().float()
    rounded.to(torch.bfloat16)
    assert cosine(exact, rounded.network.infer(examples.bfloat16())) < 0.9999


def test_bfloat16_on_real_clips(golden_model, esc10_dir):
    """The stated bound, on the weights that move furthest, with Winograd's convolutions and without."""
    clips = sorted(esc10_dir.rglob("*.ogg"))[::40]
    examples = torch.cat([golden_model.frontend(load_waveform(clip)) for clip in clips])
    assert len(examples) >= 50
    exact = golden_model.network.infer(examples)
    model = copy.deepcopy(golden_model).to(torch.bfloat16)
    for model.network.winograd in (True, False):
        assert cosine(exact, model.network.infer(examples)) > 0.9999


@pytest.mark.parametrize(("cast", "first", "others"), [
    (lambda n: n.to(torch.bfloat16), torch.float32, torch.bfloat16),
    (lambda n: n.half(), torch.float32, torch.float16),
    (lambda n: n.double(), torch.float64, torch.float64),
    (lambda n: n.bfloat16().float(), torch.float32, torch.float32),
    (lambda n: n.to("meta", torch.bfloat16), torch.float32, torch.bfloat16),
])  # fmt: skip
def test_casts(cast, first, others):
    network = cast(Network(fc_width=8))
    assert {p.dtype for p in network.conv1.parameters()} == {first}
    assert {p.dtype for name, p in network.named_parameters() if "conv1" not in name} == {others}
    assert len({p.device for p in network.parameters()}) == 1


def test_casting_loses_nothing_of_the_first_layer():
    network = Network(fc_width=8)
    before = network.conv1.weight.detach().clone()
    assert torch.equal(network.to(torch.bfloat16).float().conv1.weight, before)


def test_gradients_flow_through_a_narrow_network():
    network = Network(fc_width=8).to(torch.bfloat16)
    network(torch.randn(2, 96, 64)).float().sum().backward()
    assert network.conv1.weight.grad is not None and network.conv1.weight.grad.dtype == torch.float32
    assert torch.isfinite(network.conv1.weight.grad).all()
