"""Log-mel spectrograms for figures. Memory depends on the width of the figure, not on the length of the audio."""

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
    """Spectrogram of a source.

    Attributes:
        values: (columns, 64) float32 log-mel, each column a mean over frames.
        start: start in seconds of the file.
        end: end in seconds of the file.
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
    """Compute the log-mel spectrogram of a source in at most 2,000 columns.

    Args:
        frontend: front end that computes the frames.
        source: as in :func:`vggish_pt.audio.open_audio`.
        sample_rate: hertz, for arrays.
        start: start of the segment in seconds; None for the beginning of the source.
        end: end of the segment in seconds; None for the end of the source.
        allow_truncated: True uses the readable beginning of a truncated file.

    Raises:
        AudioError: audio that is missing, empty, damaged or non-finite.
    """
    from vggish_pt.nn.streaming import StreamingLogMel

    with open_audio(source, sample_rate, allow_truncated=allow_truncated, start=start, end=end) as audio:
        # Windows without gaps or overlaps hold each frame once.
        stream = StreamingLogMel(frontend, c.EXAMPLE_FRAMES * _SECONDS, "tail", "cpu")
        columns = _Columns()
        for chunk in waveform_chunks(audio):
            columns.add(stream.push(chunk).reshape(-1, c.MEL_BANDS).numpy())
        columns.add(stream.flush().reshape(-1, c.MEL_BANDS).numpy())
        seconds = audio.decoded / audio.sample_rate
    first = start or 0.0
    values = columns.values(round(seconds / _SECONDS))
    return Spectrogram(values, first, first + seconds)


class _Columns:
    """Means over neighbouring frames. When there are too many columns, each two are replaced by their mean."""

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
        """Return the columns of the first ``frames`` frames; later frames are padding."""
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
