"""Segment of a source, from one time to another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.decoder import Decoder, Samples
from vggish_pt.errors import AudioError, AudioWarning, SettingsError

# Tables of segments round the ends of files: up to this much may be missing without a warning.
_SLACK_SECONDS = 0.1


class Segment:
    """Segment of a source.

    Args:
        start: start in seconds; None for the beginning.
        end: end in seconds; None for the end.

    Raises:
        SettingsError: a time is not finite or negative, or the end is not after the start.
    """

    def __init__(self, start: float | None = None, end: float | None = None) -> None:
        problem = time_problem(start, end)
        if problem:
            raise SettingsError(f"not a part of an audio file: {problem}")
        self.start = float(start or 0.0)
        self.end = None if end is None else float(end)

    def blocks(self, decoder: Decoder[Samples], name: str) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield the samples of the segment.

        Args:
            decoder: the opened source, from which no block was read yet.
            name: name of the source in errors.

        Yields:
            The number of samples per channel of the source before a block, and the block, (n, channels).

        Raises:
            AudioError: the source ends before the segment begins.
        """
        rate = decoder.sample_rate
        first = round(self.start * rate)
        last = None if self.end is None else round(self.end * rate)
        if last is not None and last <= first:
            raise AudioError(f"{name}: the part from {self.start:g} s to {self.end:g} s holds no sample", name)
        position = 0
        if first and decoder.seek is not None and decoder.frames is not None:
            if first >= decoder.frames:
                raise self._behind_end(name, decoder.frames / rate)
            decoder.seek(first)
            position = first
        for block in decoder.blocks:
            began, position = position, position + len(block)
            if position > first:
                skipped = max(0, first - began)
                yield began + skipped, block[skipped : None if last is None else last - began]
            if last is not None and position >= last:
                return
        if first and position <= first:
            raise self._behind_end(name, position / rate)
        if self.end is not None and self.end - position / rate > _SLACK_SECONDS:
            warnings.warn(
                f"{name}: ends at {position / rate:.3f} s, before the end of the part at {self.end:g} s; "
                "using the readable audio",
                AudioWarning,
                stacklevel=3,
            )

    def _behind_end(self, name: str, length: float) -> AudioError:
        return AudioError(
            f"{name}: the part begins at {self.start:g} s, after the end of the audio at {length:.3f} s", name
        )


def time_problem(start: float | None, end: float | None) -> str | None:
    """Return the problem with the times of a segment in seconds; None if there is none."""
    for what, seconds in (("start", start), ("end", end)):
        if seconds is not None and not math.isfinite(seconds):
            return f"{what} {seconds} is no time"
    if start is not None and start < 0:
        return f"start {start:g} is before 0"
    if end is not None and end <= (start or 0.0):
        return f"end {end:g} is not after start {start or 0.0:g}"
    return None
