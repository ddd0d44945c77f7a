"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from vggish_pt.cli.text import one_line

if TYPE_CHECKING:
    from vggish_pt.dump import Outcome
    from vggish_pt.output.rows import Failure

_LOG_SECONDS = 15.0


class Progress:
    """Counts files and seconds of audio, on standard error.

    Args:
        total: how many files there are.
        enabled: False prints failures only.
    """

    def __init__(self, total: int, *, enabled: bool = True) -> None:
        self._total = total
        self._enabled = enabled
        self._done = self._failed = 0
        self._audio = 0.0
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        if enabled and total and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            text = TextColumn("files {task.fields[rate]}")
            columns = (BarColumn(), MofNCompleteColumn(), text, TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("embed", total=total, rate="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def watch(self, outcome: Outcome) -> None:
        """One more file is done, or failed."""
        from vggish_pt.dump import Done

        self._done += 1
        if isinstance(outcome, Done):
            self._audio += outcome.duration
        else:
            self._failed += 1
            self.fail(outcome)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, rate=self._rate())
        elif time.monotonic() - self._last >= _LOG_SECONDS:
            self._last = time.monotonic()
            self.note(f"{self._done} of {self._total} files, {self._rate()}, {self._time_left()}")

    def fail(self, failure: Failure) -> None:
        """Prints an input that failed."""
        self._print(f"vggish-pt: {failure.path}: {failure.reason}")

    def note(self, line: str) -> None:
        """Prints a line unless only failures are wanted."""
        if self._enabled:
            self._print(line)

    def finish(self, line: str) -> None:
        """Prints the last line, with the time it took."""
        self.note(f"{line} ({time.monotonic() - self._start:.1f} s, {self._rate()})")

    def _print(self, line: str) -> None:
        if self._bar is not None:  # without disturbing the bar
            self._bar.console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
        else:
            print(one_line(line), file=sys.stderr, flush=True)

    def _rate(self) -> str:
        elapsed = max(1e-9, time.monotonic() - self._start)
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._audio / 3600:.2f} h of audio, {self._audio / elapsed:.0f} times real time{failed}"

    def _time_left(self) -> str:
        elapsed = time.monotonic() - self._start
        return f"about {elapsed / self._done * (self._total - self._done):.0f} s left"
