"""Work of one training process, and its counters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vggish_pt.classify.data.clips import TrainingClips, ValidationClips
from vggish_pt.classify.model import VGGishClassifier
from vggish_pt.classify.training.run_folder import TrainingRun
from vggish_pt.classify.training.settings import RunOptions, TrainSettings


@dataclass
class Job:
    """Model, data and settings of a training run, as each process gets them.

    Attributes:
        model: the model at the start.
        training: clips to train on, augmented.
        validation: clips that select the best weights; may be empty.
        plain: the training clips without augmentation.
        targets: (n, classes) float32 of "training" and "validation".
        names: name of each clip for errors, by its number.
        settings: settings that decide the result.
        options: options that do not.
        run: run folder to write to.
        device: device to train on; without an index, as many of its kind as the settings say.
        resume: continue from the run folder's checkpoint.
    """

    model: VGGishClassifier
    training: TrainingClips
    validation: ValidationClips
    plain: ValidationClips
    targets: dict[str, Tensor]
    names: list[str]
    settings: TrainSettings
    options: RunOptions
    run: TrainingRun
    device: torch.device
    resume: bool


@dataclass
class Counters:
    """Progress of a training run, as checkpoints hold it. All counters are of completed epochs, batches and steps.

    Attributes:
        epoch: epochs.
        batch: batches of the current epoch.
        step: optimizer steps.
        loss_sum: sum of the losses of the current epoch's clips.
        loss_count: number of these clips.
        seconds: training time.
        best: metric and negative loss of the best epoch; larger is better.
        best_epoch: the epoch with the best weights.
        better_epoch: the last epoch with a better metric than all before, apart from the loss.
        stopped: early stopping has ended the training.
        history: rows of ``metrics.csv``.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    best: list[float] | None = None
    best_epoch: int = 0
    better_epoch: int = 0
    stopped: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    def compare(self, epoch: int, metrics: Mapping[str, float], metric: str) -> bool:
        """Update the best epoch, and return True if this epoch has the best weights so far.

        Args:
            epoch: the epoch, counted from 1; 0 is the head-only stage.
            metrics: validation metrics by name, with "loss".
            metric: name of the metric that decides. Of equal values, as accuracies of few clips often are, the one
                with the lower loss is better.
        """
        value = metrics.get(metric)
        if value is None or not math.isfinite(value):
            return False
        key = [-value if metric == "loss" else value, -metrics["loss"]]
        if self.best is None or key[0] > self.best[0]:
            self.better_epoch = epoch
        if self.best is not None and key <= self.best:
            return False
        self.best, self.best_epoch = key, epoch
        return True
