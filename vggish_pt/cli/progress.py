"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from vggish_pt.utils.text import one_line

if TYPE_CHECKING:
    from vggish_pt.dataset.outcomes import Outcome
    from vggish_pt.dataset.outputs.record import Counts
    from vggish_pt.dataset.schema import Failure

_LOG_SECONDS = 15.0


class Progress:
    """Counts inputs and seconds of audio, on standard error.

    Args:
        total: how many inputs there are; may be told later, see :meth:`begin`.
        enabled: False prints failures only.
    """

    def __init__(self, total: int = 0, *, enabled: bool = True) -> None:
        self._total = total
        self._enabled = enabled
        self._before = 0
        self._done = self._failed = 0
        self._audio = self._audio_before = 0.0
        self._start = self._last = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self._enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            text = TextColumn("files {task.fields[rate]}")
            columns = (BarColumn(), MofNCompleteColumn(), text, TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            if self._total:
                self._add_task()
        return self

    def _add_task(self) -> None:
        self._task = self._bar.add_task("embed", total=self._total, completed=self._before, rate="")

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, total: int, before: Counts) -> None:
        """Says how many inputs there are, and what runs before have done of them. Rates count from now on."""
        self._total = total
        self._before = before.files + before.errors
        self._failed, self._audio_before = before.errors, before.seconds
        self._start = self._last = time.monotonic()
        if self._bar is not None and total:
            self._add_task()
        if self._before and self._before < total:
            self.note(f"going on: {self._before} of {total} files are done, {before.seconds / 3600:.2f} h of audio")

    def watch(self, outcome: Outcome) -> None:
        """One more input is done, or failed."""
        from vggish_pt.dataset.schema import Failure

        if isinstance(outcome, Failure):
            self._failed += 1
            self.fail(outcome)
            self.advance(0.0)
        else:
            self.advance(outcome.duration)

    def advance(self, seconds: float) -> None:
        """One more input is done, of so many seconds of audio."""
        self._done += 1
        self._audio += seconds
        if self._bar is not None:
            self._bar.update(self._task, advance=1, rate=self._rate())
        elif time.monotonic() - self._last >= _LOG_SECONDS:
            self._last = time.monotonic()
            done = self._before + self._done
            self.note(f"{done} of {self._total} files, {self._rate()}, {self._time_left()}")

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
        hours = (self._audio_before + self._audio) / 3600
        return f"{hours:.2f} h of audio, {self._audio / elapsed:.0f} times real time{failed}"

    def _time_left(self) -> str:
        elapsed = time.monotonic() - self._start
        left = elapsed / self._done * (self._total - self._before - self._done)
        return f"about {_duration(left)} left"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
