"""Network during pretraining: each layer has batch normalisation, which is folded into its weights afterwards.

:class:`Trunk` holds the convolutions, :class:`Head` the fully connected layers, and :class:`Trainee` both. :func:`fold`
converts them to the package's plain network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggish_pt import constants as c
from vggish_pt.nn.network import Network

CHANNELS = {"conv1": 64, "conv2": 128, "conv3_1": 256, "conv3_2": 256, "conv4_1": 512, "conv4_2": 512}
POOLED = ("conv1", "conv2", "conv3_2", "conv4_2")
# Size of time and frequency after four poolings.
STEPS, BANDS = c.EXAMPLE_FRAMES // 16, c.MEL_BANDS // 16


class Normalised(nn.Module):
    """Layer followed by batch normalisation."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's normalised output."""
        return cast(Tensor, self.norm(self.layer(x)))

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the plain layer that equals this module in evaluation mode."""
        norm = self.norm.state_dict()
        scale = (norm["running_var"] + self.norm.eps).rsqrt() * norm.get("weight", 1.0)
        bias = (cast(Tensor, self.layer.bias) - norm["running_mean"]) * scale + norm.get("bias", 0.0)
        return self.layer.weight * scale.view(-1, *[1] * (self.layer.weight.ndim - 1)), bias


class Trunk(nn.Module):
    """Convolutions.

    Args:
        divisor: divisor of VGGish's numbers of channels, for cheaper experiments (ablate.py).
    """

    def __init__(self, divisor: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        previous = 1
        for name, full in CHANNELS.items():
            channels = full // divisor
            self.layers[name] = Normalised(nn.Conv2d(previous, channels, 3, padding=1), nn.BatchNorm2d(channels))
            previous = channels
        self.channels = previous

    def forward(self, examples: Tensor) -> Tensor:
        """Map examples (n, 96, 64) to conv4, (n, channels, 6, 4)."""
        x = examples[:, None].contiguous(memory_format=torch.channels_last)
        for name, layer in self.layers.items():
            x = layer(x)
            # Pooling first gives the same values and leaves a quarter of them for the ReLU.
            x = F.relu(F.max_pool2d(x, 2) if name in POOLED else x)
        return x


class Head(nn.Module):
    """Fully connected layers.

    The first layer has the same weights for each of the six time steps, so its input is their mean: the kind of a sound
    does not depend on its time, and a sixth of the weights needs fewer sounds to learn from.

    Args:
        channels: number of channels of conv4.
        width: width of the first two layers.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "fc1": Normalised(nn.Linear(BANDS * channels, width), nn.BatchNorm1d(width)),
                "fc2": Normalised(nn.Linear(width, width), nn.BatchNorm1d(width)),
                "embedding": Normalised(
                    nn.Linear(width, c.EMBEDDING_SIZE), nn.BatchNorm1d(c.EMBEDDING_SIZE, affine=False)
                ),
            }
        )

    @staticmethod
    def over_time(conv4: Tensor) -> Tensor:
        """Map conv4 (n, channels, 6, 4) to the first layer's input, (n, 4 * channels)."""
        return conv4.mean(2).transpose(1, 2).flatten(1)

    def stages(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Map (n, 4 * channels) to ``fc1`` and ``fc2`` (n, width) and ``embedding`` (n, 128), one after another."""
        for name, layer in self.layers.items():
            x = layer(x) if name == "embedding" else F.relu(layer(x))
            yield name, x

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 4 * channels) to embeddings (n, 128)."""
        return dict(self.stages(x))["embedding"]


class Trainee(nn.Module):
    """Trunk, head and the projection that the loss compares.

    Args:
        fc_width: width of the fully connected layers.
        projection: ``none``: the loss compares embeddings; ``mlp``: it compares their projections by a network with one
            hidden layer of 512.
        divisor: divisor of the trunk's channels.
    """

    def __init__(self, fc_width: int, projection: str = "none", divisor: int = 1) -> None:
        super().__init__()
        self.trunk = Trunk(divisor)
        self.head = Head(self.trunk.channels, fc_width)
        self.projection: nn.Module = nn.Identity()
        if projection == "mlp":
            hidden = nn.Linear(c.EMBEDDING_SIZE, 512, bias=False)
            self.projection = nn.Sequential(hidden, nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 128))

    def stages(self, examples: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Map (n, 96, 64) to ``conv4`` (n, channels, 6, 4) and then the outputs of :meth:`Head.stages`."""
        conv4 = self.trunk(examples)
        yield "conv4", conv4
        yield from self.head.stages(Head.over_time(conv4))

    def embed(self, examples: Tensor) -> Tensor:
        """Map examples (n, 96, 64) to embeddings (n, 128)."""
        return dict(self.stages(examples))["embedding"]

    def forward(self, examples: Tensor) -> Tensor:
        """Map examples (n, 96, 64) to the projections that the loss compares, (n, 128)."""
        return cast(Tensor, self.projection(self.embed(examples)))


@torch.no_grad()
def settle(module: nn.Module, batches: Iterable[Tensor], precision: str) -> None:
    """Set the statistics of normalisation to their means over batches, and switch to evaluation mode."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    module.train()
    for batch in batches:
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=precision == "bf16"):
            module(batch)
    module.eval()


@torch.no_grad()
def fold(trunk: Trunk, head: Head) -> Network:
    """Return the package's network that equals trunk and head in evaluation mode."""
    width = head.layers["fc2"].layer.out_features
    plain = Network(cast(int, width))
    for name, layer in (*trunk.layers.items(), *head.layers.items()):
        weight, bias = cast(Normalised, layer).folded()
        if name == "fc1":
            weight = weight.repeat(1, STEPS) / STEPS
        target = cast("nn.Conv2d | nn.Linear", plain.get_submodule(name))
        target.weight.copy_(weight)
        cast(Tensor, target.bias).copy_(bias)
    return plain.eval()
