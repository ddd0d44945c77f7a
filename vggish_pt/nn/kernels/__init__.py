"""Kernels that compute the network's layers: torch's own, and oneDNN's fused ones for inference on the CPU.

torch sends float32 matrix products to MKL, which is slow on some processors, and applies each ReLU in a separate pass
over memory. oneDNN's kernels include the ReLU. torch has them for its compiler; where they are missing, torch's own
kernels are used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vggish_pt.nn.conv import Float32Conv2d


class Kernels(Protocol):
    """Operations of the network's layers."""

    def conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """Return convolution and ReLU: (n, in, height, width) → (n, out, height, width)."""

    def pool(self, x: Tensor) -> Tensor:
        """Return the 2x2 max pool: (n, channels, height, width) → (n, channels, height / 2, width / 2)."""

    def linear(self, layer: nn.Linear, x: Tensor, relu: bool) -> Tensor:
        """Return a fully connected layer, with or without ReLU: (n, in) → (n, out)."""


class TorchKernels(Kernels):
    """torch's own operations: differentiable, on any device, also for layers with hooks or of other classes."""

    @override
    def conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        return F.relu(layer(x))

    @override
    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2)

    @override
    def linear(self, layer: nn.Linear, x: Tensor, relu: bool) -> Tensor:
        x = layer(x)
        return F.relu(x) if relu else x


class OneDnnKernels(Kernels):
    """oneDNN's operations with fused ReLU, for inference on the CPU in float32 or bfloat16.

    Weights stay in torch's layout. Packing them once into oneDNN's layout gained 3 % in the convolutions, but every
    write to the weights would have to be noticed.
    """

    @override
    def conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        geometry = (layer.padding, layer.stride, layer.dilation, layer.groups)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, layer.weight, layer.bias, *geometry, "relu", [], "")
        return y

    @override
    def pool(self, x: Tensor) -> Tensor:
        # torch's max_pool2d would also write the position of each maximum, in 64 bits.
        rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])

    @override
    def linear(self, layer: nn.Linear, x: Tensor, relu: bool) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "relu" if relu else "none", [], "")
        return y


TORCH_KERNELS = TorchKernels()
ONEDNN_KERNELS = OneDnnKernels()


def inference_kernels(layers: Iterable[nn.Module]) -> Kernels:
    """Return the fastest kernels that compute the given layers on their device.

    Args:
        layers: all layers of the network.
    """
    return ONEDNN_KERNELS if _onednn_available() and _onednn_supports(list(layers)) else TORCH_KERNELS


def _onednn_available() -> bool:
    names = ("_convolution_pointwise", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    mkldnn: Any = torch.backends.mkldnn
    return mkldnn.is_available() and mkldnn.enabled and all(hasattr(torch.ops.mkldnn, name) for name in names)


def _onednn_supports(layers: list[nn.Module]) -> bool:
    # Layers of other classes or with hooks compute more than their weights alone determine.
    if any(type(layer) not in (Float32Conv2d, nn.Conv2d, nn.Linear) for layer in layers):
        return False
    if any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers):
        return False
    kinds = {(p.device.type, p.dtype, isinstance(layer, Float32Conv2d)) for layer in layers for p in layer.parameters()}
    if {kind for kind in kinds if not kind[2]} == {("cpu", torch.bfloat16, False)}:
        supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        return supported and all(device == "cpu" for device, _, _ in kinds)
    return {kind[:2] for kind in kinds} == {("cpu", torch.float32)}
