"""Description of the machine, and the peak speed of its processor."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from vggish_pt import constants as c

_MATRIX = 2048
_CONV_CHANNELS = 512
_CONV_WINDOWS = 16


def describe(device: torch.device | str = "cpu") -> dict[str, str]:
    """Describe the machine for the record of a measurement: name → text.

    Args:
        device: device of the network.
    """
    device = torch.device(device)
    facts = {
        "processor": f"{_processor()}, {cores()} of {os.cpu_count()} cores usable",
        "threads": f"{torch.get_num_threads()} (torch)",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": f"{os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else "unknown",
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    elif device.type != "cpu":
        facts["gpu"] = str(device)
    return facts


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_bfloat16(device: torch.device) -> bool:
    """Return True if the device computes bfloat16 in hardware."""
    if device.type == "cpu":
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return supported is not None and bool(supported())
    return device.type != "cuda" or torch.cuda.is_bf16_supported()


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@torch.inference_mode()
def peak(
    dtype: torch.dtype, device: torch.device | str = "cpu", *, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Measure the peak speed of a device: the best of a few runs.

    Args:
        dtype: torch.float32 or torch.bfloat16.
        device: the device.
        clock: returns the time in seconds.

    Returns:
        Operations per second of a product of two 2048x2048 matrices (the faster of torch's and oneDNN's), and of the
        best convolution: 512 to 512 channels on 16 windows of 12x8, in channels_last.
    """
    device = torch.device(device)
    a, b = torch.randn(2, _MATRIX, _MATRIX, device=device).to(dtype)
    x = torch.randn(_CONV_WINDOWS, _CONV_CHANNELS, c.EXAMPLE_FRAMES // 8, c.MEL_BANDS // 8, device=device).to(dtype)
    kernel = torch.randn(_CONV_CHANNELS, _CONV_CHANNELS, 3, 3, device=device).to(dtype)
    x, kernel = (t.to(memory_format=torch.channels_last) for t in (x, kernel))
    products = [lambda: a @ b]
    if device.type == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))

    def best(run: Callable[[], object], operations: int) -> float:
        seconds = []
        for _ in range(6):  # the first one warms up
            synchronize(device)
            start = clock()
            run()
            synchronize(device)
            seconds.append(clock() - start)
        return operations / max(min(seconds[1:]), 1e-9)

    convolution = 2 * x.shape[0] * x.shape[2] * x.shape[3] * kernel.numel()
    return (
        max(best(product, 2 * _MATRIX**3) for product in products),
        best(lambda: F.conv2d(x, kernel, padding=1), convolution),
    )
