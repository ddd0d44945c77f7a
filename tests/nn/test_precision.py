"""Precisions by name; and that float32 on a CUDA device is float32."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from vggish_pt.errors import SettingsError
from vggish_pt.inference.devices import set_precision
from vggish_pt.nn.precision import float32_products

CUDA = torch.device("cuda")


def said() -> tuple[object, ...]:
    backends = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        return backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision
    return backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_what_is_said_to_torch_holds_inside_alone(tf32, before):
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = before
        outside = said()
        with pytest.raises(KeyError), float32_products(CUDA, tf32=tf32):
            assert set(said()) in ({"tf32"}, {True}) if tf32 else set(said()) in ({"ieee"}, {False})
            raise KeyError
        assert said() == outside
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == before
        with float32_products(torch.device("cpu"), tf32=not before):
            assert said() == outside
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


def test_precisions_by_name(small_model):
    model = copy.deepcopy(small_model)
    assert set_precision(model, "fp32") is model and model.network.conv2.weight.dtype == torch.float32
    assert set_precision(model, "bf16").network.conv2.weight.dtype == torch.bfloat16
    with pytest.raises(SettingsError, match="precision must be one of fp32, tf32, bf16, not 'fp16'"):
        set_precision(model, "fp16")
    with pytest.raises(SettingsError, match="precision tf32 needs a CUDA device, not cpu"):
        set_precision(model, "tf32")


def test_on_a_cuda_device(small_model):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    examples = torch.randn(64, 96, 64, generator=torch.Generator().manual_seed(0))
    expected = small_model.network.infer(examples)
    model = copy.deepcopy(small_model).to("cuda")
    scale = expected.abs().max()
    assert (model.network.infer(examples.cuda()).cpu() - expected).abs().max() < 1e-5 * scale
    model = set_precision(model, "tf32")
    assert (model.network.infer(examples.cuda()).cpu() - expected).abs().max() < 1e-2 * scale


def test_threads_that_share_a_model_never_meet_tf32_where_they_asked_for_float32():
    # Blocks of two threads overlap in both orders: the one that began first ends first, and ends last.
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        outside = said()
        for first, second, together in ((False, False, False), (False, True, False), (True, False, False)):
            entered, proceed = threading.Event(), threading.Event()

            def other(tf32: bool, entered=entered, proceed=proceed) -> None:
                with float32_products(CUDA, tf32=tf32):
                    entered.set()
                    proceed.wait(30)

            with float32_products(CUDA, tf32=first):
                thread = threading.Thread(target=other, args=(second,))
                thread.start()
                assert entered.wait(30)
                assert set(said()) in (({"tf32"}, {True}) if together else ({"ieee"}, {False}))
            assert set(said()) in (({"tf32"}, {True}) if second else ({"ieee"}, {False}))  # what is left
            proceed.set()
            thread.join()
            assert said() == outside
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_many_threads_leave_the_users_setting():
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False
        outside, wrong = said(), []

        def work(tf32: bool) -> None:
            for _ in range(200):
                with float32_products(CUDA, tf32=tf32):
                    if not tf32 and set(said()) not in ({"ieee"}, {False}):
                        wrong.append(said())

        threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert said() == outside
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept
