"""Progress of ``vggish-pt train`` on standard error: a bar for each stage, and a row for each epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggish_pt.cli.progress import Display

if TYPE_CHECKING:
    from vggish_pt.classify.training.progress import TrainingProgress

_COLUMNS = {
    "epoch": "epoch",
    "train_loss": "train loss",
    "val_loss": "val loss",
    "val_accuracy": "val accuracy",
    "val_macro_f1": "val macro F1",
    "val_mean_average_precision": "val mAP",
    "lr_head": "rate",
}
_METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1", "mean_average_precision": "mAP"}
_SAVED = {"best": "weights of epoch {epoch}", "last": "weights of the last epoch", "averaged": "averaged weights"}


class TrainingDisplay(Display):
    """Show the progress of a training.

    Args:
        enabled: False prints errors only.

    Attributes:
        unreadable: number of files that could not be read.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        super().__init__(enabled=enabled)
        self.unreadable = 0
        self._batches = (0, 0)

    def watch(self, event: TrainingProgress) -> None:
        """Show an event of the training."""
        if event.kind == "unreadable":
            self.unreadable += 1
            self.error(event.text)
        elif event.kind == "decoding":
            self.update("decoding", event.done, event.total)
        elif event.kind == "head":
            self.update("head only", event.done, event.total, unit="epochs")
        elif event.kind == "step":
            self._batches = (event.done, event.total)
            self.update("training", event.done, event.total, unit="batches")
        elif event.kind == "resumed":
            self.note(f"resuming at {event.text}, after {event.done} of {event.total} epochs")
        elif event.kind == "stopped":
            self.note(f"stopped early: {event.text}")
        elif event.kind == "epoch":
            cells = {name: _text(event.row[key]) for key, name in _COLUMNS.items() if key in event.row}
            self.row(cells, self._line(cells, event))

    def finish(self, out: Path, metrics: dict[str, Any]) -> None:
        """Print the result: which weights were saved, and their validation metrics."""
        found = metrics.get("validation") or {}
        figures = ", ".join(
            f"{name} {found[key]:.3f}" for key, name in _METRICS.items() if isinstance(found.get(key), float)
        )
        saved = _SAVED[metrics["kept"]] if metrics["epoch"] else "weights of the head-only stage"
        validated = f"; validation: {figures}" if figures else ""
        self.note(
            f"{out}: {saved.format(epoch=metrics['epoch'])}, of {metrics['epochs']} epochs{validated} "
            f"({metrics['seconds']:.0f} s)"
        )

    def _line(self, cells: dict[str, str], event: TrainingProgress) -> str:
        name = f"epoch {event.done} of {event.total}" if event.done else "head only"
        figures = ", ".join(f"{column} {text}" for column, text in cells.items() if column != "epoch")
        left = self._time_left("training", *self._batches) if event.done and self._batches[1] else ""
        return f"{name}: {figures}{', ' if left else ''}{left}"


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.1e}"
