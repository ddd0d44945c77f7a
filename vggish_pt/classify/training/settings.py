"""Settings of a training run, checked in one place and cheap to import.

The first sentence of each attribute's description is also the help text of its option in ``vggish-pt train``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from vggish_pt.classify.config import HeadConfig, WindowSettings
from vggish_pt.errors import SettingsError
from vggish_pt.utils.checks import choice, number, whole
from vggish_pt.utils.mappings import changes

BackboneMode = Literal["frozen", "whole", "gradual"]
Metric = Literal["auto", "accuracy", "macro_f1", "map", "loss"]
Keep = Literal["best", "last"]
Precision = Literal["fp32", "bf16"]
ClassWeights = Literal["none", "balanced"]
Cache = Literal["disk", "memory"]

SCRATCH = ("none", "random")
"""Values of ``weights`` that train the network from random weights."""

BLOCKS = ("conv1", "conv2", "conv3", "conv4", "fc")
"""Blocks of the backbone from the bottom to the top. "fc" is fc1, fc2 and embedding."""

_MAX_EPOCHS = 1_000_000


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes to training clips, drawn again in every epoch. By default only ``random_crop`` is on.

    Attributes:
        random_crop: Cut windows from any position in a clip, not only from multiples of the hop.
        gain: Change the level by a random amount of up to this many decibels, up or down.
        time_shift: Rotate each clip by a random time of up to this many seconds.
        noise: Mix in recordings from this folder.
        noise_share: Share of the clips that get noise.
        snr: Lowest and highest level of a clip above the noise, in decibels.
        mixup: Mix pairs of clips with shares drawn from Beta(x, x); 0 turns it off. Zhang et al., "mixup: Beyond
            Empirical Risk Minimization" (ICLR 2018).
        spec_augment: Mask random mel bands and times (needs torchaudio). Park et al., "SpecAugment" (Interspeech
            2019).
        mask_bands: Largest number of mel bands, of 64, that a mask covers.
        mask_frames: Largest number of frames, of 96, that a mask covers in each window.

    Raises:
        SettingsError: a value outside its range.
    """

    random_crop: bool = True
    gain: float = 0.0
    time_shift: float = 0.0
    noise: str | None = None
    noise_share: float = 0.5
    snr: tuple[float, float] = (5.0, 30.0)
    mixup: float = 0.0
    spec_augment: bool = False
    mask_bands: int = 12
    mask_frames: int = 24

    def __post_init__(self) -> None:
        number("gain", self.gain, 0, 60)
        number("time_shift", self.time_shift, 0, 3600)
        number("noise_share", self.noise_share, 0, 1)
        number("mixup", self.mixup, 0, 100)
        whole("mask_bands", self.mask_bands, 0, 63)
        whole("mask_frames", self.mask_frames, 0, 95)
        if len(self.snr) != 2:
            raise SettingsError(f"snr must be two numbers of decibels, lowest and highest, not {self.snr!r}")
        for value in self.snr:
            number("snr", value, -60, 120)
        if self.snr[0] > self.snr[1]:
            raise SettingsError(f"snr must be the lowest level and then the highest, not {self.snr!r}")


