"""The operations of the network's layers: torch's own, and oneDNN's fused ones for inference on the CPU.

The network says which layers follow each other; how one is computed is decided here. torch sends float32 matrix
products to MKL, which is slow on some processors, and applies each ReLU in a pass of its own over memory. oneDNN's
kernels take the ReLU along. torch has them for its compiler; where they are missing, torch's own are used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggish_pt.nn.conv import Float32Conv2d


class Kernels(Protocol):
    """How a layer is computed."""

    def conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """Convolution and ReLU."""

    def pool(self, x: Tensor) -> Tensor:
        """2x2 max pool."""

    def linear(self, layer: nn.Linear, x: Tensor, relu: bool) -> Tensor:
        """Fully connected layer, with or without ReLU."""


class TorchKernels:
    """torch's own operations: any device, differentiable, hooks and replaced layers work."""

    def conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """As in :class:`Kernels`."""
        return F.relu(layer(x))

    def pool(self, x: Tensor) -> Tensor:
        """As in :class:`Kernels`."""
        return F.max_pool2d(x, 2)

    def linear(self, layer: nn.Linear, x: Tensor, relu: bool) -> Tensor:
        """As in :class:`Kernels`."""
        x = layer(x)
        return F.relu(x) if relu else x


class OneDnnKernels:
    """oneDNN's operations on the CPU with the ReLU fused in, for inference in float32 or bfloat16.

    Weights are taken as they lie. Packing them beforehand into oneDNN's own layout gained 3 % in the convolutions and
    would have to notice every write to them.
    """

    def conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """As in :class:`Kernels`."""
        geometry = (layer.padding, layer.stride, layer.dilation, layer.groups)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, layer.weight, layer.bias, *geometry, "relu", [], "")
        return y

    def pool(self, x: Tensor) -> Tensor:
        """As in :class:`Kernels`. torch's pool would also write where each maximum was, in 64 bits."""
        rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])

    def linear(self, layer: nn.Linear, x: Tensor, relu: bool) -> Tensor:
        """As in :class:`Kernels`."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "relu" if relu else "none", [], "")
        return y


TORCH_KERNELS = TorchKernels()
ONEDNN_KERNELS = OneDnnKernels()


def inference_kernels(layers: Iterable[nn.Module]) -> Kernels:
    """The fastest kernels that compute exactly these layers where they are.

    Args:
        layers: all layers of the network.
    """
    return ONEDNN_KERNELS if _onednn_offers() and _onednn_takes(list(layers)) else TORCH_KERNELS


def _onednn_offers() -> bool:
    names = ("_convolution_pointwise", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    mkldnn: Any = torch.backends.mkldnn
    return mkldnn.is_available() and mkldnn.enabled and all(hasattr(torch.ops.mkldnn, name) for name in names)


def _onednn_takes(layers: list[nn.Module]) -> bool:
    # A layer of another class, or with hooks, does more than its weights say.
    if any(type(layer) not in (Float32Conv2d, nn.Conv2d, nn.Linear) for layer in layers):
        return False
    if any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers):
        return False
    kinds = {(p.device.type, p.dtype, isinstance(layer, Float32Conv2d)) for layer in layers for p in layer.parameters()}
    if {kind for kind in kinds if not kind[2]} == {("cpu", torch.bfloat16, False)}:
        supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        return supported and all(device == "cpu" for device, _, _ in kinds)
    return {kind[:2] for kind in kinds} == {("cpu", torch.float32)}
