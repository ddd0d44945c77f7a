"""A part of a source, from one time to another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio.decoder import Decoder, Samples
from vggish_pt.errors import AudioError, AudioWarning, SettingsError

# Tables of parts round the ends of files; so much may be missing without a word.
_SLACK_SECONDS = 0.1


class Segment:
    """Which samples of a source are wanted.

    Args:
        start: seconds at which they begin; None for the beginning.
        end: seconds at which they end; None for the end.

    Raises:
        SettingsError: times that cannot be.
    """

    def __init__(self, start: float | None = None, end: float | None = None) -> None:
        complaint = complain(start, end)
        if complaint:
            raise SettingsError(f"no part of a sound: {complaint}")
        self.start = float(start or 0.0)
        self.end = None if end is None else float(end)

    def blocks(self, decoder: Decoder[Samples], name: str) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Takes its samples out of those of a source.

        Args:
            decoder: the opened source, no block of it taken yet.
            name: how errors call it.

        Yields:
            Each block, (n, channels), and how many samples per channel of the source came before it.

        Raises:
            AudioError: the source ends before the part begins.
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
                f"{name}: ends at {position / rate:.3f} s, before the part does at {self.end:g} s; using what is there",
                AudioWarning,
                stacklevel=3,
            )

    def _behind_end(self, name: str, length: float) -> AudioError:
        return AudioError(f"{name}: the part from {self.start:g} s lies behind its end at {length:.3f} s", name)


def complain(start: float | None, end: float | None) -> str | None:
    """What is wrong with the times of a part, in seconds; None if nothing."""
    for what, seconds in (("start", start), ("end", end)):
        if seconds is not None and not math.isfinite(seconds):
            return f"{what} {seconds} is no time"
    if start is not None and start < 0:
        return f"start {start:g} lies before 0"
    if end is not None and end <= (start or 0.0):
        return f"end {end:g} does not lie after start {start or 0.0:g}"
    return None
