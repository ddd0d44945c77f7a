"""What training changes, and how fast: parameter groups, frozen blocks, optimizers and schedules of torch by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from vggish_pt.classify.model import VGGishClassifier
from vggish_pt.classify.training.settings import BLOCKS, TrainSettings
from vggish_pt.errors import SettingsError
from vggish_pt.nn.layers import fused_stages

# Optimizers that need more than gradients of every weight, and schedules that need other schedules or functions.
_OTHER_OPTIMIZERS = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
_OTHER_SCHEDULES = {"LRScheduler", "SequentialLR", "ChainedScheduler", "LambdaLR", "MultiplicativeLR"}

_EVERY_STEP = ("OneCycleLR", "CosineAnnealingLR", "PolynomialLR", "LinearLR", "CyclicLR")


def block_of(layer: str) -> str:
    """The block of :data:`~vggish_pt.classify.training.settings.BLOCKS` that a layer or parameter belongs to."""
    return layer[:5] if layer.startswith("conv") else "fc"


def used_blocks(features: str) -> tuple[str, ...]:
    """The blocks that a layer's values depend on, from the bottom to the top."""
    stages = fused_stages(features) or (features,)
    return BLOCKS[: max(BLOCKS.index(block_of(stage)) for stage in stages) + 1]


def trained_blocks(settings: TrainSettings, epoch: int) -> tuple[str, ...]:
    """The blocks of the backbone that are trained in an epoch, from the bottom to the top."""
    used = used_blocks(settings.head.features)
    if settings.backbone == "frozen":
        return ()
    free = used[min(settings.frozen_blocks, len(used)) :]
    if settings.backbone == "whole":
        return free
    open_blocks = sum(start <= epoch for start in settings.unfreeze_at)
    return free[max(0, len(free) - open_blocks) :]


def freeze(model: VGGishClassifier, blocks: tuple[str, ...]) -> None:
    """Lets gradients reach these blocks of the backbone, and the head, alone. What lies below costs no backward."""
    for name, parameter in model.backbone.network.named_parameters():
        parameter.requires_grad_(block_of(name) in blocks)


def parameter_groups(model: VGGishClassifier, settings: TrainSettings) -> list[dict[str, Any]]:
    """The parameters that training may ever change: those of the backbone at their own rate, and the head's.

    Biases and norms are not decayed.
    """
    ever = trained_blocks(settings, settings.epochs)
    network = model.backbone.network.named_parameters()
    parts: Iterator[tuple[str, list[nn.Parameter], float]] = iter(
        [
            (
                "backbone",
                [p for name, p in network if block_of(name) in ever],
                settings.lr * (1.0 if settings.scratch else settings.backbone_lr_factor),
            ),
            ("head", list(model.head.parameters()), settings.lr),
        ]
    )
    return [
        {**group, "lr": lr, "name": name}
        for name, parameters, lr in parts
        for group in decay_groups(parameters, settings.weight_decay)
    ]


def decay_groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for an optimizer: weights, which are decayed, and biases and norms, which are not."""
    weights, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def optimizer_names() -> list[str]:
    """The optimizers of this torch that training can use."""
    return _names(torch.optim, torch.optim.Optimizer, _OTHER_OPTIMIZERS)


def schedule_names() -> list[str]:
    """The schedules of this torch that training can use."""
    return _names(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler, _OTHER_SCHEDULES)


def make_optimizer(model: VGGishClassifier, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer that the settings name.

    Raises:
        SettingsError: there is no such optimizer, or it does not take the options.
    """
    if settings.optimizer not in (names := optimizer_names()):
        raise SettingsError(f"optimizer must be one of {', '.join(names)}, not {settings.optimizer!r}")
    kind = getattr(torch.optim, settings.optimizer)
    try:
        made: torch.optim.Optimizer = kind(parameter_groups(model, settings), **settings.optimizer_options)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"optimizer {settings.optimizer}: {error}") from None
    return made


@dataclass
class Schedule:
    """A learning-rate schedule.

    Attributes:
        scheduler: torch's, or None for a constant rate.
        every: when it advances: after each "step", each "epoch", or after an epoch with the validation "figure".
    """

    scheduler: Any
    every: Literal["step", "epoch", "figure"]

    def after(self, moment: Literal["step", "epoch"], figure: float | None = None) -> None:
        """Advances it if it is time."""
        if self.scheduler is None:
            return
        if self.every == moment:
            self.scheduler.step()
        elif self.every == "figure" and moment == "epoch" and figure is not None:
            self.scheduler.step(figure)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, steps: int, *, higher_is_better: bool
) -> Schedule:
    """The schedule that the settings name; what depends on the length of training is filled in.

    Args:
        optimizer: whose rates it sets.
        settings: name and options.
        steps: of the optimizer, in the whole training.
        higher_is_better: of the validation figure, which ReduceLROnPlateau watches.

    Raises:
        SettingsError: there is no such schedule, or it does not take the options.
    """
    name = settings.schedule
    if name == "none":
        return Schedule(None, "epoch")
    if name not in (names := schedule_names()):
        raise SettingsError(f"schedule must be none or one of {', '.join(names)}, not {name!r}")
    filled: dict[str, dict[str, Any]] = {
        "OneCycleLR": {
            "max_lr": [group["lr"] for group in optimizer.param_groups],
            "total_steps": max(2, steps),
            "cycle_momentum": any(key in optimizer.defaults for key in ("momentum", "betas")),
        },
        "CosineAnnealingLR": {"T_max": steps},
        "PolynomialLR": {"total_iters": steps},
        "LinearLR": {"total_iters": steps, "start_factor": 1.0, "end_factor": 0.0},
        "ReduceLROnPlateau": {"mode": "max" if higher_is_better else "min"},
    }
    options = filled.get(name, {})
    every: Any = "step" if name in _EVERY_STEP else "figure" if name == "ReduceLROnPlateau" else "epoch"
    try:
        made = getattr(torch.optim.lr_scheduler, name)(optimizer, **{**options, **settings.schedule_options})
    except (TypeError, ValueError) as error:
        raise SettingsError(f"schedule {name}: {error}") from None
    return Schedule(made, every)


def _names(module: Any, base: type, others: set[str]) -> list[str]:
    found = (name for name, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, base))
    return sorted(name for name in found if name not in others and not name.startswith("_"))
