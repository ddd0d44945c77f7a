"""Training of the head only, on cached features, before backbone and head are trained together.

The large gradients of an untrained head would distort the features that the backbone has learned; see Kumar et al.,
"Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution" (ICLR 2022). The backbone's features
are computed once, so that hundreds of epochs take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vggish_pt.classify.data.augment import derived, mixing_share
from vggish_pt.classify.data.clips import ValidationClips, pad_clips
from vggish_pt.classify.model import VGGishClassifier
from vggish_pt.classify.training.optimization import decay_groups, warm_up_share
from vggish_pt.classify.training.settings import TrainSettings
from vggish_pt.classify.training.validation import Loss
from vggish_pt.errors import TrainingError

# Features are of overlapping windows, with a quarter of the hop between them, so that the head also sees offsets that
# prediction does not use. At most _WINDOWS random windows of a clip are cached.
_OVERLAP = 4
_WINDOWS = 16
_MAX_BYTES = 1 << 30

HEAD_LR = 1e-3
"""Highest learning rate of this stage. ``TrainSettings.lr`` is that of fine-tuning."""

_BATCH = 32
_WARM_UP = 0.1
_MIXUP = 0.3  # of features; Verma et al., "Manifold Mixup" (ICML 2019)
_PURPOSE = 1  # selects random numbers other than those of the clips' augmentation


def train_head(
    model: VGGishClassifier,
    clips: ValidationClips,
    targets: Tensor,
    loss: Loss,
    settings: TrainSettings,
    watch: Callable[[int, int], None],
) -> float:
    """Train the head for ``settings.head_epochs`` epochs, with AdamW, a one-cycle schedule and mixup of features.

    Args:
        model: model on its device, with fitted standardization. Its backbone is not changed.
        clips: training clips, without augmentation.
        targets: (n, classes) of the clips.
        loss: loss to minimize.
        settings: epochs, windows of a clip in a batch, weight decay, gradient clipping and seed.
        watch: function called with the number of completed epochs and of all epochs.

    Returns:
        The mean loss of the last epoch.

    Raises:
        TrainingError: the loss is not finite.
    """
    device = model.device
    model.eval()
    chosen, features = _features(model, clips, settings)
    targets = targets[chosen]
    steps = math.ceil(len(features) / _BATCH)
    optimizer = torch.optim.AdamW(decay_groups(list(model.head.parameters()), settings.weight_decay), lr=HEAD_LR)
    total = steps * settings.head_epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, HEAD_LR, total_steps=total, pct_start=warm_up_share(_WARM_UP, total)
    )
    mean = math.nan
    model.head.train()
    for epoch in range(settings.head_epochs):
        rng = derived(settings.seed, epoch, 0, _PURPOSE)
        torch.manual_seed(int(rng.integers(1 << 62)))  # for dropout
        losses = []
        for x, mask, y in _batches(features, targets, settings, rng):
            value = loss(model.head(x.to(device), mask.to(device)), y.to(device))
            optimizer.zero_grad()
            value.backward()
            if settings.clip:
                torch.nn.utils.clip_grad_norm_(model.head.parameters(), settings.clip)
            optimizer.step()
            schedule.step()
            losses.append(float(value.detach()) * len(y))
        mean = sum(losses) / len(features)
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss of the head is {mean} in epoch {epoch + 1} of its own training; skip that (--head-epochs 0)"
            )
        watch(epoch + 1, settings.head_epochs)
    optimizer.zero_grad()  # the next stage must not use these gradients
    return mean


@torch.no_grad()
def _features(
    model: VGGishClassifier, clips: ValidationClips, settings: TrainSettings
) -> tuple[list[int], list[Tensor]]:
    """Return the clips' indices and the features (w, d) of each clip's windows, on the CPU.

    If the features of all clips exceed ``_MAX_BYTES``, a random sample of the clips is used.
    """
    rng = derived(settings.seed, 0, 0, _PURPOSE)
    window = clips.window
    hop = max(1, round(window.hop * 100 / _OVERLAP)) / 100  # frames are 10 ms apart
    dense = clips.with_window(replace(window, hop=hop))
    size = model.head.standardize.mean.numel() * 4 * _WINDOWS
    chosen = sorted(rng.permutation(len(clips))[: max(_BATCH, _MAX_BYTES // size)].tolist())
    features = []
    for index in chosen:
        examples = dense[index].examples
        if len(examples) > _WINDOWS:
            examples = examples[np.sort(rng.permutation(len(examples))[:_WINDOWS])]
        features.append(model.features(examples.to(model.device)).float().cpu())
    return chosen, features


def _batches(
    features: list[Tensor], targets: Tensor, settings: TrainSettings, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the batches of an epoch: features (b, w, d), mask of existing windows (b, w) and targets (b, classes)."""
    order = rng.permutation(len(features))
    for start in range(0, len(order), _BATCH):
        indices = order[start : start + _BATCH]
        x, mask = pad_clips([_draw(features[index], settings.windows, rng) for index in indices])
        y = targets[indices]
        share = torch.tensor([mixing_share(_MIXUP, rng) for _ in indices]).float()[:, None]
        partner = torch.from_numpy(rng.permutation(len(indices)))
        both = mask & mask[partner]  # a window stays unmixed if the partner has fewer windows
        x = torch.where(both[..., None], share[..., None] * x + (1 - share[..., None]) * x[partner], x)
        yield x, mask, share * y + (1 - share) * y[partner]


def _draw(windows: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    return windows[rng.permutation(len(windows))[:count]]
