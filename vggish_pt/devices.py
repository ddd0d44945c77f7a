"""Which device to compute on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vggish_pt.errors import SettingsError

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?")


def check_device_name(name: str) -> None:
    """Makes sure that a device may be called so, without asking whether it is there.

    Raises:
        SettingsError: no device is called so.
    """
    if _NAME.fullmatch(name) is None:
        raise SettingsError(f"device must be auto, cpu, cuda, cuda:N or mps, not {name!r}")


def choose_device(name: str) -> torch.device:
    """The device of that name.

    Args:
        name: "cpu", "cuda", "cuda:N", "mps", or "auto" for CUDA where there is one, else MPS, else the CPU.

    Raises:
        SettingsError: an unknown name, or a device that this machine has not.
    """
    import torch

    check_device_name(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda":
        # is_available first: without a driver, a build of torch for CUDA may still count devices.
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:  # the number of a torch.device wraps around at 128
            raise SettingsError(f"there is no device {name!r} here (CUDA devices found: {count}); use cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("there is no device 'mps' here; use cpu or auto")
    return torch.device(name)
