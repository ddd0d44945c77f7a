"""Which device to compute on."""

from __future__ import annotations

import torch

from vggish_pt.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """The device of that name.

    Args:
        name: "cpu", "cuda", "cuda:N", "mps", or "auto" for CUDA where there is one, else MPS, else the CPU.

    Raises:
        SettingsError: an unknown name, or a device that this machine has not.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise SettingsError(f"device must be auto, cpu, cuda, cuda:N or mps, not {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"there is no CUDA device {name!r} here ({torch.cuda.device_count()} found); use cpu or auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("there is no MPS device here; use cpu or auto")
    return device
