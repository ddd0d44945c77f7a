"""Progress events of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingProgress:
    """Progress event of a training.

    Attributes:
        kind: "decoding", "head", "step" or "resumed" (``done`` of ``total``), "epoch" (also ``row``; epoch 0 is the
            head-only stage), "unreadable" or "stopped" (``text``).
        done: number of completed files, epochs or batches.
        total: number of all of them.
        row: row of ``metrics.csv`` of an epoch.
        text: error or reason.
    """

    kind: str
    done: int = 0
    total: int = 0
    row: dict[str, Any] = field(default_factory=dict)
    text: str = ""


Watch = Callable[[TrainingProgress], None]
