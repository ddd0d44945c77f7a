from __future__ import annotations

import pytest
import torch

from vggish_pt.errors import SettingsError
from vggish_pt.inference.devices import check_device_name, choose_device, choose_devices


def test_auto_and_cpu() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == expected


@pytest.mark.parametrize("name", ["", "CPU", "gpu", "cuda:", "cuda:-1", "cuda:1.5", "cuda:0\n", "meta", "cpu:1", "xpu"])
def test_unknown_names(name: str) -> None:
    for check in (check_device_name, choose_device):
        with pytest.raises(SettingsError, match="device must be auto, cpu, cuda, cuda:N or mps, not "):
            check(name)


def test_devices_that_are_not_there() -> None:
    check_device_name("cuda:999")
    with pytest.raises(SettingsError, match=r"no device 'cuda:999' here .*; use cpu or auto"):
        choose_device("cuda:999")
    if not torch.backends.mps.is_available():
        with pytest.raises(SettingsError, match="no device 'mps' here"):
            choose_device("mps")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda() -> None:
    assert choose_device("cuda").type == "cuda"
    assert choose_device("cuda:0") == torch.device("cuda", 0)


def test_several_devices() -> None:
    assert choose_devices("cpu") == [torch.device("cpu")]
    assert len(choose_devices("auto")) == 1
    for name in ("cuda:0,cuda:1", "cuda:all", "cpu", "auto"):
        check_device_name(name, many=True)
    for name in ("cuda:0,cuda:1", "cuda:all"):
        with pytest.raises(SettingsError, match="device must be auto, cpu, cuda, cuda:N or mps, not "):
            check_device_name(name)
    for name in ("cuda:0,", "cuda:0,cpu", "cuda,cuda:1", "cpu,cpu", "all", "cuda:0, cuda:1"):
        with pytest.raises(SettingsError, match=r"device must be .* a list such as cuda:0,cuda:1, or cuda:all, not "):
            choose_devices(name)
    with pytest.raises(SettingsError, match="twice"):
        choose_devices("cuda:0,cuda:00")
    with pytest.raises(SettingsError, match="no device 'cuda:998' here"):
        choose_devices("cuda:998,cuda:999")
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="no CUDA device here"):
            choose_devices("cuda:all")
