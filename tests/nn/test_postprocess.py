from __future__ import annotations

import numpy as np
import pytest
import torch

from vggish_pt import SettingsError, WeightsError
from vggish_pt.nn.postprocess import Postprocessor


@pytest.fixture
def postprocess():
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(128, 128, dtype=torch.float64, generator=generator)
    return Postprocessor(vectors, torch.randn(128, dtype=torch.float64, generator=generator))


def _reference(postprocess, embeddings):
    vectors, means = postprocess.eigen_vectors.numpy(), postprocess.means.numpy().reshape(-1, 1)
    return np.clip((vectors @ (embeddings.numpy().T - means)).T, -2, 2)


def test_equals_an_independent_computation(postprocess):
    embeddings = torch.randn(50, 128) * 0.05
    expected = _reference(postprocess, embeddings)
    np.testing.assert_allclose(postprocess(embeddings).numpy(), expected, atol=1e-6)
    quantised = postprocess(embeddings, quantize=True)
    assert quantised.dtype == torch.uint8
    np.testing.assert_array_equal(quantised.numpy(), ((expected + 2) * (255 / 4)).astype(np.uint8))


def test_truncates_and_does_not_round():
    postprocess = Postprocessor(torch.eye(128, dtype=torch.float64), torch.zeros(128, dtype=torch.float64))
    value = -2 + 4 * 10.9 / 255  # 10.9 of 255 steps
    assert postprocess(torch.full((1, 128), value), quantize=True)[0, 0] == 10
    ends = torch.zeros(1, 128)
    ends[0, :2] = torch.tensor([-9.0, 9.0])
    assert postprocess(ends, quantize=True)[0, :3].tolist() == [0, 255, 127]


def test_differentiable(postprocess):
    embeddings = (torch.randn(4, 128, dtype=torch.float64) * 0.05).requires_grad_()
    assert torch.autograd.gradcheck(postprocess, embeddings)


def test_keeps_dtype(postprocess):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert postprocess(torch.zeros(2, 128, dtype=dtype)).dtype == dtype


def test_casting_the_model_keeps_float64(postprocess):
    embeddings = torch.randn(9, 128)
    before = postprocess(embeddings)
    for cast in (lambda m: m.half(), lambda m: m.to(torch.bfloat16), lambda m: m.float()):
        assert cast(postprocess).eigen_vectors.dtype == torch.float64
    assert torch.equal(before, postprocess(embeddings))
    assert postprocess.to("meta").means.device.type == "meta"


def test_without_parameters():
    postprocess = Postprocessor()
    assert not postprocess.available
    with pytest.raises(WeightsError, match="no PCA parameters"):
        postprocess(torch.zeros(1, 128))


def test_state_dict_round_trip(postprocess):
    empty = Postprocessor()
    empty.load_state_dict(postprocess.state_dict())
    embeddings = torch.randn(3, 128)
    assert torch.equal(empty(embeddings), postprocess(embeddings))


@pytest.mark.parametrize("bad", [torch.zeros(128), torch.zeros(1, 64), torch.zeros(1, 128, dtype=torch.uint8)])
def test_wrong_embeddings_are_refused(postprocess, bad):
    with pytest.raises(SettingsError, match=r"\(n, 128\)"):
        postprocess(bad)


def test_wrong_parameters_are_refused():
    with pytest.raises(WeightsError, match="incomplete"):
        Postprocessor(torch.eye(128), None)
    with pytest.raises(WeightsError, match="shape"):
        Postprocessor(torch.eye(64), torch.zeros(64))
