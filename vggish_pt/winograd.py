"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3).

A tile of 4x4 outputs needs 6x6 inputs. Tile and kernel are transformed, multiplied element by element (which over all
channels is 36 matrix products), and transformed back; see Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks" (CVPR 2016, arXiv 1509.09308). The transforms evaluate polynomials at five points and infinity. The usual
points 0, ±1, ±2 make the root mean square error in this network's layers 5 times that of direct convolution in float32;
0, ±3/4, ±3/2 make it 2.4 times.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vggish_pt.checkpoints.checksum import crc32c
from vggish_pt.kernels import OneDnnKernels

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
TILE = 4
_WINDOW = TILE + 2

_Matrix = NDArray[np.float64]


def transforms(points: tuple[float, ...] = POINTS) -> tuple[_Matrix, _Matrix, _Matrix]:
    """The matrices of F(4, 3): for signal ``d`` (6,) and kernel ``g`` (3,), ``A @ ((G @ g) * (B @ d))`` is their
    correlation (4,).

    Args:
        points: five different numbers at which polynomials are evaluated; infinity is the sixth.

    Returns:
        A (4, 6), G (6, 3) and B (6, 6), float64.
    """

    def evaluate(coefficients: int) -> _Matrix:
        at_infinity = np.eye(coefficients)[-1:]
        return np.vstack([np.vander(np.array(points), coefficients, increasing=True), at_infinity])

    b = np.linalg.inv(evaluate(_WINDOW)).T
    # Each row of B may be scaled if G's is scaled back; with a smallest entry of 1, neither is lopsided.
    scale = np.array([1 / np.abs(row[np.abs(row) > 1e-9]).min() for row in b])[:, None]
    return evaluate(TILE).T, evaluate(3) / scale, b * scale


def _both_axes(matrix: _Matrix) -> Tensor:
    return torch.from_numpy(np.kron(matrix, matrix)).float()


_A, _G, _B = transforms()
_INPUT, _OUTPUT = _both_axes(_B), _both_axes(_A)  # (36, 36) and (16, 36)


def pack(weight: Tensor) -> Tensor:
    """Transforms kernels.

    Args:
        weight: (out, in, 3, 3) float32.

    Returns:
        (36, out, in) float32.
    """
    g = torch.from_numpy(_G)
    transformed = torch.einsum("ij,ocjk,lk->iloc", g, weight.detach().double(), g)
    return transformed.flatten(0, 1).float().contiguous()


def convolve(x: Tensor, packed: Tensor, bias: Tensor) -> Tensor:
    """Convolution with padding 1, and ReLU; without gradients.

    Args:
        x: (n, in, height, width) float32, height and width multiples of 4; fastest in channels_last.
        packed: kernels as :func:`pack` gives them.
        bias: (out,).

    Returns:
        (n, out, height, width) in channels_last.
    """
    n, channels, height, width = x.shape
    rows, columns, out = height // TILE, width // TILE, packed.shape[1]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    tiles = padded.unfold(1, _WINDOW, TILE).unfold(2, _WINDOW, TILE)  # (n, rows, columns, channels, 6, 6)
    transformed = (_INPUT @ tiles.permute(4, 5, 0, 1, 2, 3).reshape(36, -1)).view(36, -1, channels)
    products = torch.stack(
        [
            torch.ops.mkldnn._linear_pointwise(tile, kernel, None, "none", [], "")
            for tile, kernel in zip(transformed, packed, strict=True)
        ]
    )
    outputs = (_OUTPUT @ products.view(36, -1)).view(TILE, TILE, n, rows, columns, out)
    y = outputs.permute(2, 3, 0, 4, 1, 5).reshape(n, height, width, out).add_(bias).relu_()
    return y.permute(0, 3, 1, 2)


class WinogradKernels(OneDnnKernels):
    """oneDNN's operations, with the larger convolutions after Winograd. Float32 on the CPU; for many windows at a time.

    Args:
        layers: all layers of the network. Those with at least 128 channels in are transformed here, which takes four
            times their memory (71 MB in VGGish); smaller ones are faster directly.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._layers = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.in_channels >= 128]
        self._checksum = self._current_checksum()
        self._packed = {
            id(layer): pack(layer.weight) for layer in self._layers
        }  # which keeps the layers, and so the ids

    def fits(self, layers: Iterable[nn.Module]) -> bool:
        """Whether these are the layers that were transformed, their weights as they were, however written to since."""
        known = {id(layer) for layer in layers}
        return all(id(layer) in known for layer in self._layers) and self._checksum == self._current_checksum()

    def _current_checksum(self) -> int:
        checksum = 0
        for layer in self._layers:
            stored = layer.weight.detach().permute(0, 2, 3, 1).contiguous()  # no copy in channels_last
            checksum = crc32c(stored.numpy().data.cast("B"), checksum)
        return checksum

    def conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """As in :class:`~vggish_pt.kernels.Kernels`."""
        packed = self._packed.get(id(layer))
        if packed is None or layer.bias is None:
            return super().conv(layer, x)
        return convolve(x, packed, layer.bias)
