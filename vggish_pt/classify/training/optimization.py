"""Parameter groups, frozen blocks, and optimizers and schedules of torch by name."""

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
from vggish_pt.utils.checks import number

# Optimizers that need other arguments than gradients, and schedules that need other schedules or functions.
_OTHER_OPTIMIZERS = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
_OTHER_SCHEDULES = {"LRScheduler", "SequentialLR", "ChainedScheduler", "LambdaLR", "MultiplicativeLR"}

_EVERY_STEP = ("OneCycleLR", "CosineAnnealingLR", "PolynomialLR", "LinearLR", "CyclicLR")


def block_of(layer: str) -> str:
    """Return the block of :data:`~vggish_pt.classify.training.settings.BLOCKS` that holds a layer or parameter."""
    return layer[:5] if layer.startswith("conv") else "fc"


def used_blocks(features: str) -> tuple[str, ...]:
    """Return the blocks that a layer's values depend on, from the bottom to the top."""
    stages = fused_stages(features) or (features,)
    return BLOCKS[: max(BLOCKS.index(block_of(stage)) for stage in stages) + 1]


def trained_blocks(settings: TrainSettings, epoch: int) -> tuple[str, ...]:
    """Return the blocks of the backbone that are trained in an epoch, from the bottom to the top."""
    used = used_blocks(settings.head.features)
    if settings.backbone == "frozen":
        return ()
    trainable = used[min(settings.frozen_blocks, len(used)) :]
    if settings.backbone == "whole":
        return trainable
    unfrozen = sum(start <= epoch for start in settings.unfreeze_at)
    return trainable[max(0, len(trainable) - unfrozen) :]


def freeze(model: VGGishClassifier, blocks: tuple[str, ...]) -> None:
    """Compute gradients only for these blocks of the backbone and for the head. Blocks below need no backward pass."""
    for name, parameter in model.backbone.network.named_parameters():
        parameter.requires_grad_(block_of(name) in blocks)


def parameter_groups(model: VGGishClassifier, settings: TrainSettings) -> list[dict[str, Any]]:
    """Return the groups of all parameters that any epoch trains, with the learning rates of backbone and head.

    Biases and norms have no weight decay.
    """
    trained = trained_blocks(settings, settings.epochs)
    network = model.backbone.network.named_parameters()
    parts: Iterator[tuple[str, list[nn.Parameter], float]] = iter(
        [
            (
                "backbone",
                [p for name, p in network if block_of(name) in trained],
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
    """Return groups of parameters for an optimizer: weights with weight decay, and biases and norms without."""
    weights, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def optimizer_names() -> list[str]:
    """Return the names of the optimizers in the installed torch that training can use."""
    return _names(torch.optim, torch.optim.Optimizer, _OTHER_OPTIMIZERS)


def schedule_names() -> list[str]:
    """Return the names of the schedules in the installed torch that training can use."""
    return _names(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler, _OTHER_SCHEDULES)


def make_optimizer(model: VGGishClassifier, settings: TrainSettings) -> torch.optim.Optimizer:
    """Create the optimizer that the settings name.

    Raises:
        SettingsError: there is no such optimizer, or it does not accept the options.
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
        scheduler: torch's scheduler, or None for a constant learning rate.
        every: "step" or "epoch" to advance after each, or "metric" to advance after each epoch with the validation
            metric.
    """

    scheduler: Any
    every: Literal["step", "epoch", "metric"]

    def after(self, event: Literal["step", "epoch"], metric: float | None = None) -> None:
        """Advance the schedule if this event advances it."""
        if self.scheduler is None:
            return
        if self.every == event:
            self.scheduler.step()
        elif self.every == "metric" and event == "epoch" and metric is not None:
            self.scheduler.step(metric)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, steps: int, *, higher_is_better: bool
) -> Schedule:
    """Create the schedule that the settings name. Options that depend on the length of training have defaults.

    Args:
        optimizer: optimizer whose learning rates are scheduled.
        settings: name and options of the schedule.
        steps: optimizer steps in the whole training.
        higher_is_better: True if a higher validation metric is better, which ReduceLROnPlateau must know.

    Raises:
        SettingsError: there is no such schedule, or it does not accept the options.
    """
    name = settings.schedule
    if name == "none":
        return Schedule(None, "epoch")
    if name not in (names := schedule_names()):
        raise SettingsError(f"schedule must be none or one of {', '.join(names)}, not {name!r}")
    defaults: dict[str, dict[str, Any]] = {
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
    options = {**defaults.get(name, {}), **settings.schedule_options}
    if name == "OneCycleLR" and "pct_start" in options:
        number("pct_start", options["pct_start"], 0, 1, below=True)  # torch divides by the steps after the warm-up
        options["pct_start"] = warm_up_share(options["pct_start"], options["total_steps"])
    every: Any = "step" if name in _EVERY_STEP else "metric" if name == "ReduceLROnPlateau" else "epoch"
    try:
        made = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"schedule {name}: {error}") from None
    return Schedule(made, every)


def warm_up_share(share: float, steps: int) -> float:
    """Return a one-cycle schedule's share of warm-up steps, adjusted if the warm-up has exactly one step.

    torch divides by the number of warm-up steps less one.
    """
    return share * 1.1 if share * steps == 1 else share


def _names(module: Any, base: type, others: set[str]) -> list[str]:
    found = (name for name, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, base))
    return sorted(name for name in found if name not in others and not name.startswith("_"))
