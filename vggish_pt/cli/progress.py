"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Any

_LOG_SECONDS = 15.0


class Progress:
    """Counts files and seconds of audio, on standard error.

    Args:
        total: how many files there are.
        enabled: False prints nothing but what :meth:`print` is given.
    """

    def __init__(self, total: int, *, enabled: bool = True) -> None:
        self._total = total
        self._enabled = enabled
        self._done = self._failed = 0
        self._audio = 0.0
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("files {task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("embed", total=total, rate="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, seconds: float, *, failed: bool = False) -> None:
        """One more file is done, which held so many seconds of audio."""
        self._done += 1
        self._failed += failed
        self._audio += seconds
        if self._bar is not None:
            self._bar.update(self._task, advance=1, rate=self._rate())
        elif self._enabled and time.monotonic() - self._last >= _LOG_SECONDS:
            self._last = time.monotonic()
            self.print(f"{self._done} of {self._total} files, {self._rate()}, {self._time_left()}")

    def print(self, line: str) -> None:
        """Prints a line without disturbing the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def finish(self, line: str) -> None:
        """Prints the last line, with the time it took."""
        if self._enabled:
            self.print(f"{line} ({time.monotonic() - self._start:.1f} s, {self._rate()})")

    def _rate(self) -> str:
        elapsed = max(1e-9, time.monotonic() - self._start)
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._audio / 3600:.2f} h of audio, {self._audio / elapsed:.0f} times real time{failed}"

    def _time_left(self) -> str:
        elapsed = time.monotonic() - self._start
        return f"about {elapsed / self._done * (self._total - self._done):.0f} s left"
