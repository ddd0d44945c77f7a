"""A log-mel spectrogram for a picture: of any length, in memory for a picture's columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.audio import open_audio
from vggish_pt.audio.waveform import waveform_chunks

if TYPE_CHECKING:
    from vggish_pt.audio import AudioLike
    from vggish_pt.audio.clip import Opener
    from vggish_pt.nn.frontend import LogMel

MAX_COLUMNS = 2000

_SECONDS = c.FRAME_HOP / c.SAMPLE_RATE


@dataclass(frozen=True)
class Spectrogram:
    """A spectrogram.

    Attributes:
        values: (columns, 64) float32 log-mel, each column a mean over frames.
        start: seconds in the file at which it begins.
        end: seconds at which it ends.
    """

    values: NDArray[np.float32]
    start: float
    end: float


def spectrogram(
    frontend: LogMel,
    source: AudioLike | Opener,
    sample_rate: float | None = None,
    *,
    start: float | None = None,
    end: float | None = None,
    allow_truncated: bool = False,
) -> Spectrogram:
    """The log-mel spectrogram of a source in at most 2,000 columns.

    Args:
        frontend: computes the frames.
        source: as of :func:`vggish_pt.audio.open_audio`.
        sample_rate: hertz, for arrays.
        start: seconds at which the part to draw begins; None for the beginning.
        end: seconds at which it ends; None for the end.
        allow_truncated: whether to take what a truncated file still holds.

    Raises:
        AudioError: audio that is missing, empty, damaged or non-finite.
    """
    from vggish_pt.nn.streaming import StreamingLogMel

    with open_audio(source, sample_rate, allow_truncated=allow_truncated, start=start, end=end) as audio:
        # Windows that follow each other without a gap or overlap are the frames of the whole.
        stream = StreamingLogMel(frontend, c.EXAMPLE_FRAMES * _SECONDS, "tail", "cpu")
        columns = _Columns()
        for piece in waveform_chunks(audio):
            columns.add(stream.push(piece).reshape(-1, c.MEL_BANDS).numpy())
        columns.add(stream.flush().reshape(-1, c.MEL_BANDS).numpy())
        seconds = audio.decoded / audio.sample_rate
    first = start or 0.0
    values = columns.values(round(seconds / _SECONDS))
    return Spectrogram(values, first, first + seconds)


class _Columns:
    """Means of neighbouring frames, twice as many in each whenever there get too many."""

    def __init__(self) -> None:
        self._frames = 1
        self._columns = np.zeros((0, c.MEL_BANDS), np.float32)
        self._rest = np.zeros((0, c.MEL_BANDS), np.float32)

    def add(self, frames: NDArray[np.float32]) -> None:
        frames = np.concatenate([self._rest, frames])
        whole = len(frames) // self._frames * self._frames
        self._rest = frames[whole:].copy()
        self._columns = np.concatenate([self._columns, self._means(frames[:whole], self._frames)])
        while len(self._columns) >= 2 * MAX_COLUMNS:
            if len(self._columns) % 2:
                self._rest = np.concatenate([np.repeat(self._columns[-1:], self._frames, axis=0), self._rest])
                self._columns = self._columns[:-1]
            self._columns = self._means(self._columns, 2)
            self._frames *= 2

    def values(self, frames: int) -> NDArray[np.float32]:
        """The columns of so many frames; what came after them was padding."""
        columns = self._columns
        if len(self._rest):
            columns = np.concatenate([columns, self._rest.mean(axis=0, keepdims=True)])
        columns = columns[: max(1, -(-frames // self._frames))]
        if len(columns) <= MAX_COLUMNS:
            return columns
        firsts = np.arange(0, len(columns), 2)
        counts = np.diff(np.append(firsts, len(columns)))[:, None]
        return (np.add.reduceat(columns, firsts, axis=0) / counts).astype(np.float32)

    @staticmethod
    def _means(frames: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        if count == 1 or not len(frames):
            return frames
        means: NDArray[np.float32] = frames.reshape(-1, count, c.MEL_BANDS).mean(axis=1, dtype=np.float32)
        return means
