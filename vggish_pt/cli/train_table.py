"""How training goes: a live table on a terminal, plain lines in a log."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggish_pt.utils.text import one_line

if TYPE_CHECKING:
    from vggish_pt.classify.training.progress import TrainingProgress

_LOG_SECONDS = 30.0
_ROWS = 12


class TrainTable:
    """Watches a training, on standard error.

    Args:
        enabled: False prints what cannot be read only.

    Attributes:
        unreadable: how many files could not be read.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.unreadable = 0
        self._enabled = enabled
        self._rows: list[dict[str, Any]] = []
        self._progress = ""
        self._begun: tuple[float, int] | None = None
        self._last = time.monotonic()
        self._live: Any = None
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)

    def __enter__(self) -> TrainTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()
            if self._rows:
                self._live.console.print(self._table(len(self._rows)))

    def watch(self, event: TrainingProgress) -> None:
        """Takes what training tells."""
        if event.kind == "unreadable":
            self.unreadable += 1
            self._print(f"vggish-pt: {event.text}")
        elif event.kind == "decoding":
            self._report(f"decoding: {event.done} of {event.total} files")
        elif event.kind == "resumed":
            self.note(f"going on at {event.text}, after {event.done} of {event.total} epochs")
        elif event.kind == "stopped":
            self.note(f"stopped early: {event.text}")
        elif event.kind == "head":
            self._report(f"the head alone: epoch {event.done} of {event.total}")
        elif event.kind == "step":
            self._report(f"batch {event.done} of {event.total}{self._time_left(event.done, event.total)}")
        elif event.kind == "epoch":
            self._rows.append(event.row)
            if self._live is None:
                self.note(_line(event.row, event.total) + self._left)
            self._last = time.monotonic()

    def note(self, line: str) -> None:
        """Prints a line unless only errors are wanted."""
        if self._enabled:
            self._print(line)

    def finish(self, out: Path, metrics: dict[str, Any]) -> None:
        """Says what came out."""
        found = metrics.get("validation") or {}
        names = ("accuracy", "macro_f1", "mean_average_precision")
        figures = ", ".join(f"{_NAMES[n]} {found[n]:.3f}" for n in names if isinstance(found.get(n), float))
        kept = {
            "best": f"weights of epoch {metrics['epoch']}" if metrics["epoch"] else "weights of the head alone",
            "last": "weights of the end",
            "averaged": "averaged weights",
        }[metrics["kept"]]
        validated = f"; validation: {figures}" if figures else ""
        self.note(f"{out}: {kept}, of {metrics['epochs']} epochs{validated} ({metrics['seconds']:.0f} s)")

    def _report(self, text: str) -> None:
        self._progress = text
        if self._live is not None:
            self._live.update(self._table(_ROWS))
        elif time.monotonic() - self._last >= _LOG_SECONDS:
            self._last = time.monotonic()
            self.note(text)

    _left = ""

    def _time_left(self, done: int, total: int) -> str:
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, done)
        start, first = self._begun
        self._left = (
            "" if done <= first else f", about {_duration((now - start) / (done - first) * (total - done))} left"
        )
        return self._left

    def _table(self, most: int) -> Any:
        from rich.table import Table

        table = Table(caption=self._progress or None, caption_justify="left")
        rows = self._rows[-most:]
        columns = [name for name in _NAMES if name in {key for row in rows for key in row}]
        for name in columns or ["epoch"]:
            table.add_column(_NAMES[name], justify="right")
        for row in rows:
            table.add_row(*(_figure(row.get(name)) for name in columns))
        return table

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
        else:
            print(one_line(line), file=sys.stderr, flush=True)


_NAMES = {
    "epoch": "epoch",
    "train_loss": "train loss",
    "val_loss": "val loss",
    "val_accuracy": "val accuracy",
    "val_macro_f1": "val macro F1",
    "val_mean_average_precision": "val mAP",
    "lr_head": "rate",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mean_average_precision": "mAP",
}


def _line(row: dict[str, Any], total: int) -> str:
    figures = ", ".join(f"{_NAMES[name]} {_figure(row[name])}" for name in _NAMES if name in row and name != "epoch")
    name = f"epoch {row['epoch']} of {total}" if row["epoch"] else "the head alone"
    return f"{name}: {figures}"


def _figure(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.1e}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
