"""Arithmetic of the network: float32 as it is, TF32 or bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch


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