@dataclass(frozen=True)
class TrainSettings:
    """Settings that decide the result of a training run, together with the data.

    Attributes:
        weights: Initial weights of the backbone; "none" or "random" trains from scratch.
        head: Type and size of the head; see :class:`~vggish_pt.classify.config.HeadConfig`.
        window: Division of the audio into windows; see :class:`~vggish_pt.classify.config.WindowSettings`.
        backbone: Train all of VGGish (whole), only the head (frozen), or block by block from the top (gradual).
        frozen_blocks: Number of the lowest blocks (conv1, conv2, conv3, conv4, fc) that are never trained.
        unfreeze_at: Epochs at which gradual starts to train each block, from the top.
        head_epochs: Epochs to train only the head, on cached features, before fine-tuning. Their highest
            learning rate is 0.001; ``lr`` does not apply to them. See :mod:`vggish_pt.classify.training.head`.
        epochs: Passes over all training clips; 0 trains only the head, for head_epochs.
        batch_size: Clips in a batch, on each device.
        windows: Largest number of windows of a clip in a batch. The windows are neighbours, from a random position.
        accumulate: Batches whose gradients are added up for one step of the optimizer.
        optimizer: Class of torch.optim.
        optimizer_options: Further argument of the optimizer, such as momentum=0.9; repeatable.
        lr: Learning rate of the head; the highest one under a one-cycle schedule.
        backbone_lr_factor: Learning rate of the backbone, as a share of the head's.
        weight_decay: Weight decay of all weights except biases and norms.
        schedule: Class of torch.optim.lr_scheduler, or none for a constant learning rate.
        schedule_options: Further argument of the schedule; repeatable.
        clip: Largest norm of the gradients; 0 for no limit.
        swa: Share of the epochs after which weights are averaged, once each epoch; 0 for no average. Izmailov et al.,
            "Averaging Weights Leads to Wider Optima and Better Generalization" (UAI 2018).
        early_stopping: Stop after this many epochs without a better validation metric; 0 for never.
        metric: Validation metric that selects the best epoch; auto is accuracy, or map for several labels.
        keep: Save the weights of the best epoch, or of the last. With ``swa``, the averaged weights are saved
            instead.
        precision: Precision of the computation; bf16 (mixed) is faster and less exact.
        class_weights: Weigh classes equally (none), or by their rarity (balanced).
        label_smoothing: Share of the target that is spread over all classes.
        augment: Random changes to training clips; see :class:`AugmentSettings`.
        devices: Number of devices that train in parallel.
        seed: Random seed.

    Raises:
        SettingsError: a value outside its range.
    """

    weights: str = "audioset"
    head: HeadConfig = field(default_factory=HeadConfig)
    window: WindowSettings = field(default_factory=WindowSettings)
    backbone: BackboneMode = "whole"
    frozen_blocks: int = 0
    unfreeze_at: tuple[int, ...] = (1, 2, 3, 4, 5)
    head_epochs: int = 0
    epochs: int = 20
    batch_size: int = 8
    windows: int = 3
    accumulate: int = 1
    optimizer: str = "AdamW"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 5e-4
    backbone_lr_factor: float = 0.2
    weight_decay: float = 0.05
    schedule: str = "OneCycleLR"
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    clip: float = 5.0
    swa: float = 0.0
    early_stopping: int = 0
    metric: Metric = "auto"
    keep: Keep = "best"
    precision: Precision = "fp32"
    class_weights: ClassWeights = "none"
    label_smoothing: float = 0.0
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    devices: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_numbers()
        choice("backbone", self.backbone, get_args(BackboneMode))
        choice("metric", self.metric, get_args(Metric))
        choice("keep", self.keep, get_args(Keep))
        choice("precision", self.precision, get_args(Precision))
        choice("class_weights", self.class_weights, get_args(ClassWeights))
        for epoch in self.unfreeze_at:
            whole("unfreeze_at", epoch, 0, _MAX_EPOCHS)
        if list(self.unfreeze_at) != sorted(self.unfreeze_at):
            raise SettingsError(f"unfreeze_at must be epochs in ascending order, not {self.unfreeze_at}")
        if self.scratch and (self.backbone != "whole" or self.frozen_blocks):
            raise SettingsError("random weights that are frozen never learn; train from scratch with backbone=whole")
        if self.scratch and self.head_epochs:
            raise SettingsError("the head cannot be trained first on random weights; leave head_epochs at 0")

    def _check_numbers(self) -> None:
        whole("frozen_blocks", self.frozen_blocks, 0, len(BLOCKS))
        whole("head_epochs", self.head_epochs, 0, _MAX_EPOCHS)
        whole("epochs", self.epochs, 0 if self.head_epochs else 1, _MAX_EPOCHS)
        whole("batch_size", self.batch_size, 1, 1 << 16)
        whole("windows", self.windows, 1, 10_000)
        whole("accumulate", self.accumulate, 1, 10_000)
        whole("early_stopping", self.early_stopping, 0, _MAX_EPOCHS)
        whole("devices", self.devices, 1, 4096)
        whole("seed", self.seed, 0, (1 << 32) - 1)
        number("lr", self.lr, 0, 1e3, above=True)
        number("backbone_lr_factor", self.backbone_lr_factor, 0, 1e3, above=True)
        number("weight_decay", self.weight_decay, 0, 1e3)
        number("clip", self.clip, 0, 1e9)
        number("swa", self.swa, 0, 1, below=True)
        number("label_smoothing", self.label_smoothing, 0, 0.999)

    @property
    def scratch(self) -> bool:
        """Return True if the backbone starts from random weights."""
        return self.weights in SCRATCH

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types, in nested objects."""
        document: dict[str, Any] = _plain(asdict(self))
        return document

    @property
    def average_from(self) -> int | None:
        """Return the first epoch, counted from 0, whose weights are averaged, or None for no average."""
        return min(self.epochs - 1, math.floor(self.swa * self.epochs)) if self.swa and self.epochs else None


@dataclass(frozen=True)
class RunOptions:
    """Options of a training run that do not change its result.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        workers: Processes that prepare batches; 0 prepares them in the training process.
        decoders: Threads that decode the files before training.
        cache: Keep decoded audio in the run folder (disk) or in memory while training runs.
        checkpoint_seconds: Seconds between checkpoints, which are also written after each epoch.
        checkpoint_steps: Optimizer steps between checkpoints; 0 for no checkpoints by steps.
        skip_unreadable: Leave out files that cannot be read, instead of failing.

    Raises:
        SettingsError: a value outside its range.
    """

    device: str = "auto"
    workers: int = 0
    decoders: int = 1
    cache: Cache = "disk"
    checkpoint_seconds: float = 60.0
    checkpoint_steps: int = 0
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        from vggish_pt.inference.devices import check_device_name  # imports numpy, which --help must not need

        check_device_name(self.device)
        whole("workers", self.workers, 0, 256)
        whole("decoders", self.decoders, 1, 256)
        choice("cache", self.cache, get_args(Cache))
        number("checkpoint_seconds", self.checkpoint_seconds, 0)
        whole("checkpoint_steps", self.checkpoint_steps, 0)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the differences between the settings of two runs, as ``name: old → new``."""
    found = []
    for key, before, now in sorted(changes(old, new), key=lambda change: change[0]):
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}: {before} → {now}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
