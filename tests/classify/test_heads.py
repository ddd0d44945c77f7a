"""Heads: masks, attention, the non-linearity that the embedding lacks, standardisation."""

from __future__ import annotations

import pytest
import torch

from vggish_pt import VGGishConfig
from vggish_pt.classify.config import HeadConfig
from vggish_pt.classify.heads import Head, feature_size, make_activation, pool_map
from vggish_pt.errors import SettingsError

CONFIG = VGGishConfig(fc_width=16)


def make(kind: str, size: int = 12, classes: int = 3) -> Head:
    torch.manual_seed(0)
    head = Head(size, classes, HeadConfig(kind, hidden=8), torch.nn.Identity())
    if head.attention is not None:  # as after training; it begins with equal weights
        torch.nn.init.normal_(head.attention.score.weight)
    return head.eval()


@pytest.mark.parametrize("kind", ["linear", "mlp", "attention"])
def test_windows_that_are_not_there_do_not_count(kind):
    head = make(kind)
    features = torch.randn(2, 4, 12)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    whole = head(features, mask)
    assert whole.shape == (2, 3)
    torch.testing.assert_close(whole[1:], head(features[1:, :2]))
    torch.testing.assert_close(whole[:1], head(features[:1]))
    changed = features.clone()
    changed[1, 2:] = 1e3
    torch.testing.assert_close(head(changed, mask), whole)


@pytest.mark.parametrize("kind", ["linear", "mlp", "attention"])
def test_a_clip_of_one_window_is_that_window(kind):
    head = make(kind)
    features = torch.randn(5, 1, 12)
    torch.testing.assert_close(head(features), head.windows(features[:, 0]))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_clip_is_the_mean_of_its_windows(kind):
    head = make(kind)
    features = torch.randn(1, 6, 12)
    torch.testing.assert_close(head(features)[0], head.windows(features[0]).mean(dim=0))


def test_attention_begins_as_the_mean_and_then_weighs():
    features = torch.randn(1, 6, 12)
    fresh = Head(12, 3, HeadConfig("attention", hidden=8), torch.nn.Identity()).eval()
    torch.testing.assert_close(fresh(features)[0], fresh.windows(features[0]).mean(dim=0))
    trained = make("attention")
    found, windows = trained(features)[0], trained.windows(features[0])
    assert not torch.allclose(found, windows.mean(dim=0), atol=1e-3)
    assert (found <= windows.amax(dim=0) + 1e-6).all() and (found >= windows.amin(dim=0) - 1e-6).all()


@pytest.mark.parametrize(
    ("name", "features", "final_relu", "expected"),
    [
        ("auto", "embedding", False, torch.nn.ReLU),
        ("auto", "embedding", True, torch.nn.Identity),
        ("auto", "fc2", False, torch.nn.Identity),
        ("auto", "fused:conv4", False, torch.nn.Identity),
        ("auto", "fused:conv4+embedding", False, torch.nn.ReLU),
        ("gelu", "embedding", False, torch.nn.GELU),
        ("none", "embedding", False, torch.nn.Identity),
    ],
)
def test_non_linearity(name, features, final_relu, expected):
    config = VGGishConfig(fc_width=16, final_relu=final_relu)
    assert type(make_activation(name, features, config)) is expected


def test_standardisation():
    head = Head(12, 3, HeadConfig("linear"), torch.nn.Identity()).eval()
    features = torch.randn(500, 12) * torch.logspace(-2, 2, 12) + 5
    head.fit_standardize(features)
    found = head.standardize(features)
    assert found.mean(dim=0).abs().max() < 1e-3
    assert found.std(dim=0)[-1] > 0.8  # the largest ones nearly to 1,
    assert (found.std(dim=0) <= 1.001).all()  # and none that hardly vary blown up beyond it
    head.fit_standardize(torch.ones(10, 12))
    assert torch.isfinite(head(torch.randn(1, 2, 12))).all()


def test_feature_sizes():
    for layer, expected in {"embedding": 128, "fc2": 16, "conv4": 1024, "fused:conv4": 2048}.items():
        assert feature_size(layer, CONFIG) == expected
    assert pool_map(torch.randn(2, 512, 6, 4)).shape == (2, 1024)


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "transformer"}, {"features": "conv9"}, {"activation": "tanh"}, {"hidden": 0}, {"dropout": 1.0}],
)
def test_settings_are_checked(wrong):
    with pytest.raises(SettingsError):
        HeadConfig(**wrong)
