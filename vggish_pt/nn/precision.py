"""Arithmetic of the network: float32 as it is, TF32 or bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch

from vggish_pt.errors import SettingsError
from vggish_pt.inference.settings import check_precision

if TYPE_CHECKING:
    from vggish_pt.model import VGGish


def set_precision(model: VGGish, precision: str) -> VGGish:
    """Makes a model compute in a precision.

    Args:
        model: where it shall compute. It is changed.
        precision: "fp32"; "tf32": float32 whose products have 10 bits of mantissa, on CUDA devices from Ampere on;
            "bf16".

    Returns:
        The model.

    Raises:
        SettingsError: no such precision, or TF32 elsewhere than on a CUDA device.
    """
    check_precision(precision)
    if precision == "tf32" and model.device.type != "cuda":
        raise SettingsError(f"precision tf32 needs a CUDA device, not {model.device}; use fp32 or bf16")
    model.network.tf32 = precision == "tf32"
    return model.to(torch.bfloat16) if precision == "bf16" else model


@contextmanager
def float32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Says how float32 is multiplied on a CUDA device, whatever was said before, and puts that back.

    torch lets cuDNN's convolutions use TF32 unless told otherwise: 10 bits of mantissa instead of 23.

    Args:
        device: where something will be computed; nothing is said for other ones than CUDA's.
        tf32: whether TF32 will do.
    """
    if device.type != "cuda":
        yield
        return
    with _settings("tf32" if tf32 else "ieee"):
        yield


@contextmanager
def _settings(wanted: Literal["tf32", "ieee"]) -> Iterator[None]:
    backends = torch.backends
    if hasattr(backends.cudnn, "conv") and hasattr(backends.cuda.matmul, "fp32_precision"):
        holders, name = (backends.cudnn.conv, backends.cuda.matmul), "fp32_precision"
        value: str | bool = wanted
    else:  # torch before 2.9
        holders, name, value = (backends.cudnn, backends.cuda.matmul), "allow_tf32", wanted == "tf32"
    before = [getattr(holder, name) for holder in holders]
    try:
        for holder in holders:
            setattr(holder, name, value)
        yield
    finally:
        for holder, old in zip(holders, before, strict=True):
            setattr(holder, name, old)
