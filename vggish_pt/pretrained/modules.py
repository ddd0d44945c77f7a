"""Loading, saving and uploading of modules: what VGGish and the classifiers on top of it share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def load_tensors(
    module: Module, network: nn.Module, tensors: Mapping[str, Tensor], device: str | torch.device | None = None
) -> Module:
    """Load tensors into a module that was built on the meta device, and put it into evaluation mode.

    Args:
        module: the module; its parameters require gradients afterwards.
        network: the convolutional network in it, which gets the memory format "channels last".
        tensors: values by name. All become float32, except PCA parameters, which keep their precision.
        device: device to move the module to; None for the CPU.
    """
    state = {
        name: tensor if "postprocess" in name.split(".")[:-1] else tensor.to(torch.float32)
        for name, tensor in tensors.items()
    }
    module.load_state_dict(state, assign=True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    if device is not None:
        module.to(device)
    return module.eval()


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module as files hold them: contiguous on the CPU, bfloat16 as float32."""
    tensors = {}
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().to("cpu")
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        tensors[name] = tensor.contiguous(memory_format=torch.contiguous_format)
    return tensors


def save_and_push(save: Callable[[Path], None], push: Callable[..., str], repo_id: str, **options: Any) -> str:
    """Save a model into a temporary folder and upload the folder.

    Args:
        save: writes the model into a folder.
        push: uploads a folder; called with the folder, ``repo_id`` and ``options``.
        repo_id: "user/name".
        options: keyword arguments for ``push``.

    Returns:
        The commit's address.
    """
    with tempfile.TemporaryDirectory() as staging:
        folder = Path(staging) / "model"
        save(folder)
        return push(folder, repo_id, **options)
