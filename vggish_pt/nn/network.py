"""The network: log-mel examples → 128 numbers each.

VGG configuration A with the last group of convolutions left out (``vggish_slim.py`` of Google's reference): four
blocks of 3x3 convolutions, each ending in a 2x2 max pool, then three fully connected layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.nn.conv import Float32Conv2d
from vggish_pt.nn.fusion import fuse, over_time
from vggish_pt.nn.kernels import ONEDNN_KERNELS, TORCH_KERNELS, Kernels, inference_kernels
from vggish_pt.nn.kernels.winograd import WinogradKernels
from vggish_pt.nn.layers import check_layer, fused_stages
from vggish_pt.nn.precision import float32_products

# Windows per pass through the convolutions, whose intermediates should stay in the cache. (The fully connected layers
# are bound by reading their weights, so they get all windows at once.)
_CONV_BLOCK = 16
_WINOGRAD_BLOCK_PER_THREAD = 8
# Elsewhere there is no such cache to stay in; small blocks would only leave the device waiting for its next kernel.
_DEVICE_BLOCK = 256

# In float32, below so many windows, checking that the transformed weights are still right would cost more than a
# percent. (In bfloat16 one window gains as much as many, and would differ visibly from the same window among many.)
# With many threads the products become too small to share out (measured with two only).
_WINOGRAD_MIN_WINDOWS = {torch.float32: 32, torch.bfloat16: 1}
_WINOGRAD_MAX_THREADS = 8

_BLOCKS = {
    "conv1": ("conv1",),
    "conv2": ("conv2",),
    "conv3": ("conv3_1", "conv3_2"),
    "conv4": ("conv4_1", "conv4_2"),
}


class Network(nn.Module):
    """The VGGish network.

    Args:
        fc_width: width of the two large fully connected layers (4096 in Google's model).
        final_relu: whether the embedding goes through a last ReLU (see :class:`vggish_pt.nn.config.VGGishConfig`).

    Attributes:
        winograd: whether :meth:`infer` may use Winograd's convolutions on the CPU, which are faster. In float32, where
            they are used for many windows, they move embeddings by less than 2e-5; in bfloat16 about as far as bfloat16
            itself does. True.
        tf32: whether :meth:`infer` may use TF32 for float32 on a CUDA device. False.
    """

    def __init__(self, fc_width: int = 4096, final_relu: bool = False) -> None:
        super().__init__()
        self.final_relu = final_relu
        self.winograd = True
        self.tf32 = False
        self._winograd: WinogradKernels | None = None
        self.conv1 = Float32Conv2d(1, 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv3_1 = nn.Conv2d(128, 256, 3, padding=1)
        self.conv3_2 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv4_1 = nn.Conv2d(256, 512, 3, padding=1)
        self.conv4_2 = nn.Conv2d(512, 512, 3, padding=1)
        flat = (c.EXAMPLE_FRAMES // 16) * (c.MEL_BANDS // 16) * 512
        self.fc1 = nn.Linear(flat, fc_width)
        self.fc2 = nn.Linear(fc_width, fc_width)
        self.embedding = nn.Linear(fc_width, c.EMBEDDING_SIZE)

    def convolutions(self, examples: Tensor, kernels: Kernels = TORCH_KERNELS) -> Iterator[tuple[str, Tensor]]:
        """The convolutional part, stage by stage; what is not asked for is not computed.

        Args:
            examples: (n, 1, 96, 64).
            kernels: how to compute the layers.

        Yields:
            Name and output of each stage, (n, channels, time, frequency): blocks after their pool (conv1 to conv4),
            and in blocks of two convolutions each of them after its ReLU (conv3_1, conv3_2, conv4_1, conv4_2).
        """
        # The first layer may be of a wider type than the others; see Float32Conv2d.
        wide, narrow = self.conv1.weight.dtype, self.conv2.weight.dtype
        x = examples.to(wide)
        for block, names in _BLOCKS.items():
            for name in names:
                x = kernels.conv(getattr(self, name), x)
                if name != block:
                    yield name, x
            x = kernels.pool(x)
            if block == "conv1" and narrow != wide:
                x = x.to(narrow)
            yield block, x

    def fully_connected(self, features: Tensor, kernels: Kernels = TORCH_KERNELS) -> Iterator[tuple[str, Tensor]]:
        """The fully connected part, stage by stage; what is not asked for is not computed.

        Args:
            features: (n, 512, 6, 4), what the convolutions give.
            kernels: how to compute the layers.

        Yields:
            Name and output of each stage: fc1 and fc2 (n, fc_width), embedding (n, 128).
        """
        # TensorFlow flattens (height, width, channels); free of cost where the memory format is channels_last.
        x = features.permute(0, 2, 3, 1).flatten(1)
        for name, relu in (("fc1", True), ("fc2", True), ("embedding", self.final_relu)):
            x = kernels.linear(getattr(self, name), x, relu)
            yield name, x

    def forward(self, examples: Tensor, layer: str = "embedding") -> Tensor:
        """Log-mel examples → embeddings, differentiably.

        Args:
            examples: (n, 96, 64) or (n, 1, 96, 64) floating point.
            layer: where to read the network.

        Returns:
            "embedding": (n, 128). "fc1", "fc2": (n, fc_width), after the ReLU. "conv1" to "conv4", after the pool:
            (n, channels, time, frequency), that is (n, 64, 48, 32), (n, 128, 24, 16), (n, 256, 12, 8), (n, 512, 6, 4).
            "fused": (n, 8192), or another fusion by name; see :func:`vggish_pt.nn.layers.fused_stages`.

        Raises:
            SettingsError: examples of another shape or type, or no such layer.
        """
        x = self._check(examples)
        if stages := fused_stages(check_layer(layer)):
            return self._fuse(x, stages, TORCH_KERNELS)
        features = self._read(self.convolutions(x), layer if layer in _BLOCKS else "conv4")
        return features if layer in _BLOCKS else self._read(self.fully_connected(features), layer)

    @torch.inference_mode()
    def infer(self, examples: Tensor, layer: str = "embedding") -> Tensor:
        """Like :meth:`forward` without gradients, in blocks sized for the cache, so that memory stays small.

        Args:
            examples: (n, 96, 64) or (n, 1, 96, 64) floating point, n from 0.
            layer: where to read the network.

        Returns:
            As :meth:`forward`.
        """
        with float32_products(self.conv1.weight.device, tf32=self.tf32):
            return self._infer(self._check(examples), layer)

    def _infer(self, x: Tensor, layer: str) -> Tensor:
        kernels, size = self._inference_kernels(len(x))
        blocks = torch.split(x, size)
        if stages := fused_stages(check_layer(layer)):
            return torch.cat([self._fuse(block, stages, kernels) for block in blocks])
        last = layer if layer in _BLOCKS else "conv4"
        parts = [self._read(self.convolutions(block, kernels), last) for block in blocks]
        features = torch.cat(parts) if len(parts) > 1 else parts[0]
        return features if layer in _BLOCKS else self._read(self.fully_connected(features, kernels), layer)

    def _inference_kernels(self, windows: int) -> tuple[Kernels, int]:
        """How to compute so many windows, and how many of them at a time."""
        kernels = inference_kernels(self.children())
        threads = torch.get_num_threads()
        dtype = self.conv2.weight.dtype  # float32 or bfloat16 where oneDNN takes the layers
        worth_it = windows >= _WINOGRAD_MIN_WINDOWS.get(dtype, 1) and threads <= _WINOGRAD_MAX_THREADS
        if not (self.winograd and worth_it and kernels is ONEDNN_KERNELS):
            return kernels, _CONV_BLOCK if self.conv1.weight.device.type == "cpu" else _DEVICE_BLOCK
        if self._winograd is None or not self._winograd.fits(self.children()):
            self._winograd = WinogradKernels(self.children())
        return self._winograd, max(2, threads) * _WINOGRAD_BLOCK_PER_THREAD

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_winograd": None}  # copies transform their own weights

    def _fuse(self, x: Tensor, stages: tuple[str, ...], kernels: Kernels) -> Tensor:
        found: dict[str, Tensor] = {}
        for name, value in self._all(x, kernels):
            if name in stages:
                found[name] = over_time(value)
                if len(found) == len(stages):
                    break
        return fuse([found[stage] for stage in stages])

    def _all(self, x: Tensor, kernels: Kernels) -> Iterator[tuple[str, Tensor]]:
        features = x
        for name, features in self.convolutions(x, kernels):
            yield name, features
        yield from self.fully_connected(features, kernels)

    @staticmethod
    def _read(stages: Iterator[tuple[str, Tensor]], layer: str) -> Tensor:
        return next(value for name, value in stages if name == layer)

    def _check(self, examples: Tensor) -> Tensor:
        size = (c.EXAMPLE_FRAMES, c.MEL_BANDS)
        if not isinstance(examples, Tensor) or not examples.is_floating_point():
            what = examples.dtype if isinstance(examples, Tensor) else type(examples).__name__
            raise SettingsError(f"the network takes a floating-point tensor (n, 96, 64), not {what}")
        if examples.ndim == 3 and examples.shape[1:] == size:
            examples = examples.unsqueeze(1)
        if examples.ndim != 4 or examples.shape[1:] != (1, *size):
            raise SettingsError(
                f"the network takes log-mel examples (n, 96, 64) or (n, 1, 96, 64), not {tuple(examples.shape)}; "
                "model.frontend(waveform) makes them, and model.embed(audio) does all steps"
            )
        return examples
