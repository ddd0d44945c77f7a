"""The network: log-mel examples → 128 numbers each.

VGG configuration A with the last group of convolutions left out (``vggish_slim.py`` of Google's reference): four
blocks of 3x3 convolutions, each ending in a 2x2 max pool, then three fully connected layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.kernels import TORCH_KERNELS, Kernels, inference_kernels
from vggish_pt.settings import Layer, check_layer

# Rows per pass through the convolutions and through the fully connected layers. The convolutions' intermediates
# should stay in the cache; the fully connected layers are bound by reading their weights, so they want many rows.
_CONV_BLOCK = 16


class Network(nn.Module):
    """The VGGish network.

    Args:
        fc_width: width of the two large fully connected layers (4096 in Google's model).
        final_relu: whether the embedding goes through a last ReLU (see :class:`vggish_pt.config.VGGishConfig`).
    """

    def __init__(self, fc_width: int = 4096, final_relu: bool = False) -> None:
        super().__init__()
        self.final_relu = final_relu
        self.conv1 = nn.Conv2d(1, 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv3_1 = nn.Conv2d(128, 256, 3, padding=1)
        self.conv3_2 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv4_1 = nn.Conv2d(256, 512, 3, padding=1)
        self.conv4_2 = nn.Conv2d(512, 512, 3, padding=1)
        flat = (c.EXAMPLE_FRAMES // 16) * (c.MEL_BANDS // 16) * 512
        self.fc1 = nn.Linear(flat, fc_width)
        self.fc2 = nn.Linear(fc_width, fc_width)
        self.embedding = nn.Linear(fc_width, c.EMBEDDING_SIZE)

    def convolutions(self, examples: Tensor, layer: Layer = "conv4", kernels: Kernels = TORCH_KERNELS) -> Tensor:
        """The convolutional part.

        Args:
            examples: (n, 1, 96, 64).
            layer: the block after whose pool to stop.
            kernels: how to compute the layers.

        Returns:
            (n, channels, time, frequency), for conv4 (n, 512, 6, 4).
        """
        conv, pool = kernels.conv, kernels.pool
        x = pool(conv(self.conv1, examples))
        if layer == "conv1":
            return x
        x = pool(conv(self.conv2, x))
        if layer == "conv2":
            return x
        x = pool(conv(self.conv3_2, conv(self.conv3_1, x)))
        if layer == "conv3":
            return x
        return pool(conv(self.conv4_2, conv(self.conv4_1, x)))

    def fully_connected(self, features: Tensor, layer: Layer = "embedding", kernels: Kernels = TORCH_KERNELS) -> Tensor:
        """The fully connected part.

        Args:
            features: (n, 512, 6, 4), what the convolutions give.
            layer: "fc1", "fc2" or "embedding".
            kernels: how to compute the layers.

        Returns:
            (n, fc_width) or (n, 128).
        """
        # TensorFlow flattens (height, width, channels); free of cost where the memory format is channels_last.
        x = features.permute(0, 2, 3, 1).flatten(1)
        x = kernels.linear(self.fc1, x, relu=True)
        if layer == "fc1":
            return x
        x = kernels.linear(self.fc2, x, relu=True)
        if layer == "fc2":
            return x
        return kernels.linear(self.embedding, x, relu=self.final_relu)

    def forward(self, examples: Tensor, layer: Layer = "embedding") -> Tensor:
        """Log-mel examples → embeddings, differentiably.

        Args:
            examples: (n, 96, 64) or (n, 1, 96, 64) floating point.
            layer: where to read the network.

        Returns:
            "embedding": (n, 128). "fc1", "fc2": (n, fc_width), after the ReLU. "conv1" to "conv4", after the pool:
            (n, channels, time, frequency), that is (n, 64, 48, 32), (n, 128, 24, 16), (n, 256, 12, 8), (n, 512, 6, 4).

        Raises:
            SettingsError: examples of another shape or type, or no such layer.
        """
        x = self._check(examples)
        if check_layer(layer).startswith("conv"):
            return self.convolutions(x, layer)
        return self.fully_connected(self.convolutions(x), layer)

    @torch.inference_mode()
    def infer(self, examples: Tensor, layer: Layer = "embedding") -> Tensor:
        """Like :meth:`forward` without gradients, in blocks sized for the cache, so that memory stays small.

        Args:
            examples: (n, 96, 64) or (n, 1, 96, 64) floating point, n from 0.
            layer: where to read the network.

        Returns:
            As :meth:`forward`.
        """
        x = self._check(examples)
        kernels = inference_kernels(self.children())
        conv = check_layer(layer).startswith("conv")
        last: Layer = layer if conv else "conv4"
        blocks = [self.convolutions(block, last, kernels) for block in torch.split(x, _CONV_BLOCK)]
        features = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
        return features if conv else self.fully_connected(features, layer, kernels)

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
