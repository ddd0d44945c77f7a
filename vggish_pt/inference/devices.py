"""Devices by name, replicas of a model on several devices, and the network's precision."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from vggish_pt.errors import SettingsError
from vggish_pt.inference.settings import check_precision

if TYPE_CHECKING:
    import torch

    from vggish_pt.nn.extractor import Extractor

Model = TypeVar("Model", bound="Extractor")

_NAME = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?")
_LIST = re.compile(r"cuda:all|cuda:[0-9]{1,3}(,cuda:[0-9]{1,3})+")


def check_device_name(name: str, *, many: bool = False) -> None:
    """Check the form of a device's name, without looking for the device.

    Args:
        name: a name for :func:`choose_device`.
        many: True also allows the names for :func:`choose_devices`.

    Raises:
        SettingsError: the name is not the name of a device.
    """
    if _NAME.fullmatch(name) is not None:
        return
    if many and _LIST.fullmatch(name) is not None:
        numbers = [int(number) for number in re.findall("[0-9]+", name)]
        if len(set(numbers)) < len(numbers):
            raise SettingsError(f"device {name!r} names a device twice; name each once")
        return
    lists = ", a list such as cuda:0,cuda:1, or cuda:all" if many else ""
    known = f"auto, cpu, cuda, cuda:N{',' if many else ' or'} mps{lists}"
    raise SettingsError(f"device must be {known}, not {name!r}")


def choose_device(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: "cpu", "cuda", "cuda:N", "mps", or "auto" for CUDA if available, else MPS if available, else the CPU.

    Raises:
        SettingsError: an unknown name, or a device that this machine does not have.
    """
    import torch

    check_device_name(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda":
        count = _cuda_devices()
        if int(index or 0) >= count:  # checked here, as the index of a torch.device wraps around at 128
            raise SettingsError(f"there is no device {name!r} here (CUDA devices found: {count}); use cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("there is no device 'mps' here; use cpu or auto")
    return torch.device(name)


def choose_devices(name: str) -> list[torch.device]:
    """Return the devices of a name, at least one.

    Args:
        name: a name for :func:`choose_device`; a list such as "cuda:0,cuda:1"; or "cuda:all" for all CUDA devices.

    Raises:
        SettingsError: an unknown name, or a device that this machine does not have.
    """
    check_device_name(name, many=True)
    if name == "cuda:all":
        count = _cuda_devices()
        if count == 0:
            raise SettingsError("there is no CUDA device here; use cpu or auto")
        return [choose_device(f"cuda:{index}") for index in range(count)]
    return [choose_device(one) for one in name.split(",")]


def replicas(model: Model, devices: Sequence[torch.device]) -> list[Model]:
    """Return the model on each of several devices, for :func:`vggish_pt.inference.embed_clips`.

    Args:
        model: the model. It is moved to the first device and copied to the others.
        devices: the devices, at least one.
    """
    return [model.to(devices[0]), *(copy.deepcopy(model).to(device) for device in devices[1:])]


def set_precision(model: Model, precision: str) -> Model:
    """Set the precision of a model's network, in place.

    Args:
        model: the model, on the device where it will compute.
        precision: "fp32"; "tf32": float32 with 10 bits of mantissa in products, on CUDA devices from Ampere on; or
            "bf16".

    Returns:
        The model.

    Raises:
        SettingsError: an unknown precision, or TF32 on another device than CUDA's.
    """
    import torch

    check_precision(precision)
    if precision == "tf32" and model.device.type != "cuda":
        raise SettingsError(f"precision tf32 needs a CUDA device, not {model.device}; use fp32 or bf16")
    model.network.tf32 = precision == "tf32"
    return model.to(torch.bfloat16) if precision == "bf16" else model


def _cuda_devices() -> int:
    import torch

    # A CUDA build of torch may count devices that cannot be used without a driver.
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
