"""Progress of long jobs on standard error: bars on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from vggish_pt.utils.text import one_line

if TYPE_CHECKING:
    from vggish_pt.classify.prediction import Prediction
    from vggish_pt.dataset.outcomes import Outcome
    from vggish_pt.dataset.outputs.record import Counts
    from vggish_pt.dataset.schema import Failure

_LOG_SECONDS = 15.0
_TABLE_ROWS = 12


class Display:
    """Show tasks, rows of results, notes and errors on standard error.

    On a terminal, each task is a bar, and rows are a table above the bars. In a log, a task is a line every 15 seconds,
    and each row is a line.

    Args:
        enabled: False prints errors only.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._starts: dict[str, tuple[float, int]] = {}  # of each task: the time, and the steps done at that time
        self._logged = time.monotonic()
        self._rows: list[Mapping[str, str]] = []
        self._live: Any = None
        self._bars: Any = None
        self._bar_ids: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if self._enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            name = TextColumn("{task.description}", markup=False)
            detail = TextColumn("{task.fields[detail]}", markup=False)
            self._bars = Progress(name, BarColumn(), MofNCompleteColumn(), detail, TimeRemainingColumn())
            self._live = Live(get_renderable=self._render, console=Console(stderr=True), transient=True)
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()
            if self._rows:
                self._live.console.print(_table(self._rows))
            self._live = None

    def update(self, task: str, done: int, total: int, *, unit: str = "files", detail: str = "") -> None:
        """Report the number of completed steps of a task. The first call for a task starts its clock.

        Args:
            task: name of the task; may be empty.
            done: number of steps done.
            total: number of steps of the whole task.
            unit: plural of one step's name.
            detail: further text, such as a rate.
        """
        now = time.monotonic()
        if task not in self._starts:
            self._starts[task] = (now, done)
            self._logged = now
        if self._live is not None:
            if task not in self._bar_ids:
                self._bar_ids[task] = self._bars.add_task(one_line(task or unit), detail="")
            self._bars.update(self._bar_ids[task], completed=done, total=total, detail=detail)
        elif now - self._logged >= _LOG_SECONDS:
            self._logged = now
            count = f"{done} of {total} {unit}"
            texts = [f"{task}: {count}" if task else count, detail, self._time_left(task, done, total)]
            self.note(", ".join(filter(None, texts)))

    def row(self, cells: Mapping[str, str], line: str) -> None:
        """Show a row of results: ``cells`` (text by column) in the table on a terminal, or ``line`` in a log."""
        if self._live is not None:
            self._rows.append(cells)
        else:
            self.note(line)

    def note(self, line: str) -> None:
        """Print a line, unless only errors are wanted."""
        if self._enabled:
            self._print(line)

    def error(self, line: str) -> None:
        """Print the line of an error."""
        self._print(f"vggish-pt: {line}")

    def _print(self, line: str) -> None:
        if self._live is not None:  # above the bars
            self._live.console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
        else:
            print(one_line(line), file=sys.stderr, flush=True)

    def _time_left(self, task: str, done: int, total: int) -> str:
        start, done_before = self._starts[task]
        if done <= done_before:
            return ""
        seconds = (time.monotonic() - start) / (done - done_before) * (total - done)
        return f"about {_duration(seconds)} left"

    def _render(self) -> Any:
        from rich.console import Group

        return Group(_table(self._rows[-_TABLE_ROWS:]), self._bars) if self._rows else self._bars


class Progress(Display):
    """Progress over clips: counts of files, failures and hours of audio.

    Args:
        total: number of clips; 0 if :meth:`begin` gives it later.
        enabled: False prints failures only.
    """

    def __init__(self, total: int = 0, *, enabled: bool = True) -> None:
        super().__init__(enabled=enabled)
        self._total = total
        self._before = self._done = self._failed = 0
        self._audio = self._audio_before = 0.0
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        super().__enter__()
        if self._total:
            self._show()
        return self

    def begin(self, total: int, before: Counts) -> None:
        """Set the number of clips, and the counts of earlier runs. Rates count from now on."""
        self._total = total
        self._before = before.files + before.errors
        self._failed, self._audio_before = before.errors, before.seconds
        self._start = time.monotonic()
        if total:
            self._show()
        if self._before and self._before < total:
            self.note(f"resuming: {self._before} of {total} files are done, {before.seconds / 3600:.2f} h of audio")

    def watch(self, outcome: Outcome | Prediction) -> None:
        """Count a clip that was embedded or predicted, or that failed; print its failure."""
        from vggish_pt.dataset.schema import Failure

        if isinstance(outcome, Failure):
            self._failed += 1
            self.fail(outcome)
            self.advance(0.0)
        else:
            self.advance(outcome.duration)

    def advance(self, seconds: float) -> None:
        """Count a clip that is done, with its seconds of audio."""
        self._done += 1
        self._audio += seconds
        self._show()

    def fail(self, failure: Failure) -> None:
        """Print the failure of a clip."""
        self.error(f"{failure.path}: {failure.reason}")

    def finish(self, line: str) -> None:
        """Print the last line, with the time taken and the rate."""
        self.note(f"{line} ({time.monotonic() - self._start:.1f} s, {self._rate()})")

    def _show(self) -> None:
        self.update("", self._before + self._done, self._total, detail=self._rate() if self._done else "")

    def _rate(self) -> str:
        elapsed = max(1e-9, time.monotonic() - self._start)
        failed = f", {self._failed} failed" if self._failed else ""
        hours = (self._audio_before + self._audio) / 3600
        return f"{hours:.2f} h of audio, {self._audio / elapsed:.0f} times real time{failed}"


def _table(rows: Sequence[Mapping[str, str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    columns = dict.fromkeys(name for cells in rows for name in cells)
    table = Table()
    for name in columns:
        table.add_column(Text(name), justify="right")
    for cells in rows:
        table.add_row(*(Text(one_line(cells.get(name, ""))) for name in columns))
    return table


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
