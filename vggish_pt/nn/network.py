"""Network: log-mel windows (n, 96, 64) → embeddings (n, 128).

VGG's configuration A (Simonyan and Zisserman, arXiv 1409.1556, table 1) without the last block, as in
``vggish_slim.py`` of Google's reference: four blocks of 3x3 convolutions with ReLU, each followed by a 2x2 max pool,
then three fully connected layers.
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

# Windows that the convolutions compute at a time on the CPU, so that intermediate results stay in the cache. The fully
# connected layers are limited by reading their weights, so they compute all windows at once.
_CONV_BLOCK = 16
_WINOGRAD_BLOCK_PER_THREAD = 8
# Other devices have no such cache, and would wait between small blocks.
_DEVICE_BLOCK = 256

# Fewest windows for Winograd's convolutions. In float32, with fewer windows the check that the weights are unchanged
# would take more than 1 % of the time. In bfloat16 a single window gains as much as many, and without Winograd would
# differ visibly from the same window in a batch. With many threads the matrix products become too small to be shared
# out (measured with two threads only).
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
        fc_width: width of the fully connected layers fc1 and fc2 (4096 in Google's model).
        final_relu: True applies a ReLU to the embedding; see :class:`vggish_pt.nn.config.VGGishConfig`.

    Attributes:
        winograd: True (default) lets :meth:`infer` use Winograd's convolutions on the CPU, which are faster. In float32
            they compute batches of 32 windows or more and change embeddings by less than 2e-5; in bfloat16 they change
            them about as much as bfloat16 itself does.
        tf32: True lets :meth:`infer` use TF32 instead of float32 on a CUDA device. Default: False.
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
        """Compute the convolutional part layer by layer. Layers after the last one that is read are not computed.

        Args:
            examples: (n, 1, 96, 64) floating point.
            kernels: operations that compute the layers.

        Yields:
            Name and output of each layer, (n, channels, time, frequency): conv1 to conv4 after their pool, and conv3_1,
            conv3_2, conv4_1 and conv4_2 after their ReLU.
        """
        # The first layer may have a wider dtype than the others; see Float32Conv2d.
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
        """Compute the fully connected part layer by layer. Layers after the last one that is read are not computed.

        Args:
            features: (n, 512, 6, 4), the output of conv4.
            kernels: operations that compute the layers.

        Yields:
            Name and output of each layer: fc1 and fc2 (n, fc_width), embedding (n, 128).
        """
        # TensorFlow flattens (height, width, channels); in channels_last this copies nothing.
        x = features.permute(0, 2, 3, 1).flatten(1)
        for name, relu in (("fc1", True), ("fc2", True), ("embedding", self.final_relu)):
            x = kernels.linear(getattr(self, name), x, relu)
            yield name, x

    def forward(self, examples: Tensor, layer: str = "embedding") -> Tensor:
        """Compute the output of a layer for log-mel windows, differentiably.

        Args:
            examples: log-mel windows, (n, 96, 64) or (n, 1, 96, 64) floating point.
            layer: the layer whose output is returned.

        Returns:
            "embedding": (n, 128). "fc1", "fc2": (n, fc_width), after the ReLU. "conv1" to "conv4", after the pool:
            (n, channels, time, frequency), that is (n, 64, 48, 32), (n, 128, 24, 16), (n, 256, 12, 8), (n, 512, 6, 4).
            "fused": (n, 8192), or another fusion; see :func:`vggish_pt.nn.layers.fused_stages`.

        Raises:
            SettingsError: windows of another shape or type, or an unknown layer.
        """
        x = self._check(examples)
        if stages := fused_stages(check_layer(layer)):
            return self._fuse(x, stages, TORCH_KERNELS)
        features = self._read(self.convolutions(x), layer if layer in _BLOCKS else "conv4")
        return features if layer in _BLOCKS else self._read(self.fully_connected(features), layer)

    @torch.inference_mode()
    def infer(self, examples: Tensor, layer: str = "embedding") -> Tensor:
        """Compute the same as :meth:`forward` without gradients, faster and in less memory.

        The convolutions run in blocks that fit the cache. Several threads may call ``infer`` of one network at a time.

        Args:
            examples: log-mel windows, (n, 96, 64) or (n, 1, 96, 64) floating point, n from 0.
            layer: the layer whose output is returned.

        Returns:
            See :meth:`forward`.

        Raises:
            SettingsError: windows of another shape or type, or an unknown layer.
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
        """Return the kernels for a number of windows, and the number of windows that they compute at a time."""
        kernels = inference_kernels(self.children())
        threads = torch.get_num_threads()
        dtype = self.conv2.weight.dtype  # float32 or bfloat16 if oneDNN's kernels are used
        faster = windows >= _WINOGRAD_MIN_WINDOWS.get(dtype, 1) and threads <= _WINOGRAD_MAX_THREADS
        if not (self.winograd and faster and kernels is ONEDNN_KERNELS):
            return kernels, _CONV_BLOCK if self.conv1.weight.device.type == "cpu" else _DEVICE_BLOCK
        if self._winograd is None or not self._winograd.fits(self.children()):
            self._winograd = WinogradKernels(self.children())
        return self._winograd, max(2, threads) * _WINOGRAD_BLOCK_PER_THREAD

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_winograd": None}  # a copy transforms its own weights

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

    def operations(self) -> int:
        """Count the floating-point operations for one window, convolutions computed directly.

        Returns:
            Two operations for each multiplication with a weight; 1.728e9 in Google's model.
        """
        total, rows, columns = 0, c.EXAMPLE_FRAMES, c.MEL_BANDS
        for names in _BLOCKS.values():
            total += sum(2 * getattr(self, name).weight.numel() * rows * columns for name in names)
            rows, columns = rows // 2, columns // 2
        return total + sum(2 * layer.weight.numel() for layer in (self.fc1, self.fc2, self.embedding))

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
                "model.frontend(waveform) computes them, and model.embed(audio) does all steps"
            )
        return examples
