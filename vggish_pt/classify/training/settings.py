"""What decides a training run, checked in one place and cheap to import."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from vggish_pt.classify.config import HeadConfig, WindowSettings
from vggish_pt.errors import SettingsError
from vggish_pt.utils.checks import choice, number, whole

BackboneMode = Literal["frozen", "whole", "gradual"]
Metric = Literal["auto", "accuracy", "macro_f1", "map", "loss"]

SCRATCH = ("none", "random")
"""Weights by these names are random: the network is trained from scratch."""

BLOCKS = ("conv1", "conv2", "conv3", "conv4", "fc")
"""Blocks of the backbone from the bottom to the top. "fc" is fc1, fc2 and embedding."""


@dataclass(frozen=True)
class AugmentSettings:
    """How training clips are changed, anew in every epoch. All of it is off unless asked for, but the first.

    Attributes:
        random_crop: whether training takes windows from anywhere in a clip, not only at multiples of the hop.
        gain: decibels; the level changes by a random amount between minus and plus this much.
        time_shift: seconds; a clip is turned around by a random amount up to this much, its end coming first.
        noise: folder of recordings that are mixed in, or None.
        noise_share: share of clips that get noise.
        snr: decibels, lowest and highest level of the clip above the noise.
        mixup: parameter of the beta distribution from which shares of mixed clips are drawn; 0 for no mixing. Zhang
            et al., "mixup: Beyond Empirical Risk Minimization" (ICLR 2018).
        spec_augment: whether to mask bands and times, with torchaudio's masks. Park et al., "SpecAugment"
            (Interspeech 2019).
        mask_bands: mel bands, of 64, that a mask hides at most.
        mask_frames: frames, of 96, that a mask hides at most in each window.

    Raises:
        SettingsError: a value outside what it may be.
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
            raise SettingsError(f"snr: the lowest comes first, not {self.snr!r}")


@dataclass(frozen=True)
class TrainSettings:
    """What decides the result of a training run, beside the data.

    Attributes:
        weights: where the backbone starts; "none" or "random" trains from scratch.
        head: what stands on top; see :class:`~vggish_pt.classify.config.HeadConfig`.
        window: how audio becomes windows.
        backbone: "whole" trains it all, "frozen" none of it, "gradual" block by block from the top.
        frozen_blocks: so many of the lowest blocks are never trained (conv1, conv2, conv3, conv4, fc).
        unfreeze_at: for "gradual": the epoch at which each block, from the top, begins to be trained.
        head_epochs: how often the head alone sees every clip beforehand, on features that are computed once; see
            :mod:`vggish_pt.classify.training.head`.
        epochs: how often training sees every clip; 0 for the head alone, with ``head_epochs``.
        batch_size: clips in a step on each device.
        windows: windows taken from a clip in a step, at most; neighbouring ones, from a random place.
        accumulate: batches whose gradients make one step of the optimizer.
        optimizer: a class of ``torch.optim`` by name.
        optimizer_options: further arguments of it.
        lr: learning rate of the head; with a one-cycle schedule the highest.
        backbone_lr_factor: the backbone's rate as a share of that.
        weight_decay: of all weights but biases and norms.
        schedule: a class of ``torch.optim.lr_scheduler`` by name, or "none".
        schedule_options: further arguments of it.
        clip: largest norm of the gradients; 0 for no bound.
        swa: share of the epochs after which weights are averaged, one set each epoch; 0 for none. Izmailov et al.,
            "Averaging Weights Leads to Wider Optima and Better Generalization" (UAI 2018).
        early_stopping: epochs without a better validation figure after which training stops; 0 for never.
        metric: which validation figure chooses the best weights; "auto" is accuracy, or mAP for several labels.
        keep: "best" keeps the weights of the epoch with the best figure, "last" those of the end. Averaged weights
            (``swa``) are always those of the end.
        precision: "fp32", or "bf16" for mixed precision.
        class_weights: "balanced" weighs classes by their rarity; "none".
        label_smoothing: share of the target that is spread over all classes.
        augment: :class:`AugmentSettings`.
        devices: how many devices train side by side.
        seed: of all randomness.

    Raises:
        SettingsError: a value outside what it may be.
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
    keep: Literal["best", "last"] = "best"
    precision: Literal["fp32", "bf16"] = "fp32"
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float = 0.0
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    devices: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        choice("backbone", self.backbone, get_args(BackboneMode))
        choice("metric", self.metric, get_args(Metric))
        choice("keep", self.keep, ("best", "last"))
        choice("precision", self.precision, ("fp32", "bf16"))
        choice("class_weights", self.class_weights, ("none", "balanced"))
        whole("frozen_blocks", self.frozen_blocks, 0, len(BLOCKS))
        whole("head_epochs", self.head_epochs, 0, 1_000_000)
        whole("epochs", self.epochs, 0 if self.head_epochs else 1, 1_000_000)
        whole("batch_size", self.batch_size, 1, 1 << 16)
        whole("windows", self.windows, 1, 10_000)
        whole("accumulate", self.accumulate, 1, 10_000)
        whole("early_stopping", self.early_stopping, 0, 1_000_000)
        whole("devices", self.devices, 1, 4096)
        whole("seed", self.seed, 0, (1 << 32) - 1)
        for epoch in self.unfreeze_at:
            whole("unfreeze_at", epoch, 0, 1_000_000)
        if list(self.unfreeze_at) != sorted(self.unfreeze_at):
            raise SettingsError(f"unfreeze_at must be epochs in rising order, not {self.unfreeze_at}")
        number("lr", self.lr, 0, 1e3, above=True)
        number("backbone_lr_factor", self.backbone_lr_factor, 0, 1e3, above=True)
        number("weight_decay", self.weight_decay, 0, 1e3)
        number("clip", self.clip, 0, 1e9)
        number("label_smoothing", self.label_smoothing, 0, 0.999)
        number("swa", self.swa, 0, 1, below=True)
        if self.weights in SCRATCH and (self.backbone != "whole" or self.frozen_blocks):
            raise SettingsError("random weights that are frozen never learn; train from scratch with backbone=whole")
        if self.weights in SCRATCH and self.head_epochs:
            raise SettingsError("on random weights the head has nothing to learn beforehand; leave head_epochs at 0")

    @property
    def scratch(self) -> bool:
        """Whether the backbone starts from random weights."""
        return self.weights in SCRATCH

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, in nested objects."""
        document: dict[str, Any] = _plain(asdict(self))
        return document

    @property
    def average_from(self) -> int | None:
        """The first epoch, counted from 0, whose weights go into the average; None for no average."""
        return min(self.epochs - 1, math.floor(self.swa * self.epochs)) if self.swa and self.epochs else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between the settings of two runs, as ``name: old → new``."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key}: {before} → {now}")
    return found
