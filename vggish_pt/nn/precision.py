"""Arithmetic of float32 products on CUDA devices: float32 itself, or TF32.

torch has no setting for TF32 by call, module or thread: ``torch.backends.cudnn.conv.fp32_precision`` and
``torch.backends.cuda.matmul.fp32_precision`` (until torch 2.8 ``allow_tf32``) hold for the whole process. By default,
cuDNN's convolutions use TF32, whose products have 10 bits of mantissa instead of 23.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def float32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Compute float32 products on a CUDA device in float32, or in TF32, within the ``with`` block.

    Blocks of several threads may overlap. While any of them asks for float32, torch's switch is at float32 for all of
    them, so that no thread computes in TF32 that asked for float32; a block that allows TF32 may then compute in
    float32. When the last block ends, the settings from before the first one are restored.

    Limit: the switch holds for the process. Other code that computes on a CUDA device in another thread meanwhile uses
    the setting too, and must not change it within a block.

    Args:
        device: device of the computation. On devices other than CUDA nothing is done.
        tf32: True allows TF32.
    """
    if device.type != "cuda":
        yield
        return
    _SWITCH.acquire(tf32)
    try:
        yield
    finally:
        _SWITCH.release(tf32)


class _Tf32Switch:
    """torch's two process-wide settings, shared by the blocks of all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = {True: 0, False: 0}  # number of open blocks by their tf32
        self._before: list[Any] = []

    def acquire(self, tf32: bool) -> None:
        """Enter a block."""
        with self._lock:
            if not any(self._blocks.values()):
                self._before = [getattr(holder, name) for holder, name, _ in _settings(tf32)]
            self._blocks[tf32] += 1
            self._apply()

    def release(self, tf32: bool) -> None:
        """Leave a block."""
        with self._lock:
            self._blocks[tf32] -= 1
            if any(self._blocks.values()):
                self._apply()
                return
            for (holder, name, _), value in zip(_settings(tf32), self._before, strict=True):
                setattr(holder, name, value)

    def _apply(self) -> None:
        for holder, name, value in _settings(tf32=self._blocks[False] == 0):
            if getattr(holder, name) != value:
                setattr(holder, name, value)


def _settings(tf32: bool) -> list[tuple[Any, str, str | bool]]:
    """Return the objects that hold the settings, the attribute's name, and its value for float32 or TF32."""
    backends = torch.backends
    if hasattr(backends.cudnn, "conv") and hasattr(backends.cuda.matmul, "fp32_precision"):
        value = "tf32" if tf32 else "ieee"
        return [(backends.cudnn.conv, "fp32_precision", value), (backends.cuda.matmul, "fp32_precision", value)]
    return [(backends.cudnn, "allow_tf32", tf32), (backends.cuda.matmul, "allow_tf32", tf32)]  # torch before 2.9


_SWITCH = _Tf32Switch()
