"""3x3 convolutions with a quarter or a third of the multiplications, after Winograd.

F(4x4, 3x3): a tile of 4x4 outputs needs 6x6 inputs. Tile and kernel are transformed, multiplied element by element
(which over all channels is 36 matrix products), and transformed back; see Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks" (CVPR 2016, arXiv 1509.09308). The transforms evaluate polynomials at five points and
infinity. The usual points 0, ±1, ±2 make the root mean square error in this network's layers 5 times that of direct
convolution in float32; 0, ±3/4, ±3/2 make it 2.4 times.

In bfloat16, where the tile is rounded to 8 bits after its transform, F(4x4) would move the embedding too far. F(2x4),
with 24 products for 8 outputs, moves it about as far as bfloat16 itself does. Its matrices have 8 bits or fewer, so
they are exact; rounded ones cost more than all other roundings together where activations have a mean.
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

from vggish_pt.nn.kernels import OneDnnKernels
from vggish_pt.utils.crc32c import crc32c

POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.75, -0.75, 1.5, -1.5)}
"""Outputs of a tile along one axis → the points, infinity aside, at which polynomials are evaluated."""

_Matrix = NDArray[np.float64]


def transforms(points: tuple[float, ...]) -> tuple[_Matrix, _Matrix, _Matrix]:
    """The matrices of F(m, 3): for signal ``d`` (m + 2,) and kernel ``g`` (3,), ``A @ ((G @ g) * (B @ d))`` is their
    correlation (m,).

    Args:
        points: m + 1 different numbers at which polynomials are evaluated; infinity is one more.

    Returns:
        A (m, m + 2), G (m + 2, 3) and B (m + 2, m + 2), float64. B holds polynomials with a leading coefficient of 1;
        what they are divided by is in G.
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
        rows, columns: outputs of a tile.
        dtype: of inputs, outputs and transformed kernels.
        to_tile: transforms a tile's inputs, ((rows + 2) * (columns + 2),) squared.
        from_tile: gives its outputs, (rows * columns, (rows + 2) * (columns + 2)).
    """

    rows: int
    columns: int
    dtype: torch.dtype
    to_tile: Tensor
    from_tile: Tensor

    @classmethod
    def make(cls, rows: int, columns: int, dtype: torch.dtype) -> Algorithm:
        """The algorithm with this module's points."""
        (a, _, b), (across_a, _, across_b) = transforms(POINTS[rows]), transforms(POINTS[columns])
        return cls(rows, columns, dtype, _both_axes(b, across_b).to(dtype), _both_axes(a, across_a).to(dtype))

    def pack(self, weight: Tensor) -> Tensor:
        """Transforms kernels.

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
        """Convolution with padding 1, and ReLU; without gradients.

        Args:
            x: (n, in, height, width), height a multiple of ``rows``, width of ``columns``; fastest in channels_last.
            packed: kernels as :meth:`pack` gives them, or each of them in oneDNN's layout.
            bias: (out,).
            workspace: memory to work in, where there is some from the call before.

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
    """Memory that is used again: fresh memory of this size comes from the system, page by page, at half the time."""

    def __init__(self) -> None:
        self._buffers: dict[object, Tensor] = {}

    def buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor that holds anything. It is good until the next call with this name."""
        size = math.prod(shape)
        found = self._buffers.get((name, dtype))
        if found is None or found.numel() < size:
            found = self._buffers[name, dtype] = torch.empty(size, dtype=dtype)
        return found[:size].view(shape)

    def padded(self, n: int, height: int, width: int, channels: int, dtype: torch.dtype) -> Tensor:
        """A tensor (n, height + 2, width + 2, channels) whose border is zero, if nobody writes to it."""
        key = (height, width, channels, dtype)
        found = self._buffers.get(key)
        if found is None or len(found) < n:
            found = self._buffers[key] = torch.zeros(n, height + 2, width + 2, channels, dtype=dtype)
        return found[:n]


def _both_axes(down: _Matrix, across: _Matrix) -> Tensor:
    return torch.from_numpy(np.kron(down, across))


def _multiply(tiles: Tensor, kernels: Tensor | Sequence[Tensor], out: Tensor) -> None:
    """(p, n, in) times (p, out, in) → (p, n, out), by oneDNN: float32 in a batch would go to MKL; see kernels.py."""
    if isinstance(kernels, Tensor) and tiles.dtype == torch.bfloat16:
        torch.bmm(tiles, kernels.transpose(1, 2), out=out)
        return
    for product, tile, kernel in zip(out, tiles, kernels, strict=True):
        product.copy_(torch.ops.mkldnn._linear_pointwise(tile, kernel, None, "none", [], ""))


def _laid_out(packed: Tensor) -> Tensor | list[Tensor]:
    """Kernels as oneDNN wants them, so that it need not lay them out in every call."""
    lay_out = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    if packed.dtype != torch.float32 or lay_out is None:
        return packed
    return [lay_out(kernel) for kernel in packed]


ALGORITHMS = {
    torch.float32: Algorithm.make(4, 4, torch.float32),
    torch.bfloat16: Algorithm.make(2, 4, torch.bfloat16),
}


class WinogradKernels(OneDnnKernels):
    """oneDNN's operations, with the larger convolutions after Winograd, on the CPU.

    Args:
        layers: all layers of the network. Those with at least 128 channels in are transformed here, which takes four
            times their memory in float32 (71 MB in VGGish), 2.7 times in bfloat16 (24 MB); smaller ones are faster
            directly. Each thread that computes keeps some tens of megabytes to work in.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._threads = threading.local()  # a workspace for each thread that computes
        self._layers = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.in_channels >= 128]
        self._checksum = self._current_checksum()
        # _layers keeps the layers, and so their ids.
        self._packed = {
            id(layer): _laid_out(ALGORITHMS[layer.weight.dtype].pack(layer.weight)) for layer in self._layers
        }

    def fits(self, layers: Iterable[nn.Module]) -> bool:
        """Whether these are the layers that were transformed, their weights as they were, however written to since."""
        known = {id(layer) for layer in layers}
        return all(id(layer) in known for layer in self._layers) and self._checksum == self._current_checksum()

    def _current_checksum(self) -> int:
        checksum = 0
        for layer in self._layers:
            stored = layer.weight.detach().permute(0, 2, 3, 1).contiguous()  # no copy in channels_last
            checksum = crc32c(stored.view(torch.uint8).numpy().data.cast("B"), checksum)
        return checksum

    def conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """As in :class:`~vggish_pt.nn.kernels.Kernels`."""
        packed = self._packed.get(id(layer))
        if packed is None or layer.bias is None:
            return super().conv(layer, x)
        workspace: Workspace | None = getattr(self._threads, "workspace", None)
        if workspace is None:
            workspace = self._threads.workspace = Workspace()
        return ALGORITHMS[layer.weight.dtype].convolve(x, packed, layer.bias, workspace)
