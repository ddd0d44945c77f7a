"""Heads: features of a clip's windows → one logit for each class.

The logits of a clip are the mean of its windows' logits, weighted for "attention". So each head also scores windows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggish_pt.classify.config import Activation, HeadConfig
from vggish_pt.nn.config import VGGishConfig
from vggish_pt.nn.layers import fused_stages, layer_shape


def feature_size(features: str, config: VGGishConfig) -> int:
    """Return the size of a window's vector after :func:`pool_map`, at a layer."""
    shape = layer_shape(features, config)
    return 2 * shape[0] if len(shape) == 3 else shape[0]


def pool_map(values: Tensor) -> Tensor:
    """Return a vector for each window.

    Args:
        values: (n, d), returned unchanged; or (n, channels, time, frequency), reduced to the mean and the maximum over
            time and frequency.

    Returns:
        (n, d) or (n, 2 * channels).
    """
    return torch.cat([values.mean(dim=(2, 3)), values.amax(dim=(2, 3))], dim=1) if values.ndim == 4 else values


def make_activation(name: Activation, features: str, config: VGGishConfig) -> nn.Module:
    """Create the activation of a head's features; see :class:`~vggish_pt.classify.config.HeadConfig`.

    Args:
        name: "auto", "relu", "gelu" or "none".
        features: the layer; a fusion is pre-activation if it contains the embedding.
        config: configuration of the network, which may end in a ReLU.
    """
    if name == "auto":
        bare = "embedding" in (fused_stages(features) or (features,)) and not config.final_relu
        name = "relu" if bare else "none"
    return {"relu": nn.ReLU(), "gelu": nn.GELU(), "none": nn.Identity()}[name]


class Head(nn.Module):
    """Head of a classifier: features of windows → logits of windows and clips.

    Args:
        size: number of features of a window.
        classes: number of classes.
        config: kind, hidden width and dropout.
        activation: activation of the features.

    Attributes:
        attention: module that computes attention logits for each window and class, or None for a plain mean over
            windows. It is the gated attention of Ilse et al., "Attention-based Deep Multiple Instance Learning" (ICML
            2018), with one weight for each class as in Kong et al., "Audio Set Classification with Attention Model"
            (ICASSP 2018).
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
        """Return the logits of clips.

        Args:
            features: (b, w, size) floating point.
            mask: (b, w) bool, True for existing windows, at least one for each clip; None if all exist.

        Returns:
            (b, classes) float32.
        """
        x = self._prepare(features)
        logits = self._logits(x)
        if self.attention is None:
            if mask is None:
                return logits.mean(dim=1)
            existing = mask.unsqueeze(-1).to(logits.dtype)
            return (logits * existing).sum(dim=1) / existing.sum(dim=1).clamp_min(1)
        weights: Tensor = self.attention(x).float()
        if mask is not None:
            weights = weights.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        pooled: Tensor = (weights.softmax(dim=1) * logits).sum(dim=1)
        return pooled

    def windows(self, features: Tensor) -> Tensor:
        """Return the logits of windows: (..., size) → (..., classes) float32."""
        return self._logits(self._prepare(features))

    def parts(self, features: Tensor) -> Tensor:
        """Return the values that :meth:`join` needs: (n, size) → (n, classes or 2 * classes) float32."""
        x = self._prepare(features)
        logits = self._logits(x)
        return logits if self.attention is None else torch.cat([logits, self.attention(x).float()], dim=-1)

    def join(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Return a clip's logits (classes,), equal to those of :meth:`forward`, and its windows' logits (n, classes).

        Args:
            parts: (n, ...) from :meth:`parts`, from one or several calls.
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
        """Fit mean and scale to the features (n, size) of training windows, before training."""
        self.standardize.fit(self.activation(features))

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(x if self.hidden is None else self.hidden(x))
        return logits.float()


class Standardize(nn.Module):
    """Standardization of features: (x - mean) / scale. It changes nothing before :meth:`fit`, and is not trained.

    Features differ in scale by orders of magnitude, between layers and within a layer, but an optimizer's steps do not.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, features: Tensor) -> None:
        """Set mean and scale from features (n, size).

        A twentieth of the mean standard deviation is added to each, so that nearly constant features are not amplified.
        """
        x = features.double()
        deviation = x.std(dim=0, correction=0)
        floor = 0.05 * deviation.mean()
        self.mean.copy_(x.mean(dim=0))
        self.scale.copy_(deviation + floor if floor > 0 else torch.ones_like(deviation))

    def forward(self, features: Tensor) -> Tensor:
        """Return standardized features: (..., size) → (..., size), in the module's dtype."""
        return (features.to(self.mean.dtype) - self.mean) / self.scale


class _GatedAttention(nn.Module):
    """Attention logits: (..., size) → (..., classes), before the softmax over windows."""

    def __init__(self, size: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.value = nn.Linear(size, hidden)
        self.gate = nn.Linear(size, hidden)
        self.score = nn.Linear(hidden, classes)
        nn.init.zeros_(self.score.weight)  # starts as the plain mean
        nn.init.zeros_(self.score.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention logits."""
        scores: Tensor = self.score(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x)))
        return scores
