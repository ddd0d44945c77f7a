"""Winograd's 3x3 convolutions, which need a quarter or a third of the multiplications.

F(4x4, 3x3): a tile of 4x4 outputs needs 6x6 inputs. Tile and kernel are transformed, multiplied element by element
(over all channels, 36 matrix products), and transformed back; see Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks" (CVPR 2016, arXiv 1509.09308, section 4). The transforms evaluate polynomials at five points and at
infinity. With the usual points 0, ±1, ±2, the root mean square error in this network's layers is 5 times that of direct
convolution in float32; with 0, ±3/4, ±3/2 it is 2.4 times.

In bfloat16 a transformed tile is rounded to 8 bits. F(4x4) would change embeddings too much; F(2x4), with 24 products
for 8 outputs, changes them about as much as bfloat16 itself does. Its matrices are exact in 8 bits; rounded matrices
would cost more than all other roundings together where activations have a mean.

Own code, as ``torch.compile`` runs at 0.86 times the speed of torch's direct convolution, these kernels at 1.42 times
in float32 and at 1.29 times in bfloat16 (``benchmarks/README.md``, "Past direct convolution").
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from vggish_pt.nn.kernels import OneDnnKernels
from vggish_pt.utils.crc32c import crc32c

POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.75, -0.75, 1.5, -1.5)}
"""Points besides infinity at which polynomials are evaluated, by the number of outputs of a tile along an axis."""

_Matrix = NDArray[np.float64]


def transforms(points: tuple[float, ...]) -> tuple[_Matrix, _Matrix, _Matrix]:
    """Return the matrices of F(m, 3).

    For a signal ``d`` (m + 2,) and a kernel ``g`` (3,), ``A @ ((G @ g) * (B @ d))`` is their correlation (m,).

    Args:
        points: m + 1 different numbers at which polynomials are evaluated, besides infinity.

    Returns:
        A (m, m + 2), G (m + 2, 3) and B (m + 2, m + 2), float64. B holds polynomials with a leading coefficient of 1;
        G includes their divisors.
    """

    def evaluate(coefficients: int) -> _Matrix:
        at_infinity = np.eye(coefficients)[-1:]
        return np.vstack([np.vander(np.array(points), coefficients, increasing=True), at_infinity])

    window = len(points) + 1
    b, divisors = np.zeros((window, window)), np.ones(window)
    for row, point in enumerate(points):  # the polynomial that is zero at all other points
        others = [other for other in points if other != point]
        b[row, : window - 1] = np.poly(others)[::-1]
        divisors[row] = np.prod([point - other for other in others])
    b[-1] = np.poly(points)[::-1]
    return evaluate(window - 2).T, evaluate(3) / divisors[:, None], b


@dataclass(frozen=True)
class Algorithm:
    """F(rows x columns, 3x3) in one data type.

    Attributes:
        rows, columns: size of a tile of outputs.
        dtype: data type of inputs, outputs and transformed kernels.
        to_tile: matrix that transforms the inputs of a tile, p x p with p = (rows + 2) * (columns + 2).
        from_tile: matrix that transforms products to the outputs of a tile, (rows * columns, p).
    """

    rows: int
    columns: int
    dtype: torch.dtype
    to_tile: Tensor
    from_tile: Tensor

    @classmethod
    def make(cls, rows: int, columns: int, dtype: torch.dtype) -> Algorithm:
        """Return the algorithm with the points of :data:`POINTS`."""
        (a, _, b), (across_a, _, across_b) = transforms(POINTS[rows]), transforms(POINTS[columns])
        return cls(rows, columns, dtype, _both_axes(b, across_b).to(dtype), _both_axes(a, across_a).to(dtype))

    def pack(self, weight: Tensor) -> Tensor:
        """Transform kernels.

        Args:
            weight: (out, in, 3, 3) floating point.

        Returns:
            ((rows + 2) * (columns + 2), out, in).
        """
        down, across = (torch.from_numpy(transforms(POINTS[size])[1]) for size in (self.rows, self.columns))
        transformed = torch.einsum("ij,ocjk,lk->iloc", down, weight.detach().double(), across)
        return transformed.flatten(0, 1).to(self.dtype).contiguous()

    def convolve(
        self, x: Tensor, packed: Tensor | Sequence[Tensor], bias: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        """Compute a convolution with padding 1, and ReLU, without gradients.

        Args:
            x: (n, in, height, width), height a multiple of ``rows``, width of ``columns``; fastest in channels_last.
            packed: output of :meth:`pack`, or a list of its matrices in oneDNN's layout.
            bias: (out,).
            workspace: buffers of an earlier call; None allocates new ones.

        Returns:
            (n, out, height, width) in channels_last.
        """
        workspace = workspace or Workspace()
        n, channels, height, width = x.shape
        down, across, out, points = height // self.rows, width // self.columns, len(bias), len(packed)
        padded = workspace.padded(n, height, width, channels, self.dtype)
        padded[:, 1:-1, 1:-1].copy_(x.permute(0, 2, 3, 1))
        tiles = padded.unfold(1, self.rows + 2, self.rows).unfold(2, self.columns + 2, self.columns)
        inputs = workspace.buffer("inputs", (*tiles.shape[4:], n, down, across, channels), self.dtype)
        inputs.copy_(tiles.permute(4, 5, 0, 1, 2, 3))
        count = n * down * across
        transformed = workspace.buffer("transformed", (points, count * channels), self.dtype)
        torch.mm(self.to_tile, inputs.view(points, -1), out=transformed)
        products = workspace.buffer("products", (points, count, out), self.dtype)
        _multiply(transformed.view(points, count, channels), packed, products)
        outputs = workspace.buffer("inputs", (self.rows * self.columns, count * out), self.dtype)
        torch.mm(self.from_tile, products.view(points, -1), out=outputs)
        y = torch.empty(n, down, self.rows, across, self.columns, out, dtype=self.dtype)
        y.copy_(outputs.view(self.rows, self.columns, n, down, across, out).permute(2, 3, 0, 4, 1, 5))
        return y.view(n, height, width, out).add_(bias).relu_().permute(0, 3, 1, 2)


class Workspace:
    """Buffers that calls reuse. Without reuse, getting memory of this size from the system takes half of the time."""

    def __init__(self) -> None:
        self._buffers: dict[object, Tensor] = {}

    def buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor. The next call with this name reuses its memory."""
        size = math.prod(shape)
        found = self._buffers.get((name, dtype))
        if found is None or found.numel() < size:
            found = self._buffers[name, dtype] = torch.empty(size, dtype=dtype)
        return found[:size].view(shape)

    def padded(self, n: int, height: int, width: int, channels: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor (n, height + 2, width + 2, channels) with a border of zeros, which callers must not write."""
        key = (height, width, channels, dtype)
        found = self._buffers.get(key)
        if found is None or len(found) < n:
            found = self._buffers[key] = torch.zeros(n, height + 2, width + 2, channels, dtype=dtype)
        return found[:n]


def _both_axes(down: _Matrix, across: _Matrix) -> Tensor:
    return torch.from_numpy(np.kron(down, across))


def _multiply(tiles: Tensor, kernels: Tensor | Sequence[Tensor], out: Tensor) -> None:
    """Multiply (p, n, in) by (p, out, in) into (p, n, out), in float32 by oneDNN, as torch.bmm would use MKL."""
    if isinstance(kernels, Tensor) and tiles.dtype == torch.bfloat16:
        torch.bmm(tiles, kernels.transpose(1, 2), out=out)
        return
    for product, tile, kernel in zip(out, tiles, kernels, strict=True):
        product.copy_(torch.ops.mkldnn._linear_pointwise(tile, kernel, None, "none", [], ""))


def _laid_out(packed: Tensor) -> Tensor | list[Tensor]:
    """Return float32 matrices in oneDNN's layout, so that oneDNN does not reorder them in every call."""
    lay_out = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    if packed.dtype != torch.float32 or lay_out is None:
        return packed
    return [lay_out(kernel) for kernel in packed]


ALGORITHMS = {
    torch.float32: Algorithm.make(4, 4, torch.float32),
    torch.bfloat16: Algorithm.make(2, 4, torch.bfloat16),
}


class WinogradKernels(OneDnnKernels):
    """oneDNN's operations on the CPU, with Winograd's algorithm for the larger convolutions.

    Transformed weights take four times the memory of the weights in float32 (71 MB in VGGish), 2.7 times in bfloat16
    (24 MB). Each thread that computes has buffers of some tens of megabytes.

    Args:
        layers: all layers of the network. Convolutions with 128 or more input channels are transformed; direct
            convolution is faster for the others.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._threads = threading.local()  # a workspace for each thread that computes
        self._layers = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.in_channels >= 128]
        self._checksum = self._current_checksum()
        # ids stay valid, as _layers holds the layers.
        self._packed = {
            id(layer): _laid_out(ALGORITHMS[layer.weight.dtype].pack(layer.weight)) for layer in self._layers
        }

    def fits(self, layers: Iterable[nn.Module]) -> bool:
        """Return True if these layers were transformed and their weights have not changed since.

        The check compares a CRC-32C of the weights, 2.4 ms for the 17.7 MB of these layers. ``Tensor._version`` and
        ``data_ptr`` would take 13 us, but stay the same when ``weight.data``, a NumPy array that shares the memory or
        another process is written to. Comparing with a copy takes as long as the CRC, and the memory of the copy.
        """
        known = {id(layer) for layer in layers}
        return all(id(layer) in known for layer in self._layers) and self._checksum == self._current_checksum()

    def _current_checksum(self) -> int:
        checksum = 0
        for layer in self._layers:
            weight = layer.weight.detach().permute(0, 2, 3, 1).contiguous()  # no copy in channels_last
            checksum = crc32c(weight.view(torch.uint8).numpy().data.cast("B"), checksum)
        return checksum

    @override
    def conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        packed = self._packed.get(id(layer))
        if packed is None or layer.bias is None:
            return super().conv(layer, x)
        workspace: Workspace | None = getattr(self._threads, "workspace", None)
        if workspace is None:
            workspace = self._threads.workspace = Workspace()
        return ALGORITHMS[layer.weight.dtype].convolve(x, packed, layer.bias, workspace)
