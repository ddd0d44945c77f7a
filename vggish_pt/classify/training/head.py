"""The head alone, on features that are computed once, before backbone and head are trained together.

A head that knows nothing yet would send the backbone large gradients, and what the backbone has learnt would be lost;
see Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution" (ICLR 2022). As
nothing of the backbone is computed again, hundreds of epochs take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vggish_pt.classify.data.augment import derived, mixing_share
from vggish_pt.classify.data.clips import ValidationClips, fill_up
from vggish_pt.classify.model import VGGishClassifier
from vggish_pt.classify.training.optimization import decay_groups
from vggish_pt.classify.training.settings import TrainSettings
from vggish_pt.classify.training.validation import Loss
from vggish_pt.errors import TrainingError

# Neighbouring windows share three quarters of their frames, so that training meets clips at other offsets than
# prediction does. Of a long clip, that many are drawn.
_OVERLAP = 4
_WINDOWS = 16
_MAX_BYTES = 1 << 30

_BATCH = 32
_LR = 1e-3
_MIXUP = 0.3  # of features; Verma et al., "Manifold Mixup" (ICML 2019)
_PURPOSE = 1  # of random numbers: others than those of the clips' own augmentation


def train_head(
    model: VGGishClassifier,
    clips: ValidationClips,
    targets: Tensor,
    loss: Loss,
    settings: TrainSettings,
    watch: Callable[[int, int], None],
) -> float:
    """Trains the head for ``settings.head_epochs`` epochs: AdamW with one cycle, mixup of features.

    Args:
        model: on its device, its head standardised. Its backbone is left as it is.
        clips: the training clips, unchanged.
        targets: (n, classes) of them.
        loss: what to minimise.
        settings: epochs, windows of a clip in a step, weight decay, clipping and seed.
        watch: is told how many of how many epochs are done.

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
    optimizer = torch.optim.AdamW(decay_groups(list(model.head.parameters()), settings.weight_decay), lr=_LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LR, total_steps=steps * settings.head_epochs, pct_start=0.1
    )
    mean = math.nan
    model.head.train()
    for epoch in range(settings.head_epochs):
        rng = derived(settings.seed, epoch, 0, _PURPOSE)
        torch.manual_seed(int(rng.integers(1 << 62)))  # of dropout
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
                f"the loss of the head alone is {mean} in epoch {epoch + 1}; leave this stage out (--head-epochs 0)"
            )
        watch(epoch + 1, settings.head_epochs)
    optimizer.zero_grad()  # else the last gradients would go into the first step of what follows
    return mean


@torch.no_grad()
def _features(
    model: VGGishClassifier, clips: ValidationClips, settings: TrainSettings
) -> tuple[list[int], list[Tensor]]:
    """Which clips, and the features of windows of each: (w, d), on the processor. Of many clips, some are drawn."""
    rng = derived(settings.seed, 0, 0, _PURPOSE)
    window = clips.window
    hop = max(1, round(window.hop * 100 / _OVERLAP)) / 100  # frames are 10 ms apart
    dense = clips.with_window(replace(window, hop=hop))
    size = model.head.standardize.mean.numel() * 4 * _WINDOWS
    chosen = sorted(rng.permutation(len(clips))[: max(_BATCH, _MAX_BYTES // size)].tolist())
    found = []
    for place in chosen:
        examples = dense[place].examples
        if len(examples) > _WINDOWS:
            examples = examples[np.sort(rng.permutation(len(examples))[:_WINDOWS])]
        found.append(model.features(examples.to(model.device)).float().cpu())
    return chosen, found


def _batches(
    features: list[Tensor], targets: Tensor, settings: TrainSettings, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features (b, w, d), which of them there are (b, w), and targets (b, classes) of an epoch."""
    order = rng.permutation(len(features))
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        x, mask = fill_up([_draw(features[place], settings.windows, rng) for place in places])
        y = targets[places]
        share = torch.tensor([mixing_share(_MIXUP, rng) for _ in places]).float()[:, None]
        partner = torch.from_numpy(rng.permutation(len(places)))
        both = mask & mask[partner]  # where the partner has ended, a window stays as it is
        x = torch.where(both[..., None], share[..., None] * x + (1 - share[..., None]) * x[partner], x)
        yield x, mask, share * y + (1 - share) * y[partner]


def _draw(windows: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    return windows[rng.permutation(len(windows))[:most]]
