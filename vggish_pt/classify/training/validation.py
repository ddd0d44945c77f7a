"""Loss and validation metrics of a classifier in training, and the standardization of its features."""

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

_STANDARDIZE_CLIPS = 2000  # enough for the mean and scale of the features
_WEIGHT_BOUND = 100.0

_METRICS = {"accuracy": "accuracy", "macro_f1": "macro_f1", "map": "mean_average_precision", "loss": "loss"}


def metric_name(metric: str, multilabel: bool) -> str:
    """Return the name in ``metrics.csv``, without "val_", of the metric that ``TrainSettings.metric`` selects."""
    return _METRICS[("map" if multilabel else "accuracy") if metric == "auto" else metric]


class Loss(nn.Module):
    """Cross-entropy, or binary cross-entropy for each class if a clip may have several labels.

    Args:
        targets: (n, classes) of the training clips, for the class weights.
        settings: class weights and label smoothing.
        multilabel: True for binary cross-entropy.
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
        """Return the mean loss of logits and targets (b, classes)."""
        share = self._smoothing if smoothed else 0.0
        if not self._multilabel:
            return F.cross_entropy(logits, targets, weight=self.weights, label_smoothing=share)
        targets = targets * (1 - share) + share / 2
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights)


@dataclass(frozen=True)
class ValidationResult:
    """Result of a validation.

    Attributes:
        metrics: "loss" (without label smoothing), "accuracy", "macro_f1" and "mean_average_precision".
        details: all metrics; None if scores are not finite.
    """

    metrics: dict[str, float]
    details: Metrics | None


class Validation:
    """Compute the metrics of a model on clips.

    Args:
        clips: the clips, with all their windows.
        targets: (n, classes).
        loss: loss to compute.
        device: device of the model.
        workers: processes that prepare batches.
    """

    def __init__(
        self, clips: ValidationClips, targets: Tensor, loss: Loss, device: torch.device, workers: int = 0
    ) -> None:
        self._clips, self._targets, self._loss, self._device, self._workers = clips, targets, loss, device, workers

    @torch.no_grad()
    def __call__(self, model: VGGishClassifier) -> ValidationResult | None:
        """Return the metrics, computed in float32, or None if there are no clips."""
        if len(self._clips) == 0:
            return None
        training = model.training
        model.eval()
        batches = DataLoader(
            self._clips, batch_sampler=self._clips.batches(), collate_fn=collate, num_workers=self._workers
        )
        logits = torch.cat([model(b.examples.to(self._device), b.mask.to(self._device)) for b in batches])
        model.train(training)
        metrics = {"loss": float(self._loss(logits, self._targets.to(self._device), smoothed=False))}
        scores = model.scores(logits).cpu().numpy()
        if not np.isfinite(scores).all():
            return ValidationResult(metrics, None)
        truth = self._targets.numpy() if model.multilabel else self._targets.argmax(dim=1).numpy()
        details = classification_metrics(truth, scores, model.labels, multilabel=model.multilabel)
        summary = details.summary()
        metrics |= {name: summary[name] for name in _METRICS.values() if name in summary}
        return ValidationResult(metrics, details)


@torch.no_grad()
def standardize(model: VGGishClassifier, clips: ValidationClips, seed: int, device: torch.device) -> None:
    """Fit the head's standardization to the features of training clips, before training.

    Args:
        model: model with its initial backbone.
        clips: training clips, without augmentation; a random sample of them is used if there are many.
        seed: random seed of the sample.
        device: device of the model.
    """
    batches = clips.batches()
    features, count = [], 0
    model.eval()
    for index in np.random.default_rng(seed).permutation(len(batches)):
        batch = collate([clips[i] for i in batches[index]])
        features.append(model.features(batch.examples[batch.mask].to(device)).cpu())
        count += len(batch.numbers)
        if count >= _STANDARDIZE_CLIPS:
            break
    model.head.fit_standardize(torch.cat(features).to(device))
