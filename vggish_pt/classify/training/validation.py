"""How good a classifier is while it is trained: its loss and its figures on clips; and what it must know beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from vggish_pt.classify.data.clips import ValidationClips, collate
from vggish_pt.classify.evaluation.metrics import Metrics, classification_metrics
from vggish_pt.classify.model import VGGishClassifier
from vggish_pt.classify.training.settings import TrainSettings

_STANDARDIZE_CLIPS = 2000  # enough to know mean and scale of the features
_WEIGHT_BOUND = 100.0

_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro_f1", "map": "mean_average_precision", "loss": "loss"}


def figure_name(metric: str, multilabel: bool) -> str:
    """What the validation figure that a setting names is called in ``metrics.csv``, less its "val_"."""
    return _FIGURES[("map" if multilabel else "accuracy") if metric == "auto" else metric]


class Loss(nn.Module):
    """Cross-entropy, or binary cross-entropy for each class where a clip may have several labels.

    Args:
        targets: (n, classes) of the training clips, for the weights of classes.
        settings: class weights and label smoothing.
        multilabel: which of the two.
    """

    weights: Tensor | None

    def __init__(self, targets: Tensor, settings: TrainSettings, multilabel: bool) -> None:
        super().__init__()
        self._multilabel, self._smoothing = multilabel, settings.label_smoothing
        weights = None
        if settings.class_weights == "balanced":
            count = targets.sum(dim=0).clamp_min(1)
            if multilabel:
                weights = ((len(targets) - count) / count).clamp(1 / _WEIGHT_BOUND, _WEIGHT_BOUND)
            else:
                weights = len(targets) / (targets.shape[1] * count)
        self.register_buffer("weights", weights)

    def forward(self, logits: Tensor, targets: Tensor, *, smoothed: bool = True) -> Tensor:
        """The mean loss of clips: logits and targets (b, classes)."""
        share = self._smoothing if smoothed else 0.0
        if not self._multilabel:
            return F.cross_entropy(logits, targets, weight=self.weights, label_smoothing=share)
        targets = targets * (1 - share) + share / 2
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights)


@dataclass(frozen=True)
class Found:
    """What validation found.

    Attributes:
        figures: by name: "loss" (without smoothing), "accuracy", "macro_f1", "mean_average_precision".
        metrics: all that can be said; None if scores are not finite.
    """

    figures: dict[str, float]
    metrics: Metrics | None


class Validation:
    """Computes the figures of a model on clips.

    Args:
        clips: all windows of each.
        targets: (n, classes).
        loss: how to compute it.
        device: where the model is.
        workers: processes that prepare batches.
    """

    def __init__(
        self, clips: ValidationClips, targets: Tensor, loss: Loss, device: torch.device, workers: int = 0
    ) -> None:
        self._clips, self._targets, self._loss, self._device, self._workers = clips, targets, loss, device, workers

    @torch.no_grad()
    def __call__(self, model: VGGishClassifier) -> Found | None:
        """The figures, computed in float32; None if there are no clips."""
        if len(self._clips) == 0:
            return None
        training = model.training
        model.eval()
        batches = DataLoader(
            self._clips, batch_sampler=self._clips.batches(), collate_fn=collate, num_workers=self._workers
        )
        logits = torch.cat([model(b.examples.to(self._device), b.mask.to(self._device)) for b in batches])
        model.train(training)
        figures = {"loss": float(self._loss(logits, self._targets.to(self._device), smoothed=False))}
        scores = model.scores(logits).cpu().numpy()
        if not np.isfinite(scores).all():
            return Found(figures, None)
        truth = self._targets.numpy() if model.multilabel else self._targets.argmax(dim=1).numpy()
        metrics = classification_metrics(truth, scores, model.labels, multilabel=model.multilabel)
        whole = metrics.summary()
        return Found(figures | {name: whole[name] for name in _FIGURES.values() if name in whole}, metrics)


@torch.no_grad()
def standardize(model: VGGishClassifier, clips: ValidationClips, seed: int, device: torch.device) -> None:
    """Fits the head's standardisation to the features of training clips, before anything is trained.

    Args:
        model: its backbone as it starts.
        clips: the training clips, unchanged; of many, some are drawn.
        seed: of the draw.
        device: where the model is.
    """
    batches = clips.batches()
    found, count = [], 0
    model.eval()
    for place in np.random.default_rng(seed).permutation(len(batches)):
        batch = collate([clips[i] for i in batches[place]])
        found.append(model.features(batch.examples[batch.mask].to(device)).cpu())
        count += len(batch.numbers)
        if count >= _STANDARDIZE_CLIPS:
            break
    model.head.fit_standardize(torch.cat(found).to(device))
