"""Heads: features of a clip's windows → one logit for each class.

Every head scores windows too. The clip's logits are a mean of its windows': plain for "linear" and "mlp", weighted
for "attention".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggish_pt.classify.config import Activation, HeadConfig
from vggish_pt.nn.config import VGGishConfig
from vggish_pt.nn.layers import fused_stages, layer_shape


def feature_size(features: str, config: VGGishConfig) -> int:
    """How many numbers :func:`pool_map` leaves of a window at that layer."""
    shape = layer_shape(features, config)
    return 2 * shape[0] if len(shape) == 3 else shape[0]


def pool_map(values: Tensor) -> Tensor:
    """A vector for each window.

    Args:
        values: (n, d), returned as they are; or (n, channels, time, frequency), of which the mean and the maximum over
            time and frequency are taken.

    Returns:
        (n, d) or (n, 2 * channels).
    """
    return torch.cat([values.mean(dim=(2, 3)), values.amax(dim=(2, 3))], dim=1) if values.ndim == 4 else values


def make_activation(name: Activation, features: str, config: VGGishConfig) -> nn.Module:
    """What the features go through first; see :class:`~vggish_pt.classify.config.HeadConfig`.

    Args:
        name: "auto", "relu", "gelu" or "none".
        features: the layer; a fusion counts as pre-activation if the embedding is in it.
        config: says whether the embedding has a ReLU already.
    """
    if name == "auto":
        bare = "embedding" in (fused_stages(features) or (features,)) and not config.final_relu
        name = "relu" if bare else "none"
    return {"relu": nn.ReLU(), "gelu": nn.GELU(), "none": nn.Identity()}[name]


class Head(nn.Module):
    """Features of windows → logits of windows and clips.

    Args:
        size: how many numbers describe a window.
        classes: how many classes there are.
        config: kind, hidden width and dropout.
        activation: applied first.

    Attributes:
        attention: the attention's logits for each window and class, or None for a plain mean over windows. The gated
            form of Ilse et al., "Attention-based Deep Multiple Instance Learning" (ICML 2018), with one weight for
            each class as in Kong et al., "Audio Set Classification with Attention Model" (ICASSP 2018).
    """

    def __init__(self, size: int, classes: int, config: HeadConfig, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.standardize = Standardize(size)
        self.dropout = nn.Dropout(config.dropout)
        self.hidden: nn.Sequential | None = None
        if config.kind == "mlp":
            self.hidden = nn.Sequential(nn.Linear(size, config.hidden), nn.ReLU(), nn.Dropout(config.dropout))
        self.output = nn.Linear(size if self.hidden is None else config.hidden, classes)
        self.attention = _GatedAttention(size, config.hidden, classes) if config.kind == "attention" else None

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of clips.

        Args:
            features: (b, w, size) floating point.
            mask: (b, w) bool, True where there is a window; each clip has one at least. None if all are there.

        Returns:
            (b, classes) float32.
        """
        x = self._prepare(features)
        logits = self._logits(x)
        if self.attention is None:
            if mask is None:
                return logits.mean(dim=1)
            there = mask.unsqueeze(-1).to(logits.dtype)
            return (logits * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)
        weights: Tensor = self.attention(x).float()
        if mask is not None:
            weights = weights.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        pooled: Tensor = (weights.softmax(dim=1) * logits).sum(dim=1)
        return pooled

    def windows(self, features: Tensor) -> Tensor:
        """Logits of windows: (..., size) → (..., classes) float32."""
        return self._logits(self._prepare(features))

    def parts(self, features: Tensor) -> Tensor:
        """What :meth:`join` needs of windows: (n, size) → (n, classes or twice as many) float32."""
        x = self._prepare(features)
        logits = self._logits(x)
        return logits if self.attention is None else torch.cat([logits, self.attention(x).float()], dim=-1)

    def join(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """All windows of a clip → its logits (classes,) as :meth:`forward` gives them, and the windows' (n, classes).

        Args:
            parts: (n, ...) from :meth:`parts`, in as many calls as you like.
        """
        if self.attention is None:
            return parts.mean(dim=0), parts
        logits, weights = parts.chunk(2, dim=-1)
        return (weights.softmax(dim=0) * logits).sum(dim=0), logits

    def _prepare(self, features: Tensor) -> Tensor:
        # Masked windows may hold anything finite.
        x: Tensor = self.dropout(self.standardize(self.activation(features)))
        return x

    @torch.no_grad()
    def fit_standardize(self, features: Tensor) -> None:
        """Sets mean and scale by the features (n, size) of windows of the training data, before training begins."""
        self.standardize.fit(self.activation(features))

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(x if self.hidden is None else self.hidden(x))
        return logits.float()


class Standardize(nn.Module):
    """Features less their mean, over their scale. Both are fixed: nothing until :meth:`fit`.

    Layers differ in scale by orders of magnitude, as do features of one layer, and an optimizer's steps do not.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, features: Tensor) -> None:
        """Takes mean and standard deviation of features (n, size).

        Those that hardly vary are not blown up: a twentieth of the mean deviation is added to each.
        """
        x = features.double()
        deviation = x.std(dim=0, correction=0)
        floor = 0.05 * deviation.mean()
        self.mean.copy_(x.mean(dim=0))
        self.scale.copy_(deviation + floor if floor > 0 else torch.ones_like(deviation))

    def forward(self, features: Tensor) -> Tensor:
        """(..., size) → (..., size), float32 if the module is."""
        return (features.to(self.mean.dtype) - self.mean) / self.scale


class _GatedAttention(nn.Module):
    """Which windows count: (..., size) → (..., classes), before the softmax over windows."""

    def __init__(self, size: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.value = nn.Linear(size, hidden)
        self.gate = nn.Linear(size, hidden)
        self.score = nn.Linear(hidden, classes)
        nn.init.zeros_(self.score.weight)  # begins as the plain mean
        nn.init.zeros_(self.score.bias)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        scores: Tensor = self.score(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x)))
        return scores
