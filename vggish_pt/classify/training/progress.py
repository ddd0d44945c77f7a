"""What training tells those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingProgress:
    """What training tells those who watch it.

    Attributes:
        kind: "decoding", "head" and "step" (``done`` of ``total``), "unreadable" (``text``), "resumed" and "epoch"
            (``row``; epoch 0 is the head alone), "stopped" (``text``).
        done: how many.
        total: of how many.
        row: an epoch's row of ``metrics.csv``.
        text: a sentence.
    """

    kind: str
    done: int = 0
    total: int = 0
    row: dict[str, Any] = field(default_factory=dict)
    text: str = ""


Watch = Callable[[TrainingProgress], None]
